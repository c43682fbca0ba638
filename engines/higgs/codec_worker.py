"""The thread that turns the codes of all streams into PCM while they are generated.

Windows of equal length are decoded together, one CUDA graph for each number of rows and length, on
a CUDA stream of its own. The generation loop only raises a counter and sets an event.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.higgs.codec import Codec
from engines.higgs.codec_windows import SIZES, Pace, Window, frames_wanted, next_window
from engines.higgs.generation import CODEBOOKS, Generation
from engines.voice import SAMPLES_PER_TOKEN

logger = logging.getLogger(__name__)

FULL_SCALE = 32767
BROKEN = -32768  # no sample of finite sound
MOST_ROWS = 32
BATCH_FRAMES = 1280  # of one batch: 0.6 GiB of activations at full size
IDLE_SECONDS = 60.0


@dataclass(slots=True, eq=False)
class CodecStream:
    """One generation on its way to PCM.

    Attributes:
        source: Its codes.
        deliver: Called on the worker's thread with s16le PCM; then once with None at the end, or
            with an exception.
        pace: When its chunks are due.
        wanted: Frames that must be ready for the next chunk.
        closed: Nobody listens any more.
    """

    source: Generation
    deliver: Callable[[bytes | Exception | None], None]
    pace: Pace = field(default_factory=Pace)
    wanted: int = 0
    closed: bool = False


class BatchDecoder:
    """Decodes batches of equally long windows: CUDA graphs on a GPU, plain calls on the CPU.

    Args:
        codec: On its device.
        batch_frames: Bound of rows x frames, which bounds the memory.
        most_rows: Rows of one batch; 1 makes a stream's sound independent of its neighbours.
    """

    def __init__(
        self, codec: Codec, *, batch_frames: int = BATCH_FRAMES, most_rows: int = MOST_ROWS
    ) -> None:
        self._codec = codec
        self._device = codec.offset.device
        self._batch_frames = max(batch_frames, SIZES[-1])
        self._most_rows = most_rows
        self._graphs: dict[tuple[int, int], tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}
        self._cuda = self._device.type == "cuda"
        self._stream = torch.cuda.Stream(self._device) if self._cuda else None
        # Reused: allocating pinned memory stops the whole device for a moment.
        self._codes = torch.empty(
            self._batch_frames * CODEBOOKS, dtype=torch.int64, pin_memory=self._cuda
        )
        self._samples = torch.empty(
            self._batch_frames * SAMPLES_PER_TOKEN, dtype=torch.int16, pin_memory=self._cuda
        )

    def most_rows(self, frames: int) -> int:
        """Rows of one batch of windows of so many frames."""
        return max(1, min(self._most_rows, self._batch_frames // frames))

    @torch.inference_mode()
    def capture(self) -> None:
        """Record a graph for each size and each power of two of rows; nothing on the CPU."""
        if self._stream is None:
            return
        shapes = [
            (rows, frames)
            for frames in SIZES
            for rows in (1, 2, 4, 8, 16, 32)
            if rows <= self.most_rows(frames)
        ]
        pool = None
        with torch.cuda.stream(self._stream):
            for rows, frames in sorted(shapes, key=lambda shape: -shape[0] * shape[1]):
                shape = (rows, CODEBOOKS, frames)
                codes = torch.zeros(shape, dtype=torch.int64, device=self._device)
                self._pcm(codes)
                self._stream.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=pool, stream=self._stream):
                    pcm = self._pcm(codes)
                pool = graph.pool()
                self._graphs[rows, frames] = graph, codes, pcm

    @torch.inference_mode()
    def decode(self, codes: NDArray[np.int16]) -> NDArray[np.int16]:
        """Decode windows of equal length.

        Args:
            codes: [rows, codebooks, frames]; at most `most_rows` rows.

        Returns:
            PCM [rows, samples], overwritten by the next call; the first sample of a row that is
            not finite is BROKEN.
        """
        rows, _, frames = codes.shape
        batch = self._codes[: codes.size].view(codes.shape)
        batch.numpy()[:] = codes
        if self._stream is None:
            return self._pcm(batch).numpy()
        with torch.cuda.stream(self._stream):
            bucket = 1 << (rows - 1).bit_length()
            recorded = self._graphs.get((bucket, frames))
            if recorded is None:
                pcm = self._pcm(batch.to(self._device))
            else:
                graph, given, pcm = recorded
                given[:rows].copy_(batch, non_blocking=True)
                graph.replay()
            result = self._samples[: rows * pcm.shape[1]].view(rows, -1)
            result.copy_(pcm[:rows], non_blocking=True)
            self._stream.synchronize()
        return result.numpy()

    def _pcm(self, codes: Tensor) -> Tensor:
        samples = self._codec.decode(codes).float()
        pcm = (samples.clamp(-1, 1) * FULL_SCALE).round().to(torch.int16)
        finite = samples.isfinite().all(dim=1)
        pcm[:, 0] = torch.where(finite, pcm[:, 0], BROKEN)
        return pcm


class CodecWorker:
    """Decodes the streams that are handed to it until `stop`.

    Args:
        decoder: Of the codec's batches.

    Attributes:
        failure: Why decoding failed, or None. What broke may break all that follows (an error of
            CUDA does), so the process should be started again.
    """

    def __init__(self, decoder: BatchDecoder) -> None:
        self._decoder = decoder
        self._streams: list[CodecStream] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self.failure: str | None = None
        self._thread = threading.Thread(target=self._run, name="higgs-codec", daemon=True)
        self.notify = self._wake.set  # for the generation loop: frames are ready

    def start(self) -> None:
        """Record the graphs, which takes some seconds on a GPU, and start the thread."""
        self._decoder.capture()
        self._thread.start()

    def stop(self) -> None:
        """End the thread; streams that are open get an error."""
        self._stopping = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()

    def open(
        self, source: Generation, deliver: Callable[[bytes | Exception | None], None]
    ) -> CodecStream:
        """Decode a generation's frames as they come; arguments as in `CodecStream`."""
        stream = CodecStream(source, deliver)
        with self._lock:
            self._streams.append(stream)
        self._wake.set()
        return stream

    def close(self, stream: CodecStream) -> None:
        """Forget a stream whose client left; nothing is delivered for it afterwards."""
        stream.closed = True
        self._wake.set()

    def _want(self, stream: CodecStream) -> None:
        new_frames = stream.pace.wanted_frames(len(self._streams))
        stream.wanted = frames_wanted(stream.pace.sent, new_frames)

    def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            with self._lock:
                self._streams = [stream for stream in self._streams if not stream.closed]
                streams = list(self._streams)
            try:
                busy = self._step(streams)
            except Exception as error:  # whatever broke, the clients must hear of it
                logger.exception("the codec failed")
                self.failure = f"the codec failed: {type(error).__name__}"
                for stream in streams:
                    self._end(stream, error)
                continue
            if not busy:
                self._wake.wait(self._seconds_until_due(streams))
        for stream in self._streams:
            self._end(stream, RuntimeError("the engine is stopping"))

    def _seconds_until_due(self, streams: Iterable[CodecStream]) -> float:
        now = time.monotonic()
        waits = (stream.pace.due_seconds() - now for stream in streams)
        # A stream that is overdue waits for frames, and these set the event.
        return min([IDLE_SECONDS, *(wait for wait in waits if wait > 0)])

    def _step(self, streams: Iterable[CodecStream]) -> bool:
        """Decode one batch of the streams that are due; whether there was one."""
        now = time.monotonic()
        due = [(stream, window) for stream in streams if (window := self._window(stream, now))]
        if not due:
            return False
        # The streams nearest to silence first; those that have sent nothing before all others.
        due.sort(key=_urgency)
        frames = due[0][1].frames
        alike = [pair for pair in due if pair[1].frames == frames]
        chosen = alike[: self._decoder.most_rows(frames)]
        codes = np.stack([s.source.codes[w.start : w.stop].T for s, w in chosen])
        pcm = self._decoder.decode(codes)
        hop, now = SAMPLES_PER_TOKEN, time.monotonic()
        for (stream, window), samples in zip(chosen, pcm, strict=True):
            begin, end = window.sound_from - window.start, window.sound_to - window.start
            stream.pace.advance(window.new_frames, now)
            self._want(stream)
            if samples[0] == BROKEN:
                self._end(stream, ArithmeticError("the sound is not finite"))
            elif not stream.closed:
                stream.deliver(samples[begin * hop : end * hop].tobytes())
        return True

    def _window(self, stream: CodecStream, now: float) -> Window | None:
        """The stream's next window, if it is due; at its end the stream is closed."""
        if stream.pace.began_seconds is None:
            self._want(stream)  # the crowd may have grown
        finished = stream.source.end is not None  # read before `ready`, which it makes final
        ready = stream.source.ready
        early = not finished and ready < stream.wanted and now < stream.pace.due_seconds()
        if stream.closed or early:
            return None
        window = next_window(stream.pace.sent, ready, finished=finished)
        if window is None and finished:
            self._end(stream, None)
        return window

    def _end(self, stream: CodecStream, error: Exception | None) -> None:
        if not stream.closed:
            stream.closed = True
            stream.deliver(error)


def _urgency(pair: tuple[CodecStream, Window]) -> float:
    stream, _ = pair
    due = stream.pace.due_seconds()
    return due if stream.pace.began_seconds is not None else -1.0
