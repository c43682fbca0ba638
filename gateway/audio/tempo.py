"""Faster or slower speech at the same pitch, as a stream: FFmpeg's `atempo`.

It overlaps windows of 1,024 samples (43 ms), so the first output comes after 60 to 120 ms of
input (measured 2026-11).
"""

from __future__ import annotations

from gateway.audio.ffmpeg import FilterGraph
from gateway.request import ENGINE_SAMPLE_RATE_HZ, SPEED_RANGE

BLOCK_BYTES = 960  # 20 ms; half an audio token, so an engine's chunks are never held back
# A frame that comes out shorter than half a sample is "Cannot allocate memory" to atempo.
SHORTEST_FRAME_BYTES = 16
SLOWEST_FILTER = 0.5  # FFmpeg's atempo: 0.5 to 100; slower means two in a row


def tempo_filters(speed: float) -> list[tuple[str, dict[str, str]]]:
    """The filters for a speed in SPEED_RANGE: none at 1, two equal ones below 0.5."""
    if not SPEED_RANGE[0] <= speed <= SPEED_RANGE[1]:
        raise ValueError(f"speed {speed} is outside {SPEED_RANGE}")
    if speed == 1:
        return []
    if speed < SLOWEST_FILTER:
        return [("atempo", {"tempo": repr(speed**0.5)})] * 2
    return [("atempo", {"tempo": repr(speed)})]


class Tempo(FilterGraph):
    """Changes tempo, keeps pitch. PCM s16 mono 24 kHz in and out.

    What `atempo` makes of the same samples depends on how they are cut into frames, and the start
    is damaged by frames under 480 samples (FFmpeg 8.1, measured 2026-11), so it is given equal
    frames whatever is fed.

    Args:
        speed: Tempo factor in SPEED_RANGE; 2 halves the duration.

    Raises:
        ValueError: The speed is out of range.
    """

    def __init__(self, speed: float) -> None:
        super().__init__(
            tempo_filters(speed),
            ENGINE_SAMPLE_RATE_HZ,
            ENGINE_SAMPLE_RATE_HZ,
            frame_bytes=BLOCK_BYTES,
        )
        self._waiting = b""

    def feed(self, pcm: bytes) -> bytes:
        """Filter whole samples; returns what is ready."""
        pcm = self._waiting + pcm
        whole = len(pcm) // BLOCK_BYTES * BLOCK_BYTES
        self._waiting = pcm[whole:]
        return super().feed(pcm[:whole])

    def finish(self) -> bytes:
        """The rest, once nothing more will be fed."""
        rest, self._waiting = self._waiting, b""
        if rest:
            rest = rest.ljust(SHORTEST_FRAME_BYTES, b"\0")
        return super().feed(rest) + super().finish()
