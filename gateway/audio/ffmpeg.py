"""Frames and filter graphs of FFmpeg, with its log and its thread pools switched off.

One request is one worker thread's work; parallel work comes from many requests at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import cast

import av
import av.logging

from gateway.audio.ffmpeg_switches import ffmpeg_function
from gateway.audio.pcm import BYTES_PER_SAMPLE

SAMPLE_FORMAT = "s16"
LAYOUT = "mono"
MAX_FRAME_BYTES = 9600  # bounds what one call into FFmpeg copies; 0.2 s at 24 kHz

Filter = tuple[str, dict[str, str]]


def _quieten() -> None:
    """Switch off FFmpeg's log lines and its thread pools, once for the process.

    Every encoder of PyAV holds a filter graph, and a graph starts a thread for each processor,
    at most 17 (measured 2026-11: 2 a graph on 2 processors): 200 streams would own thousands of
    idle threads. Where FFmpeg's switch for
    the processor count cannot be found, the threads are only a waste.
    """
    av.logging.set_level(None)
    if force_count := ffmpeg_function("av_cpu_force_count"):
        force_count(1)


_quieten()


def frame_of(pcm: bytes, time_base: Fraction, position_samples: int) -> av.AudioFrame:
    """A frame that holds a copy of whole samples (s16 mono).

    Args:
        pcm: At least one sample.
        time_base: Seconds a sample.
        position_samples: Where it stands in the stream.
    """
    frame = av.AudioFrame(format=SAMPLE_FORMAT, layout=LAYOUT, samples=len(pcm) // BYTES_PER_SAMPLE)
    frame.planes[0].update(pcm)
    frame.sample_rate = time_base.denominator
    frame.time_base = time_base
    frame.pts = position_samples
    return frame


class FilterGraph:
    """A chain of FFmpeg's audio filters from PCM to PCM, s16 mono on both sides.

    Args:
        filters: (name, options) in order.
        in_rate_hz: Rate of what is fed.
        out_rate_hz: Rate of what comes out.
        frame_bytes: What is fed goes in at most this large pieces.

    Raises:
        av.FFmpegError: A filter or option is unknown.
    """

    def __init__(
        self,
        filters: Sequence[Filter],
        in_rate_hz: int,
        out_rate_hz: int,
        *,
        frame_bytes: int = MAX_FRAME_BYTES,
    ) -> None:
        self._frame_bytes = frame_bytes
        self._time_base = Fraction(1, in_rate_hz)
        self._position_samples = 0
        graph = av.filter.Graph()
        self._source = graph.add_abuffer(
            sample_rate=in_rate_hz,
            format=SAMPLE_FORMAT,
            layout=LAYOUT,
            time_base=self._time_base,
        )
        chain = [graph.add(name, **options) for name, options in filters]
        form = graph.add(
            "aformat",
            sample_fmts=SAMPLE_FORMAT,
            sample_rates=str(out_rate_hz),
            channel_layouts=LAYOUT,
        )
        self._sink = graph.add("abuffersink")
        graph.link_nodes(self._source, *chain, form, self._sink)
        graph.configure()
        self._graph = graph  # the contexts do not keep it alive

    def feed(self, pcm: bytes) -> bytes:
        """Filter whole samples; returns what is ready."""
        out: list[memoryview] = []
        for start in range(0, len(pcm), self._frame_bytes):
            piece = pcm[start : start + self._frame_bytes]
            self._source.push(frame_of(piece, self._time_base, self._position_samples))
            self._position_samples += len(piece) // BYTES_PER_SAMPLE
            out += self._pull()
        return b"".join(out)

    def finish(self) -> bytes:
        """The rest, once nothing more will be fed."""
        if not self._position_samples:
            return b""  # a filter that never saw a frame need not be flushed
        self._source.push(None)
        return b"".join(self._pull())

    def _pull(self) -> list[memoryview]:
        out: list[memoryview] = []
        while True:
            try:
                frame = cast("av.AudioFrame", self._sink.pull())
            except (av.BlockingIOError, av.EOFError):  # wants more input; all is out
                return out
            # FFmpeg pads planes for alignment: the samples are the front of it.
            out.append(memoryview(frame.planes[0])[: frame.samples * BYTES_PER_SAMPLE])
