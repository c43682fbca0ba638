"""Codes of reference recordings: decoded within bounds, encoded once, kept by content."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict

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


class ReferenceEncoder:
    """Turns recordings into codes; may be called from several threads.

    Args:
        codec: Its encoder does the work.
        most_seconds: Longer recordings are refused: encoding takes some 30 MB a second of them.
    """

    def __init__(self, codec: Codec, most_seconds: float) -> None:
        self._codec = codec
        self._most_seconds = most_seconds
        self._kept: OrderedDict[bytes, NDArray[np.int16]] = OrderedDict()
        self._lock = threading.Lock()
        self._encoding = threading.Lock()  # one at a time: it takes all cores, or the card

    def codes(self, recording: bytes) -> NDArray[np.int16]:
        """Codes of a recording.

        Args:
            recording: A whole audio file, of any format that the gateway reads.

        Returns:
            [codebooks, frames].

        Raises:
            UnspeakableError: It cannot be read, or is too short or too long.
            EngineBusyError: The device has no memory free for it now.
        """
        key = hashlib.sha256(recording).digest()
        known = self._known(key)
        if known is not None:
            return known
        samples = self._samples(recording)
        with self._encoding:
            known = self._known(key)  # another request may have brought the same recording
            if known is None:
                known = self._encode(samples)
                with self._lock:
                    self._kept[key] = known
                    if len(self._kept) > MOST_KEPT:
                        self._kept.popitem(last=False)
        return known

    def _known(self, key: bytes) -> NDArray[np.int16] | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

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

    def _encode(self, samples: torch.Tensor) -> NDArray[np.int16]:
        try:
            return self._codec.encode(samples).to(torch.int16).cpu().numpy()
        except torch.OutOfMemoryError as error:
            raise EngineBusyError("There is no memory free to encode a recording.") from error
        except ValueError as error:
            raise UnspeakableError(f"The reference audio cannot be used: {error}.") from error
