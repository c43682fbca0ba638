"""Which frames of a growing stream of codes are decoded next, and when: pure decisions.

A window holds ten frames more than it gives sound for, on each side where the stream has them, so
the joins are exactly those of one whole decode. Its length is one of a few sizes, because each size
is a CUDA graph; padding would change the sound.
"""

from __future__ import annotations

from dataclasses import dataclass

from engines.voice import TOKENS_PER_SECOND

CONTEXT_FRAMES = 10  # on either side a frame's sound depends on so many: what DAC's decoder reaches
FIRST_FRAMES = 4  # sound of the first chunk: 0.16 s, heard after 21 steps of the decoder
MOST_FRAMES = 100  # of one chunk: 83 % of its window is new sound
# Lengths of windows: for 4 new frames twice, as slow cards need them, to 100.
SIZES = (
    FIRST_FRAMES + CONTEXT_FRAMES,
    2 * FIRST_FRAMES + CONTEXT_FRAMES,
    2 * CONTEXT_FRAMES + FIRST_FRAMES,
    2 * CONTEXT_FRAMES + 20,
    2 * CONTEXT_FRAMES + 50,
    2 * CONTEXT_FRAMES + MOST_FRAMES,
)
STREAMS_PER_FIRST_FRAME = 8  # prefills of a crowd delay its second chunks: the first are longer
GROWTH = 4
# A chunk is made this long before the player has used up the last one, or sooner; after a short
# chunk, half its sound before: so a quick card makes a longer one next.
MARGIN_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of frames to decode.

    Attributes:
        start, stop: Frames that are decoded.
        sound_from, sound_to: Those among them whose sound is new and exact.
    """

    start: int
    stop: int
    sound_from: int
    sound_to: int

    @property
    def frames(self) -> int:
        """Length of the window."""
        return self.stop - self.start

    @property
    def new_frames(self) -> int:
        """Frames of sound that it gives."""
        return self.sound_to - self.sound_from


def next_window(sent: int, ready: int, *, finished: bool) -> Window | None:
    """The window that gives the most new sound, the shortest of these; None where none can.

    Args:
        sent: Frames whose sound has been sent.
        ready: Frames whose codes are known.
        finished: Whether no frame follows. The end of a short stream may need a length of its own.
    """
    left = max(0, sent - CONTEXT_FRAMES)
    if finished and ready - left <= SIZES[-1]:
        if sent >= ready:
            return None
        size = next((s for s in SIZES if ready - left <= s <= ready), ready - left)
        return Window(ready - size, ready, sent, ready)
    best = None
    for size in SIZES:
        if size <= ready:
            start = min(left, ready - size)
            window = Window(start, start + size, sent, start + size - CONTEXT_FRAMES)
            if window.new_frames > (best.new_frames if best else 0):
                best = window
    return best


def frames_wanted(sent: int, new_frames: int) -> int:
    """How many frames must be ready for a window with so many new ones.

    Args:
        sent: Frames whose sound has been sent.
        new_frames: At most what the longest window gives; more is cut to that.
    """
    left = max(0, sent - CONTEXT_FRAMES)
    new_frames = min(new_frames, left + SIZES[-1] - CONTEXT_FRAMES - sent)
    needed = sent + new_frames + CONTEXT_FRAMES
    return min(max(size, needed) for size in SIZES if left + size >= needed)


@dataclass(slots=True)
class Pace:
    """How a stream's chunks grow, and when the next one is due.

    Attributes:
        sent: Frames sent so far.
        chunk_frames: Sound of the last chunk.
        began_seconds: When the first chunk was sent; a player starts then.
    """

    sent: int = 0
    chunk_frames: int = 0
    began_seconds: float | None = None

    def wanted_frames(self, streams: int = 1) -> int:
        """New frames that the next chunk should have, unless time is short.

        Args:
            streams: How many there are now.
        """
        if self.began_seconds is None:
            return FIRST_FRAMES + streams // STREAMS_PER_FIRST_FRAME
        return max(FIRST_FRAMES, min(GROWTH * self.chunk_frames, MOST_FRAMES))

    def due_seconds(self) -> float:
        """When the next chunk must be made, however small; infinite before the first one."""
        if self.began_seconds is None:
            return float("inf")
        margin = min(MARGIN_SECONDS, self.chunk_frames / TOKENS_PER_SECOND / 2)
        return self.began_seconds + self.sent / TOKENS_PER_SECOND - margin

    def advance(self, frames: int, now_seconds: float) -> None:
        """Note that a chunk was sent."""
        if self.began_seconds is None:
            self.began_seconds = now_seconds
        self.sent += frames
        self.chunk_frames = frames
