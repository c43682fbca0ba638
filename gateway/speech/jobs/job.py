"""The states and records of jobs: long texts that are spoken in the background."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gateway.speech.request import SpeechRequest
from gateway.text.boundary import Boundary
from gateway.text.spoken_text import read_text
from gateway.upstream.dialect import Reference, Sampling


class State(StrEnum):
    """Where a job is."""

    PENDING = "pending"
    PROCESSING = "processing"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE = frozenset({State.PENDING, State.PROCESSING})
FINAL = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})
ALL = frozenset(State)
OPEN = ALL - FINAL


@dataclass(frozen=True, slots=True)
class Notes:
    """What a client says about a job; nothing of it changes the audio.

    Attributes:
        voice_name: The voice as the client named it.
        session_id: The client's own word.
        original_id: Id of the job that this one repeats.
        retries: How often the original was repeated before.
        display_name, tags, archived: For the client's own lists.
    """

    voice_name: str | None = None
    session_id: str | None = None
    original_id: str | None = None
    retries: int = 0
    display_name: str | None = None
    tags: tuple[str, ...] = ()
    archived: bool = False


@dataclass(frozen=True, slots=True)
class Chapter:
    """A heading of the text.

    Attributes:
        title: Its words.
        segment: Number of the segment that begins with it.
        start_seconds: Where it begins in the audio; None until the job is complete.
    """

    title: str
    segment: int
    start_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """One generation of a job.

    Attributes:
        number: 0 for the first.
        text: What it says.
        before: What stands in the text before it.
        file: Name of its audio in the job's folder (s16le mono 24 kHz, no header), or None while
            it is not made.
        samples: Length of that audio.
        tries: Generations that failed.
    """

    number: int
    text: str = field(repr=False)
    before: Boundary
    file: str | None = None
    samples: int = 0
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """A row of the store: a job as it was when it was read.

    Attributes:
        id: Unguessable.
        owner: Name of the caller's key; no other caller sees the job. None without keys.
        state: Where it is.
        fields: How it is said: `request_fields` of its request.
        preview: The first characters of its text.
        text_characters: Length of its text.
        notes: The client's own.
        created, updated, started, ended: Unix times.
        error: A failure in words fit for a client.
        segments: Generations of its text.
        segments_made: Those that are stored.
        likely_seconds: How long its audio will probably be.
        made_seconds: How long the stored segments are; the whole audio once it is complete.
        stored_bytes: Size of the audio that can be downloaded, 0 before it is complete.
        stored_name: File of that audio in the job's folder.
        chapters: Headings of the text.
        paragraph_pause_seconds, chapter_pause_seconds: Silence at those joins.
        holder, beat: The process that works on it, and its heartbeat's count.
        version: Grows with every change.
    """

    id: str
    owner: str | None
    state: State
    fields: dict[str, Any] = field(repr=False)
    preview: str = field(repr=False)
    text_characters: int
    notes: Notes
    created: float
    updated: float
    started: float | None
    ended: float | None
    error: str | None
    segments: int
    segments_made: int
    likely_seconds: float
    made_seconds: float
    stored_bytes: int
    stored_name: str | None
    chapters: tuple[Chapter, ...]
    paragraph_pause_seconds: float
    chapter_pause_seconds: float
    holder: str | None
    beat: int
    version: int

    @property
    def response_format(self) -> str:
        """The format of its audio."""
        return str(self.fields["response_format"])

    @property
    def share(self) -> float:
        """The part of its segments that is made, 0 to 1; 1 only when it is complete."""
        if self.state is State.COMPLETED:
            return 1.0
        return min(0.99, self.segments_made / max(self.segments, 1))


def request_fields(request: SpeechRequest) -> dict[str, Any]:
    """A request as JSON values, without its text and the audio of its references."""
    fields = {each.name: getattr(request, each.name) for each in dataclasses.fields(request)}
    del fields["text"], fields["references"]
    fields["normalised"] = request.text.normalised
    fields["scripts"] = request.text.scripts and sorted(request.text.scripts)
    fields["sampling"] = dataclasses.asdict(request.sampling)
    fields["transcripts"] = [reference.transcript for reference in request.references]
    return fields


def request_of(fields: dict[str, Any], text: str, references: Sequence[bytes]) -> SpeechRequest:
    """The request of stored fields.

    Args:
        fields: Of `request_fields`.
        text: What is said.
        references: WAV files, one for each stored transcript.

    Raises:
        TypeError, KeyError: They were stored by a version that knew other fields.
    """
    known = dict(fields)
    transcripts = known.pop("transcripts")
    known["sampling"] = Sampling(**known["sampling"])
    samples = tuple(
        Reference(wav, transcript) for wav, transcript in zip(references, transcripts, strict=True)
    )
    scripts = known.pop("scripts", None)
    spoken = read_text(
        text,
        len(text),
        normalised=known.pop("normalised", True),
        scripts=scripts and frozenset(scripts),
    )
    return SpeechRequest(text=spoken, references=samples, **known)
