"""What the generation loop takes and gives: requests, their handles, and the reasons of an end.

Plain Python and numpy: the HTTP side imports it without torch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

CODEBOOKS = 8
LEAD_ROWS = CODEBOOKS  # rows before the first frame is complete: all-BOS, then seven of the delay
LARGEST_CODE = 1023
STREAM_BOS = 1024  # codes of the delay pattern
STREAM_EOS = 1025


def delay(codes: npt.NDArray[np.integer]) -> npt.NDArray[np.int16]:
    """Return the rows of a reference: codebook k of a frame stands k rows later.

    As transformers' HiggsAudioV2Processor writes it; `Generation.add_rows` undoes it.

    Args:
        codes: [8, frames].

    Returns:
        [frames + 9, 8], BOS codes before and EOS codes behind each codebook's own.
    """
    frames = codes.shape[1]
    rows = np.full((frames + CODEBOOKS + 1, CODEBOOKS), STREAM_EOS, np.int16)
    for book in range(CODEBOOKS):
        rows[: book + 1, book] = STREAM_BOS
        rows[book + 1 : book + 1 + frames, book] = codes[book]
    return rows


@dataclass(frozen=True, slots=True)
class Prompt:
    """A tokenized prompt.

    Attributes:
        token_ids: int32 [positions]; a reference of n frames takes n + 2 audio tokens and 7 delay
            tokens. Ends with `<|audio_out_bos|>`.
        audio_rows: int16 [audio positions, 8], the delayed code rows of all references, in order.
        shared_positions: Leading positions whose keys and values are worth keeping for the next
            request that begins with the same content.
    """

    token_ids: npt.NDArray[np.int32] = field(repr=False)
    audio_rows: npt.NDArray[np.int16] = field(repr=False)
    shared_positions: int = 0


@dataclass(frozen=True, slots=True)
class Sampling:
    """How codes are drawn; the defaults are the container's, and transformers' window of 7.

    Attributes:
        temperature: 0 takes the likeliest code.
        top_p: 1 is off.
        top_k: 0 or below is off.
        seed: None lets the loop draw one, which `Generation.seed` tells.
        repetition_window: Rows that repetition-aware sampling looks back; 0 is off, 16 the most.
        repetition_limit: Repeats in the window from which a code is drawn again, from the plain
            softmax.
    """

    temperature: float = 1.0
    top_p: float = 0.95
    top_k: int = 50
    seed: int | None = None
    repetition_window: int = 7
    repetition_limit: int = 2


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One answer to generate: at most `max_frames` frames of 40 ms."""

    prompt: Prompt
    max_frames: int
    sampling: Sampling = field(default_factory=Sampling)


class EndReason(StrEnum):
    """Why a generation is over."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    REPETITION = "repetition"
    FAILED = "failed"


class Generation:
    """Handle of a running request: the loop's thread writes it, any thread may read it.

    Attributes:
        codes: int16 [max_frames, 8], 0 to 1023, the delay undone; `codes[:ready]` is valid.
        ready: Complete frames; only grows.
        end: None while it runs; once set, `ready` is final.
        error: A sentence where `end` is FAILED.
        notify: Tells the reader that something changed.
        fields, slot: How it begins and where it runs, for the loop alone.
    """

    def __init__(
        self,
        request: GenerationRequest,
        seed: int,
        fields: npt.NDArray[np.int32],
        notify: Callable[[], None],
    ) -> None:
        self.request = request
        self.seed = seed
        self.fields = fields
        # The rows at both ends take what the delay holds of frames before and past the answer.
        self._buffer = np.zeros((request.max_frames + 2 * LEAD_ROWS, CODEBOOKS), np.int16)
        self.codes = self._buffer[LEAD_ROWS:-LEAD_ROWS]
        self.ready = 0
        self.end: EndReason | None = None
        self.error: str | None = None
        self.wanted_end: EndReason | None = None
        self.notify = notify
        self.slot = -1
        self._cut = request.max_frames
        self._lock = threading.Lock()

    def cancel(self) -> None:
        """Ask for the end; the slot is free at the next step."""
        self.stop(EndReason.CANCELLED)

    def stop(self, reason: EndReason) -> None:
        """Ask for the end with a reason; the first call decides."""
        with self._lock:
            if self.wanted_end is None and self.end is None:
                self.wanted_end = reason

    def add_rows(self, first: int, rows: npt.NDArray[np.integer]) -> None:
        """Take delayed rows, int [count, 8], from row `first` on; row 0 is the all-BOS row."""
        books = np.arange(CODEBOOKS)
        last = first + len(rows) - 1
        at = np.arange(first, last + 1)[:, None] - 1 - books + LEAD_ROWS
        self._buffer[at, books] = np.minimum(rows, LARGEST_CODE)
        ends = np.flatnonzero(rows[:, 0] == STREAM_EOS)
        if len(ends):
            self._cut = min(self._cut, first + int(ends[0]) - 1)
        self.ready = max(self.ready, min(last - CODEBOOKS + 1, self._cut))

    def finish(self, reason: EndReason, error: str | None = None) -> None:
        """Set the end and tell the reader; the loop's thread calls it once."""
        with self._lock:
            self.error = error
            self.end = reason
        self.notify()
