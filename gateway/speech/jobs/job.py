"""One long text that is spoken in the background: where it is, and what it has made."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from dataclasses import dataclass, field
from enum import StrEnum
from typing import IO

from gateway.speech.prepare import PreparedSpeech
from gateway.speech.request import SpeechRequest


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


@dataclass(slots=True, eq=False)
class Job:
    """One long text.

    Attributes:
        speech: What is said; streamed, so that no more than a piece of it is in memory.
        voice_name: As the client named it.
        owner: Name of the caller's key; nobody else sees the job.
        session_id: The client's own word.
        original_id: Of the job that this one repeats.
        retries: How often it was repeated before.
        id: Unguessable.
        state: Where it is.
        created, updated, started, ended: Unix times.
        error: What a failure was, in words fit for a client.
        total_chunks: About how many generations its text takes.
        likely_seconds: How long its audio will probably be.
        made_seconds: How long it is so far.
        stored_bytes: Size of its file.
        content_type: Of its audio.
        display_name, tags, archived: The client's own notes.
        file: Holds its audio; `lock` is around every use of it.
        task: Speaks it.
        changed: Set, and replaced, whenever something changes.
    """

    speech: PreparedSpeech
    voice_name: str | None
    owner: str | None
    session_id: str | None = None
    original_id: str | None = None
    retries: int = 0
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: State = State.PENDING
    created: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)
    started: float | None = None
    ended: float | None = None
    error: str | None = None
    total_chunks: int = 1
    likely_seconds: float = 0.0
    made_seconds: float = 0.0
    stored_bytes: int = 0
    content_type: str = ""
    display_name: str | None = None
    tags: tuple[str, ...] = ()
    archived: bool = False
    file: IO[bytes] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)  # around the file
    task: asyncio.Task[None] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def request(self) -> SpeechRequest:
        """What is said."""
        return self.speech.request

    @property
    def share(self) -> float:
        """How much of its likely audio is made, 0 to 1; 1 only when it is complete."""
        if self.state is State.COMPLETED:
            return 1.0
        return min(0.99, self.made_seconds / max(self.likely_seconds, 0.1))

    @property
    def chunks_made(self) -> int:
        """Segments that are complete, told from the share."""
        return int(self.share * self.total_chunks)

    def enter(self, state: State) -> None:
        """Be in another state, and wake those who watch."""
        self.state, self.updated = state, time.time()
        if state in FINAL:
            self.ended = self.updated
        self.tell()

    def tell(self) -> None:
        """Wake those who watch."""
        self.changed.set()
        self.changed = asyncio.Event()

    def drop_audio(self) -> None:
        """Give the file's room back."""
        if self.file is not None:
            with self.lock:
                self.file.close()
        self.file, self.stored_bytes, self.made_seconds = None, 0, 0.0
