"""Compares the CPU of the gateway's encoders with their libraries alone.

    python -m loadtest.peers.encoders [--runs 5]

The library alone gets a minute of audio with the same options, frame by frame as it wants them; the
gateway's encoder gets it in pieces of a second, as a stream does.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable
from typing import cast

import av
import lameenc
import numpy as np
from av.audio.format import AudioFormat
from av.audio.stream import AudioStream

from gateway.audio.encoders import ENCODERS
from gateway.audio.encoders.base import BitRates
from gateway.audio.encoders.mp3 import QUALITY
from gateway.audio.encoders.muxed import MuxedEncoder
from gateway.audio.pcm import ENGINE_SAMPLE_RATE_HZ
from gateway.audio.transcoder import Transcoder

SECONDS = 60
PIECE_BYTES = 2 * ENGINE_SAMPLE_RATE_HZ


def audio() -> bytes:
    """Two tones and noise, s16le mono 24 kHz."""
    at = np.arange(SECONDS * ENGINE_SAMPLE_RATE_HZ) / ENGINE_SAMPLE_RATE_HZ
    noise = 0.02 * np.random.default_rng(1).standard_normal(at.size)
    tones = 0.3 * np.sin(1131 * at) + 0.1 * np.sin(5655 * at)
    return bytes((20_000 * (tones + noise)).astype("<i2").tobytes())


def by_gateway(name: str, pcm: bytes) -> int:
    """Encode as a stream does; the size of what comes."""
    transcoder = Transcoder(name)
    starts = range(0, len(pcm), PIECE_BYTES)
    size = sum(len(transcoder.feed(pcm[start : start + PIECE_BYTES])) for start in starts)
    return size + len(transcoder.finish())


def by_library(name: str, pcm: bytes) -> int:
    """Encode with the library alone; the size of what comes."""
    kind = ENCODERS[name]
    if not issubclass(kind, MuxedEncoder):
        lame = lameenc.Encoder()
        lame.set_in_sample_rate(ENGINE_SAMPLE_RATE_HZ)
        lame.set_channels(1)
        lame.set_bit_rate(BitRates().mp3_kbps)
        lame.set_quality(QUALITY)
        lame.silence()
        return len(lame.encode(pcm)) + len(lame.flush())
    file = io.BytesIO()
    options = dict(kind.container_options)
    with av.open(file, "w", format=kind.container_format, container_options=options) as container:
        rate = ENGINE_SAMPLE_RATE_HZ
        codec_options = dict(kind.codec_options)
        stream = cast(
            "AudioStream",
            container.add_stream(kind.codec, rate=rate, layout="mono", options=codec_options),
        )
        bit_rate = kind(rate, BitRates(), buffered=False).bits_per_second()
        if bit_rate:
            stream.bit_rate = bit_rate
        context = stream.codec_context
        planar = name == "aac"
        sample_format = "fltp" if planar else "s16"
        context.format = AudioFormat(sample_format)
        context.open()
        samples = np.frombuffer(pcm, "<i2").reshape(1, -1)
        samples = (samples / 32_768).astype("<f4") if planar else samples
        size = context.frame_size
        for start in range(0, samples.shape[1], size):
            piece = np.ascontiguousarray(samples[:, start : start + size])
            frame = av.AudioFrame.from_ndarray(piece, format=sample_format, layout="mono")
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return len(file.getvalue())


def cpu_ms(encode: Callable[[str, bytes], int], name: str, pcm: bytes) -> tuple[float, int]:
    """Milliseconds of this thread, and the size of what came."""
    began = time.thread_time()
    size = encode(name, pcm)
    return 1000 * (time.thread_time() - began), size


def main() -> None:
    """Read the command line, encode, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="of each; medians are shown")
    runs = range(parser.parse_args().runs)
    pcm = audio()
    print(f"| {SECONDS} s as | gateway's encoder, CPU ms | library alone, CPU ms | ratio | bytes |")
    print("|---|---|---|---|---|")
    for name in ("mp3", "opus", "aac", "flac"):
        pairs = [(cpu_ms(by_gateway, name, pcm), cpu_ms(by_library, name, pcm)) for _ in runs]
        own, bare = (statistics.median(pair[which][0] for pair in pairs) for which in (0, 1))
        sizes = " / ".join(str(result[1]) for result in pairs[0])
        print(f"| {name} | {own:.1f} | {bare:.1f} | {own / bare:.2f} | {sizes} |")


if __name__ == "__main__":
    main()
