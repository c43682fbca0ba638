"""The container's chunk arithmetic: which audio leaves at which token.

After docs/contract.md section 2 and the fork's own loop, replayed on row numbers: the codec's eight
codes are delayed against one another, so audio lags behind tokens, and knobs below the safe ones
lose or repeat it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

DELAY_ROWS = 7  # eight codebooks, each one row behind the one before
OPENING_ROWS = 1  # the bos row
CLOSING_ROWS = 1  # the row in which every codebook says that the audio is over
FRAMES_TO_ROWS = OPENING_ROWS + DELAY_ROWS + CLOSING_ROWS
CLOSING_TOKENS = 2  # <|audio_eos|> and <|eot_id|>: frames + 11 tokens in all
UNDECODED_ROWS = 10  # a cache of so many rows or fewer is dropped with a warning in the log


@dataclass(frozen=True, slots=True)
class Chunk:
    """Audio that leaves together.

    Attributes:
        at_token: The token after which it leaves.
        first_frame: Its first audio frame (960 samples).
        frames: How many.
        decoded: False where too few rows were there: speech sends nothing, a chat fails.
    """

    at_token: int
    first_frame: int
    frames: int
    decoded: bool = True


@dataclass(frozen=True, slots=True)
class Generation:
    """The tokens of one answer.

    Attributes:
        frames: Audio frames that the model wants to make.
        max_tokens: Bound of the tokens.
        lead_tokens: Text tokens before the audio: 0 for speech, 1 for a chat.
    """

    frames: int
    max_tokens: int
    lead_tokens: int = 0

    @property
    def natural_tokens(self) -> int:
        """Tokens of the whole answer: frames + 11, in a chat frames + 12."""
        return self.lead_tokens + self.frames + FRAMES_TO_ROWS + CLOSING_TOKENS

    @property
    def tokens(self) -> int:
        """Tokens that are generated."""
        return min(self.natural_tokens, self.max_tokens)

    @property
    def truncated(self) -> bool:
        """Whether max_tokens ends it."""
        return self.max_tokens < self.natural_tokens

    @property
    def rows(self) -> int:
        """Rows of audio codes that are generated."""
        return max(0, min(self.frames + FRAMES_TO_ROWS, self.max_tokens - self.lead_tokens))

    @property
    def flush_token(self) -> int:
        """The token after which the tail leaves: <|audio_eos|>, or the last one."""
        return min(self.tokens, self.natural_tokens - 1)


def plan_chunks(generation: Generation, size: int, overlap: int) -> Iterator[Chunk]:
    """The chunks of an answer, in order.

    With size s and overlap o the first leaves after s+7 tokens with s-8 frames, the second after
    2s+o-7 with s frames, further ones every s tokens; the tail holds the rest. Sizes from 8 to 25
    with overlaps from 11 on are exact.

    Args:
        generation: How many tokens there are.
        size: `audio_chunk_size`; below 8, also negative, it loses or repeats frames.
        overlap: `audio_chunk_overlap_size`.
    """
    rows = generation.rows
    ended = rows == generation.frames + FRAMES_TO_ROWS
    start = row = 0
    first = True
    while True:
        wanted = size + DELAY_ROWS if first else size + overlap
        row = max(row + 1, start + wanted)  # one look after each token
        if row > rows:
            break
        release = size - DELAY_ROWS if first else size
        closed = ended and row == rows
        yield _decode(generation.lead_tokens + row, start, row, closed=closed, release=release)
        # What Python's cache[release:] leaves, also where release is negative.
        start = min(start + release, row) if release >= 0 else max(start, row + release)
        first = False
    if start < rows:
        yield _decode(generation.flush_token, start, rows, closed=ended, release=None)


def _decode(at_token: int, start: int, end: int, *, closed: bool, release: int | None) -> Chunk:
    """The frames of rows `start` to `end` that leave; all of them where `release` is None."""
    if end - start <= UNDECODED_ROWS:
        return Chunk(at_token, 0, 0, decoded=False)
    opening = OPENING_ROWS if start == 0 else 0
    frames = end - start - opening - (CLOSING_ROWS if closed else 0) - DELAY_ROWS
    if release is not None:
        frames = len(range(frames)[: release - opening])
    return Chunk(at_token, max(0, start - OPENING_ROWS), frames)


def planned_frames(generation: Generation, size: int, overlap: int) -> int:
    """How many frames reach the client."""
    return sum(chunk.frames for chunk in plan_chunks(generation, size, overlap))
