"""The container's chunk arithmetic: which audio leaves at which token.

After docs/contract.md section 2: the codec's eight codes are delayed against one another, so audio
lags behind tokens, and knobs below the safe ones lose it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.engine.base import OVERHEAD_TOKENS

SAFE_SIZE_TOKENS = 8
SAFE_OVERLAP_TOKENS = 11
LOSSY_OVERLAP_TOKENS = 7


@dataclass(frozen=True, slots=True)
class Chunk:
    """Audio that leaves together.

    Attributes:
        at_token: The token after which it leaves.
        first_frame: Its first audio frame (960 samples).
        frames: How many.
    """

    at_token: int
    first_frame: int
    frames: int


def plan_chunks(tokens: int, size: int, overlap: int) -> Iterator[Chunk]:
    """The chunks of a generation.

    With size s and overlap o the first leaves after s+7 tokens with s-8 frames, the second after
    2s+o-7, further ones every s tokens with s frames; the tail holds the rest.

    Args:
        tokens: Tokens generated, the 11 of overhead included.
        size: `audio_chunk_size`.
        overlap: `audio_chunk_overlap_size`.
    """
    frames = tokens - OVERHEAD_TOKENS
    if frames <= 0:
        return
    if size < SAFE_SIZE_TOKENS:
        # A line through the two observations: 112 of 120 frames at size 5, 77 of 120 at -3.
        lost = max(1, round(8 + (5 - size) * 35 / 8))
        yield Chunk(tokens, 0, max(0, frames - lost))
        return
    lost = max(0, LOSSY_OVERLAP_TOKENS - overlap)  # at the front of every later chunk
    at, done = size + 7, 0
    while at < tokens and done + (size if done else size - 8) < frames:
        count = size if done else size - 8
        if count:
            yield Chunk(at, done + (lost if done else 0), count - (lost if done else 0))
        at = 2 * size + overlap - 7 if not done else at + size
        done += count
        if not count:
            break
    tail = frames - done
    if LOSSY_OVERLAP_TOKENS <= overlap < SAFE_OVERLAP_TOKENS:
        tail -= min(2, tail) if frames % 2 else 0
    if tail > 0:
        yield Chunk(tokens, done, tail)
