"""Runs the application of one of three servers with its model replaced, in its checkout.

`python fastapi_server.py travisvn|devnen|kokoro PORT`. Replaced: the packages `chatterbox`,
`kokoro`, `phonemizer` and `torchaudio`, and the files of Kokoro's model.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.peers.stand_ins import RATE_HZ, provide, seconds_of, stand_in, tone

APPLICATIONS = {
    "travisvn": "app.main:app",
    "devnen": "server:app",
    "kokoro": "api.src.main:app",
}


class Chatterbox:
    """In place of ChatterboxTTS and its kin."""

    sr = RATE_HZ

    @classmethod
    def from_pretrained(cls, *_: Any, **__: Any) -> Chatterbox:
        """A model."""
        return cls()

    from_local = from_pretrained

    def to(self, *_: Any) -> Chatterbox:
        """It is there already."""
        return self

    def generate(self, text: str, **_: Any) -> Any:
        """Audio, shape (1, samples)."""
        return tone(seconds_of(text)).unsqueeze(0)


class Pipeline:
    """In place of Kokoro's KPipeline."""

    g2p = None

    def __init__(self, lang_code: str = "a", **_: Any) -> None:
        self.lang_code = lang_code

    def __call__(self, text: str, **_: Any) -> Iterator[Any]:
        """One result for the whole text; none where it makes no sound."""
        seconds = seconds_of(text)
        if seconds:
            names = {"graphemes": text, "phonemes": text, "tokens": None, "pred_dur": None}
            yield SimpleNamespace(audio=tone(seconds), **names)

    def generate_from_tokens(self, tokens: str, **_: Any) -> Iterator[Any]:
        """The same for phonemes."""
        yield SimpleNamespace(audio=tone(seconds_of(tokens)))


class Phonemizer:
    """In place of espeak: letters are phonemes."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def phonemize(self, texts: list[str], **_: Any) -> list[str]:
        """The texts."""
        return list(texts)


def save(target: Any, audio: Any, rate_hz: int, **_: Any) -> None:
    """In place of torchaudio's `save`, whose codecs need another package: a WAV file."""
    writer = importlib.import_module("soundfile")
    writer.write(target, audio.T.numpy(), rate_hz, format="WAV")


def prepare_chatterbox() -> None:
    """The package that travisvn's and devnen's servers load."""
    languages = {"en": "English", "de": "German"}
    shared = {"SUPPORTED_LANGUAGES": languages, "ChatterboxMultilingualTTS": Chatterbox}
    provide("chatterbox", **shared)
    provide("chatterbox.tts", ChatterboxTTS=Chatterbox, punc_norm=lambda text: text)
    provide("chatterbox.mtl_tts", **shared)
    provide("chatterbox.tts_turbo", ChatterboxTurboTTS=Chatterbox)
    provide("torchaudio", save=save)
    stand_in("chatterbox.models", "perth", "torchaudio")
    config = Path("config.yaml")
    if config.exists():
        config.write_text(re.sub(r"device: .*", "device: cpu", config.read_text(), count=1))


def prepare_kokoro() -> None:
    """The packages and files that Kokoro-FastAPI loads."""
    module = importlib.import_module("torch").nn.Module
    model = type("KModel", (module,), {"__init__": lambda self, **_: module.__init__(self)})
    provide("kokoro", KModel=model, KPipeline=Pipeline)
    provide("phonemizer", backend=SimpleNamespace(EspeakBackend=Phonemizer))
    stand_in("misaki", "espeakng_loader")
    files = Path("api/src/models/v1_0")
    files.mkdir(parents=True, exist_ok=True)
    (files / "kokoro-v1_0.pth").touch()
    (files / "config.json").write_text("{}")
    os.environ |= {"USE_GPU": "false", "MODEL_DIR": "src/models", "VOICES_DIR": "src/voices/v1_0"}
    sys.path.insert(0, "api")


if __name__ == "__main__":
    kind, port = sys.argv[1:3]
    sys.path.insert(0, ".")
    prepare_kokoro() if kind == "kokoro" else prepare_chatterbox()
    importlib.import_module("uvicorn").run(APPLICATIONS[kind], port=int(port))
