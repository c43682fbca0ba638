"""Turns a client's voice sample into the reference that a prompt carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gateway.errors import InvalidRequest
from gateway.text.sanitise import sanitise_text
from gateway.upstream.dialect import Reference
from gateway.voices.samples.prepare import decode_base64, prepare_reference

MOST_REFERENCES = 8
MOST_REFERENCE_SECONDS = 90.0  # 2,250 prompt tokens of 8,192 (docs/contract.md section 4)
MOST_TRANSCRIPT_CHARACTERS = 4096


def make_reference(encoded: str, transcript: str, *, limit_bytes: int, param: str) -> Reference:
    """A reference from base64 or a data URL; blocks for up to a second of CPU time.

    Args:
        encoded: The audio file.
        transcript: What it says; may be empty.
        limit_bytes: Largest file.
        param: The request field, for errors.

    Raises:
        InvalidRequest, RequestTooLarge: See `prepare_reference`.
    """
    data = decode_base64(encoded, limit_bytes=limit_bytes, param=param)
    return reference_of(data, transcript, param=param)


def reference_of(data: bytes, transcript: str, *, param: str) -> Reference:
    """A reference from an audio file's bytes; blocks for up to a second of CPU time.

    Raises:
        InvalidRequest, RequestTooLarge: See `prepare_reference`.
    """
    if len(transcript) > MOST_TRANSCRIPT_CHARACTERS:
        raise InvalidRequest(
            f"A reference's text has at most {MOST_TRANSCRIPT_CHARACTERS} characters.", param=param
        )
    prepared = prepare_reference(data, param=param)
    return Reference(prepared.wav, sanitise_text(transcript))


def references_by_speaker(
    speakers: Sequence[int], of_speakers: Mapping[int, Reference], others: Sequence[Reference]
) -> dict[int, Reference]:
    """Whose voice each reference of a dialogue is, in the order of the speakers.

    Args:
        speakers: Numbers of the text's tags.
        of_speakers: References that were given for a certain speaker.
        others: Further ones: for the speakers without, lowest number first.
    """
    known = {speaker: of_speakers[speaker] for speaker in speakers if speaker in of_speakers}
    free = [speaker for speaker in sorted(speakers) if speaker not in known]
    known.update(zip(free, others, strict=False))
    return dict(sorted(known.items()))


def introduced(speaker: int, reference: Reference) -> Reference:
    """A reference behind its speaker's tag, as the model's examples have it."""
    transcript = f"[SPEAKER{speaker}] {reference.transcript}".strip()
    return replace(reference, transcript=transcript)


def check_references(references: Sequence[Reference], *, param: str) -> None:
    """Refuse more references than a prompt has room for.

    Raises:
        InvalidRequest: Too many, or too long together.
    """
    seconds = sum(reference.seconds for reference in references)
    if len(references) > MOST_REFERENCES or seconds > MOST_REFERENCE_SECONDS:
        raise InvalidRequest(
            f"At most {MOST_REFERENCES} references of {MOST_REFERENCE_SECONDS:g} seconds together "
            f"are taken; these are {len(references)} of {seconds:.0f} seconds.",
            param=param,
        )
