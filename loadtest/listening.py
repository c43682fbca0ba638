"""What a player hears of bytes that come in: how much audio they are worth, and where it starves.

Pure, so that the load test and its own tests share it; only response formats whose bytes are worth
a constant time are followed (pcm, wav, mp3 of a constant bit rate).
"""

from __future__ import annotations

from gateway.audio.pcm import ENGINE_BYTES_PER_SECOND
from gateway.audio.playback import Player

WAV_HEADER_BYTES = 44
# MPEG-2 layer III, which 24 kHz means: kbit/s by the header's index (ISO 13818-3, table 2.4.2.3).
MP3_KBPS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
MP3_HEADER_BYTES = 4


class Listener:
    """Follows one streamed answer.

    Args:
        response_format: `pcm`, `wav` or `mp3`.
        asked: When the request was sent, monotonic seconds.

    Attributes:
        first_audio_seconds: From the request to the first audio byte; None while there is none.
        longest_gap_seconds: Between two reads.
        size_bytes: Received.
    """

    def __init__(self, response_format: str, asked: float) -> None:
        self.first_audio_seconds: float | None = None
        self.longest_gap_seconds = 0.0
        self.size_bytes = 0
        self._header_bytes = WAV_HEADER_BYTES if response_format == "wav" else 0
        self._bytes_per_second = 0.0 if response_format == "mp3" else float(ENGINE_BYTES_PER_SECOND)
        self._front = b""
        self._asked = self._last = asked
        self._player = Player()

    @property
    def audio_seconds(self) -> float:
        """Audio received; 0 while the bit rate is not known yet."""
        if not self._bytes_per_second:
            return 0.0
        return max(0, self.size_bytes - self._header_bytes) / self._bytes_per_second

    @property
    def underrun_seconds(self) -> float:
        """What a player that started at the first audio has starved so far."""
        return self._player.underrun_seconds

    def hear(self, data: bytes, now: float) -> None:
        """Note what came at a monotonic time."""
        self.size_bytes += len(data)
        if not self._bytes_per_second:
            self._front += data[:MP3_HEADER_BYTES]
            if len(self._front) >= MP3_HEADER_BYTES:
                self._bytes_per_second = MP3_KBPS[self._front[2] >> 4] * 1000 / 8
        if self.size_bytes <= self._header_bytes:
            return
        if self.first_audio_seconds is None:
            self.first_audio_seconds = now - self._asked
        else:
            self.longest_gap_seconds = max(self.longest_gap_seconds, now - self._last)
        self._player.deliver(self._last, now, self.audio_seconds)
        self._last = now
