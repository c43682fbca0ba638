"""Codes of reference recordings: read within bounds, encoded several at once, kept by content."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from engines.higgs.codec import Codec
from engines.voice import EngineBusyError, UnspeakableError
from gateway.audio.pcm import FULL_SCALE, as_samples
from gateway.audio.resample import Resampler
from gateway.errors import InvalidRequest
from gateway.voices.samples.decode import decode

MOST_KEPT = 256  # recordings; 30 s of codes are 12 KB
MOST_ROWS = 8  # of one batch: enough to fill an H100
READERS = 4
WARM_SECONDS = (4, 6, 8, 12, 16)

Codes = NDArray[np.int16]


class ReferenceEncoder:
    """Turns recordings into codes, all that wait for it at once.

    Args:
        codec: Its encoder does the work.
        most_seconds: Longer recordings are refused.
        batch_seconds: Of the recordings of a batch, filled up to one length: encoding takes some
            30 MB a second of them. One alone may be longer.
    """

    def __init__(self, codec: Codec, most_seconds: float, batch_seconds: float = 96.0) -> None:
        self._codec = codec
        self._most_seconds = most_seconds
        self._batch_samples = batch_seconds * codec.sample_rate_hz
        self._kept: OrderedDict[bytes, Future[Codes]] = OrderedDict()
        self._waiting: dict[Future[Codes], torch.Tensor] = {}  # the oldest first
        self._lock = threading.Lock()
        self._readers = ThreadPoolExecutor(READERS, "higgs-reader")
        self._encoder = ThreadPoolExecutor(1, "higgs-encoder")

    @property
    def waiting(self) -> int:
        """Recordings that are read and not yet being encoded."""
        return len(self._waiting)

    def warm_up(self) -> None:
        """Encode silence of the sizes that are likely: each takes a GPU 60 ms more at first."""
        for seconds in WARM_SECONDS:
            silence = torch.zeros(seconds * self._codec.sample_rate_hz)
            rows = self._rows(len(silence), MOST_ROWS)
            while rows:
                self._codec.encode([silence] * rows)
                rows //= 2

    def stop(self) -> None:
        """End the threads."""
        self._readers.shutdown(cancel_futures=True)
        self._encoder.shutdown(cancel_futures=True)

    def codes(self, recording: bytes) -> Future[Codes]:
        """Codes [codebooks, frames] of a recording: known, on their way, or begun now.

        Args:
            recording: A whole audio file, of any format that the gateway reads.

        Returns:
            A future that nobody can cancel, as several may wait for it. It raises UnspeakableError
            where the recording cannot be read or is too short or too long, and EngineBusyError
            where the device has no memory free for it now.
        """
        key = hashlib.sha256(recording).digest()
        with self._lock:
            known = self._kept.get(key)
            if known is not None and not (known.done() and known.exception()):
                self._kept.move_to_end(key)
                return known
            future: Future[Codes] = Future()
            future.set_running_or_notify_cancel()
            self._kept[key] = future
            if len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        self._readers.submit(self._read, recording, future)
        return future

    def _read(self, recording: bytes, future: Future[Codes]) -> None:
        try:
            samples = self._samples(recording)
            if len(samples) < self._codec.shortest_samples:
                raise UnspeakableError("The reference audio is shorter than two frames (80 ms).")
        except Exception as error:  # noqa: BLE001  (it is the future's)
            future.set_exception(error)
            return
        with self._lock:
            self._waiting[future] = samples
        self._encoder.submit(self._encode_waiting)

    def _encode_waiting(self) -> None:
        """Encode the recording that waited longest, and others that are filled up to its length."""
        with self._lock:
            if not self._waiting:
                return  # an earlier batch took what this call was for
            filled = self._codec.filled_samples
            size = filled(len(next(iter(self._waiting.values()))))
            alike = [
                each for each, samples in self._waiting.items() if filled(len(samples)) == size
            ]
            rows = self._rows(size, len(alike))
            batch = {each: self._waiting.pop(each) for each in alike[:rows]}
        self._encode(batch)

    def _rows(self, size: int, waiting: int) -> int:
        """How many recordings of a size make a batch: a power of two, as each is prepared once."""
        most = min(MOST_ROWS, max(1, int(self._batch_samples // size)))
        return int(min(1 << (waiting - 1).bit_length(), 1 << (most.bit_length() - 1)))

    def _encode(self, batch: dict[Future[Codes], torch.Tensor]) -> None:
        try:
            samples = list(batch.values())
            rows = self._rows(self._codec.filled_samples(len(samples[0])), len(samples))
            codes = self._codec.encode(samples + samples[:1] * (rows - len(samples)))[
                : len(samples)
            ]
            found = [each.to(torch.int16).cpu().numpy() for each in codes]
        except torch.OutOfMemoryError:
            if len(batch) > 1:
                for future, each in batch.items():
                    self._encode({future: each})
                return
            busy = EngineBusyError("There is no memory free to encode a recording.")
            next(iter(batch)).set_exception(busy)
        except Exception as error:  # noqa: BLE001  (it is theirs who wait)
            for future in batch:
                future.set_exception(error)
        else:
            for future, each in zip(batch, found, strict=True):
                future.set_result(each)

    def _samples(self, recording: bytes) -> torch.Tensor:
        plain = self._plain_samples(recording)
        if plain is not None:
            return plain
        try:
            decoded = decode(recording, param="messages", max_seconds=self._most_seconds)
        except InvalidRequest as error:
            raise UnspeakableError(str(error)) from error
        if decoded.cut:
            raise UnspeakableError(
                f"The reference audio is longer than {self._most_seconds:.0f} s."
            )
        pcm = np.rint(decoded.samples.clip(-1, 1) * (FULL_SCALE - 1)).astype("<i2").tobytes()
        resampler = Resampler(self._codec.sample_rate_hz, decoded.sample_rate_hz)
        samples = as_samples(resampler.feed(pcm) + resampler.finish()).astype(np.float32)
        return torch.from_numpy(samples / FULL_SCALE)

    def _plain_samples(self, recording: bytes) -> torch.Tensor | None:
        """Samples of the one form that the gateway sends, without the interpreter's time."""
        try:
            with soundfile.SoundFile(io.BytesIO(recording)) as file:
                form = (file.format, file.subtype, file.channels, file.samplerate)
                if form != ("WAV", "PCM_16", 1, self._codec.sample_rate_hz):
                    return None
                if file.frames > self._most_seconds * file.samplerate:
                    return None
                return torch.from_numpy(file.read(dtype="float32"))
        except soundfile.LibsndfileError:
            return None
