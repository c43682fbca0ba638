"""The record of one request: filled on its way, logged once at its end."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from gateway.telemetry.logging import escaped

SHOWN_TEXT_CHARACTERS = 200


@dataclass
class RequestRecord:
    """The log's fields of a request, in this order; None where a step was not reached.

    A request that speaks several texts sums up their characters and audio.

    Attributes:
        surface: Whose route it is.
        key: The name of the caller's key.
        status: Of the answer that was begun.
        outcome: As in `gateway_requests_total`.
        queue_wait_seconds: Wait for a slot.
        first_audio_seconds: Until the first PCM from the upstream.
        first_byte_seconds: Until the first bytes for the client.
        audio_seconds: Audio made for the client.
        characters: Of the text.
        upstream: Address of the last engine that was asked.
        response_format: Of the answer.
        voice: A preset's name, or `library`.
        text: The text's beginning, where the operator wants it.
    """

    surface: str | None = None
    key: str | None = None
    status: int | None = None
    outcome: str | None = None
    queue_wait_seconds: float | None = None
    first_audio_seconds: float | None = None
    first_byte_seconds: float | None = None
    audio_seconds: float | None = None
    characters: int | None = None
    upstream: str | None = None
    response_format: str | None = None
    voice: str | None = None
    text: str | None = None

    @property
    def started(self) -> bool:
        """Whether its answer has begun: from then on, a failure aborts the connection."""
        return self.status is not None

    def add_text(self, text: str, *, shown: bool) -> None:
        """Take note of a text that is to be spoken."""
        self.characters = (self.characters or 0) + len(text)
        if shown and self.text is None:
            self.text = escaped(text[:SHOWN_TEXT_CHARACTERS])

    def add_audio(self, seconds: float) -> None:
        """Take note of audio that was made."""
        self.audio_seconds = (self.audio_seconds or 0.0) + seconds


# The record of the current task's request; outside of one, a record that nobody reads.
_RECORD: ContextVar[RequestRecord | None] = ContextVar("record", default=None)


def new_record() -> RequestRecord:
    """A record of a request that begins; the current task's, and of every task that it starts."""
    record = RequestRecord()
    _RECORD.set(record)
    return record


def current_record() -> RequestRecord:
    """The record of the request that the current task serves."""
    return _RECORD.get() or RequestRecord()
