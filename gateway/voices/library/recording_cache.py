"""The library's recordings as references for a prompt; the latest ones stay in memory.

A file in the folder may come from anybody's hand, so each is decoded and bounded like an upload.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from gateway.errors import VoiceNotFound
from gateway.voices.library.config_entry import LibraryVoice
from gateway.voices.library.folder import Folder
from gateway.voices.samples.loudness import UPLOAD_LIMITS
from gateway.voices.samples.prepare import DEFAULT_LIMITS, prepare_reference

KEPT = 16  # of at most 45 s, 2.2 MB: 35 MB a process

Key = tuple[str, tuple[int, ...] | None]


class Recordings:
    """Reads recordings; safe to use from several threads.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, bytes] = OrderedDict()

    def read(self, voice: LibraryVoice) -> bytes:
        """A voice's recording as a complete WAV file, 24 kHz mono s16.

        Raises:
            VoiceNotFound: Its file is gone, or not a plain file any more.
            InvalidRequest: It is no recording that can be a reference.
        """
        key = (voice.audio_file, self._folder.signature(voice.audio_file))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        try:
            data = self._folder.read(voice.audio_file, DEFAULT_LIMITS.max_bytes)
        except OSError:
            raise VoiceNotFound(
                f"The recording of the voice {voice.name!r} is gone.", param="voice"
            ) from None
        wav = prepare_reference(data, param="voice", limits=UPLOAD_LIMITS).wav
        with self._lock:
            self._kept[key] = wav
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return wav
