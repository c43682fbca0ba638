"""Codes of reference recordings: read within bounds, encoded several at once, kept by content."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from engines.higgs.codec import SHORTEST_SAMPLES, Codec
from engines.voice import SAMPLE_RATE_HZ, EngineBusyError, UnspeakableError, plain_pcm
from gateway.audio.pcm import FULL_SCALE, as_samples, seconds_of
from gateway.errors import InvalidRequest
from gateway.voices.samples.decode import decode
from gateway.voices.samples.prepare import at_engine_rate

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
        self._batch_samples = batch_seconds * SAMPLE_RATE_HZ
        # All three by the recording's hash.
        self._kept: OrderedDict[bytes, Codes] = OrderedDict()
        self._asked: dict[bytes, list[Future[Codes]]] = {}  # who waits for what is on its way
        self._waiting: dict[bytes, torch.Tensor] = {}  # samples, the oldest first
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
            silence = torch.zeros(seconds * SAMPLE_RATE_HZ)
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
            A future. It raises UnspeakableError where the recording cannot be read or is too short
            or too long, and EngineBusyError where the device has no memory free for it now. What
            nobody waits for any more, as all its futures are cancelled, is not encoded.
        """
        future: Future[Codes] = Future()
        self._readers.submit(self._read, recording, future)
        return future

    def _read(self, recording: bytes, future: Future[Codes]) -> None:
        if future.cancelled():
            return
        key = hashlib.sha256(recording).digest()  # lets the event loop run meanwhile
        with self._lock:
            known = self._kept.get(key)
            asked = self._asked.setdefault(key, [])
            asked.append(future)
            on_its_way = len(asked) > 1
        if known is not None:
            self._answer(key, known)
        if known is not None or on_its_way:
            return
        try:
            samples = self._samples(recording)
            if len(samples) < SHORTEST_SAMPLES:
                raise UnspeakableError("The reference audio is shorter than two frames (80 ms).")
        except Exception as error:  # noqa: BLE001  (it is the future's)
            self._answer(key, error)
            return
        with self._lock:
            self._waiting[key] = samples
        self._encoder.submit(self._encode_waiting)

    def _answer(self, key: bytes, found: Codes | Exception) -> None:
        """Keep codes, and hand them or an error to all that asked."""
        with self._lock:
            if not isinstance(found, Exception):
                self._kept[key] = found
                self._kept.move_to_end(key)
                if len(self._kept) > MOST_KEPT:
                    self._kept.popitem(last=False)
            asked = self._asked.pop(key, [])
        for future in asked:
            if not future.set_running_or_notify_cancel():
                continue
            if isinstance(found, Exception):
                future.set_exception(found)
            else:
                future.set_result(found)

    def _encode_waiting(self) -> None:
        """Encode the recording that waited longest, and others that are filled up to its length."""
        with self._lock:
            for key in [*self._waiting]:
                if all(future.cancelled() for future in self._asked[key]):
                    del self._waiting[key], self._asked[key]
            if not self._waiting:
                return  # an earlier batch took what this call was for
            filled = self._codec.filled_samples
            size = filled(len(next(iter(self._waiting.values()))))
            alike = [key for key, samples in self._waiting.items() if filled(len(samples)) == size]
            rows = self._rows(size, len(alike))
            batch = {key: self._waiting.pop(key) for key in alike[:rows]}
        self._encode(batch)

    def _rows(self, size: int, waiting: int) -> int:
        """How many recordings of a size make a batch: a power of two, as each is prepared once."""
        most = min(MOST_ROWS, max(1, int(self._batch_samples // size)))
        return int(min(1 << (waiting - 1).bit_length(), 1 << (most.bit_length() - 1)))

    def _encode(self, batch: dict[bytes, torch.Tensor]) -> None:
        found: Sequence[Codes | Exception]
        try:
            samples = list(batch.values())
            rows = self._rows(self._codec.filled_samples(len(samples[0])), len(samples))
            codes = self._codec.encode(samples + samples[:1] * (rows - len(samples)))
            found = [each.to(torch.int16).cpu().numpy() for each in codes]
        except torch.OutOfMemoryError:
            if len(batch) > 1:
                for key, each in batch.items():
                    self._encode({key: each})
                return
            found = [EngineBusyError("There is no memory free to encode a recording.")]
        except Exception as error:  # noqa: BLE001  (it is theirs who wait)
            found = [error] * len(batch)
        for key, result in zip(batch, found, strict=False):  # rows beyond repeat the first
            self._answer(key, result)

    def _samples(self, recording: bytes) -> torch.Tensor:
        pcm: bytes | memoryview | None = plain_pcm(recording)
        if pcm is None or seconds_of(len(pcm)) > self._most_seconds:
            pcm = self._decoded(recording)
        return torch.from_numpy(as_samples(pcm).astype(np.float32) / FULL_SCALE)

    def _decoded(self, recording: bytes) -> bytes:
        try:
            decoded = decode(recording, max_seconds=self._most_seconds)
        except InvalidRequest as error:
            raise UnspeakableError(str(error)) from error
        if decoded.cut:
            raise UnspeakableError(
                f"The reference audio is longer than {self._most_seconds:.0f} s."
            )
        # Where there are no samples, there is no rate either.
        return at_engine_rate(decoded) if len(decoded.samples) else b""
