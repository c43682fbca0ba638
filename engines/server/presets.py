"""`--voice-presets-dir`: voices from a folder with a config.json, as the container reads them.

The file is read when a request asks for it, so a change holds at once; what the container does
with a bad file, it does here, too (docs/contract.md section 5).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Preset:
    """One voice of the folder.

    Attributes:
        transcript: What the recording says.
        audio: The file's bytes.
        system_prompt: Speaks instead of the recording, where it is given.
    """

    transcript: str
    audio: bytes
    system_prompt: str | None


class PresetFolder:
    """The voices of a folder.

    Args:
        path: Holds config.json and the audio files.
        may_be_empty: Until there is a voice, the engine's own presets hold.

    Raises:
        ValueError: There is no config.json that can be read.
    """

    def __init__(self, path: Path, *, may_be_empty: bool = False) -> None:
        self._path = path
        self._config: dict[str, Any] = {}
        self.may_be_empty = may_be_empty
        if self._read() is None and not may_be_empty:
            raise ValueError(f"--voice-presets-dir: {path} has no config.json with voices")

    def _read(self) -> dict[str, Any] | None:
        try:
            config = json.loads((self._path / "config.json").read_bytes())
        except (OSError, ValueError):
            return None
        if isinstance(config, dict):
            self._config = config
            return config
        return None

    def names(self) -> tuple[str, ...]:
        """What is there now; a file that cannot be read keeps the old list."""
        self._read()
        return tuple(self._config)

    def load(self, name: str) -> Preset:
        """A voice; an unknown name is the first one's, without a word.

        Raises:
            LookupError, TypeError, OSError: No voices at all, an entry without its keys, or a
                missing file: the container answers 500.
        """
        names = self.names()
        entry = self._config[name if name in names else names[0]]
        audio = (self._path / entry["audio_file"]).read_bytes()
        return Preset(entry["transcript"], audio, entry.get("system_prompt"))
