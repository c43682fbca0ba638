"""Faster or slower speech at the same pitch, as a stream: FFmpeg's `atempo`.

It overlaps windows of 1,024 samples (43 ms), so the first output comes after 60 to 120 ms of
input (measured 2026-11).
"""

from __future__ import annotations

from gateway.audio.ffmpeg import FilterGraph
from gateway.audio.pcm import BYTES_PER_SAMPLE, ENGINE_SAMPLE_RATE_HZ

SPEED_RANGE = (0.25, 4.0)  # OpenAI's API reference, speech endpoint
BLOCK_BYTES = 960  # 20 ms; half an audio token, so an engine's chunks are never held back
FLUSH_BLOCKS = 5  # two windows and more: `atempo` alone drops up to 15 ms of its input's end
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
    frames whatever is fed (a frame that comes out under half a sample is an error to it besides).
    Silence after the end pushes all of the audio out, and is cut off again.

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
        self._speed = speed
        self._waiting = b""
        self._input_samples = 0
        self._output_samples = 0

    def feed(self, pcm: bytes) -> bytes:
        """Filter whole samples; returns what is ready."""
        self._input_samples += len(pcm) // BYTES_PER_SAMPLE
        pcm = self._waiting + pcm
        whole = len(pcm) // BLOCK_BYTES * BLOCK_BYTES
        self._waiting = pcm[whole:]
        out = super().feed(pcm[:whole])
        self._output_samples += len(out) // BYTES_PER_SAMPLE
        return out

    def finish(self) -> bytes:
        """The rest, once nothing more will be fed."""
        if not self._input_samples:
            return b""
        rest = self._waiting.ljust((1 + FLUSH_BLOCKS) * BLOCK_BYTES, b"\0")
        self._waiting = b""
        out = super().feed(rest) + super().finish()
        left_samples = round(self._input_samples / self._speed) - self._output_samples
        return out[: max(0, left_samples) * BYTES_PER_SAMPLE]
