"""What a transcoder costs over the bare encoder it drives, and how late a listener hears it.

Both run in turns in the same process with the same blocks; run it from the repository's root:
`python -m loadtest.encoders_benchmark`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av
import lameenc
from av.audio.stream import AudioStream

from gateway.audio.encoders import RESPONSE_FORMATS, BitRates
from gateway.audio.encoders.mp3 import QUALITY
from gateway.audio.transcoder import Transcoder
from tests.audio.hearing import RATE_HZ, Delay, Stream, blocks, delay_of, speechlike

KBPS = BitRates()


class RawLame:
    """Nothing but lameenc."""

    def __init__(self) -> None:
        self._lame = lameenc.Encoder()
        self._lame.silence()
        self._lame.set_channels(1)
        self._lame.set_in_sample_rate(RATE_HZ)
        self._lame.set_out_sample_rate(RATE_HZ)
        self._lame.set_bit_rate(KBPS.mp3_kbps)
        self._lame.set_quality(QUALITY)

    def feed(self, pcm: bytes) -> bytes:
        """One call."""
        return cast("bytes", self._lame.encode(pcm))

    def finish(self) -> bytes:
        """One call."""
        return cast("bytes", self._lame.flush())


class Sink:
    """The least that PyAV can write to."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.write = self.parts.append


class RawPyAV:
    """The tightest loop around PyAV that gives the bytes out block by block."""

    def __init__(
        self,
        codec: str,
        container_format: str,
        options: dict[str, str],
        container_options: dict[str, str],
        kbps: int,
    ) -> None:
        self._sink = Sink()
        self._container = av.open(
            self._sink,
            "w",
            format=container_format,
            options={"flush_packets": "1", **container_options},
        )
        stream = self._container.add_stream(codec, rate=RATE_HZ, layout="mono", options=options)
        self._stream = cast("AudioStream", stream)
        if kbps:
            self._stream.bit_rate = kbps * 1000
        self._fed_samples = 0

    def feed(self, pcm: bytes) -> bytes:
        """One frame."""
        frame = av.AudioFrame(format="s16", layout="mono", samples=len(pcm) // 2)
        frame.planes[0].update(pcm)
        frame.sample_rate = RATE_HZ
        frame.time_base = Fraction(1, RATE_HZ)
        frame.pts = self._fed_samples
        self._fed_samples += len(pcm) // 2
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
        return self._take()

    def finish(self) -> bytes:
        """The codec's rest and the container's end."""
        for packet in self._stream.encode(None):
            self._container.mux(packet)
        self._container.close()
        return self._take()

    def _take(self) -> bytes:
        data = b"".join(self._sink.parts)
        self._sink.parts.clear()
        return data


RAW: dict[str, Callable[[], Stream]] = {
    "mp3": RawLame,
    "opus": lambda: RawPyAV(
        "libopus", "ogg", {"application": "lowdelay"}, {"page_duration": "20000"}, KBPS.opus_kbps
    ),
    "aac": lambda: RawPyAV("aac", "adts", {"aac_coder": "fast"}, {}, KBPS.aac_kbps),
    "flac": lambda: RawPyAV("flac", "flac", {"frame_size": "480"}, {}, 0),
}  # wav and pcm have no encoder to compare with


@dataclass(frozen=True)
class Row:
    """One format's figures; None where there is no bare encoder."""

    response_format: str
    gateway_times: float
    raw_times: float | None
    gateway_delay: Delay
    raw_delay: Delay | None

    def markdown(self) -> str:
        """The row of the table."""
        if self.raw_times is None or self.raw_delay is None:
            raw = ["-"] * 3
        else:
            raw = [
                f"{self.raw_times:.0f}",
                f"{self.gateway_times / self.raw_times:.2f}",
                _delay(self.raw_delay),
            ]
        cells = [self.response_format, f"{self.gateway_times:.0f}", *raw[:2]]
        return "| " + " | ".join([*cells, _delay(self.gateway_delay), raw[2]]) + " |"


def _delay(delay: Delay) -> str:
    held = f"{delay.held_min_ms:.0f}-{delay.held_max_ms:.0f}"
    return f"{delay.first_bytes_ms:.0f}; {held}"


def cpu_seconds(make: Callable[[], Stream], pieces: list[bytes]) -> float:
    """CPU of one whole encoding, opening the codec included."""
    started = time.process_time()
    stream = make()
    for piece in pieces:
        stream.feed(piece)
    stream.finish()
    return time.process_time() - started


def measure(response_format: str, pcm: bytes, block_ms: int, repeats: int) -> Row:
    """Alternate both, so that a busy moment hits both; the best of each counts."""
    pieces = list(blocks(pcm, RATE_HZ * block_ms // 1000))
    seconds = len(pcm) / 2 / RATE_HZ

    def ours() -> Stream:
        return Transcoder(response_format)

    raw = RAW.get(response_format)
    our_times, raw_times = [], []
    for _ in range(repeats):
        our_times.append(seconds / cpu_seconds(ours, pieces))
        if raw:
            raw_times.append(seconds / cpu_seconds(raw, pieces))
    return Row(
        response_format,
        max(our_times),
        max(raw_times, default=None),
        delay_of(ours, response_format),
        delay_of(raw, response_format) if raw else None,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=20, help="audio of one encoding")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--block-ms", type=int, nargs="+", default=[20, 1000])
    arguments = parser.parse_args()
    pcm = speechlike(arguments.seconds)
    for block_ms in arguments.block_ms:
        print(f"\nFed {block_ms} ms at a time (delays: 20 ms at a time):\n")
        print(
            "| format | gateway, x real time a core | bare encoder | ratio "
            "| gateway: first bytes; held (ms) | bare: first bytes; held (ms) |"
        )
        print("|---|---|---|---|---|---|")
        for response_format in RESPONSE_FORMATS:
            row = measure(response_format, pcm, block_ms, arguments.repeats)
            print(row.markdown(), flush=True)


if __name__ == "__main__":
    main()
