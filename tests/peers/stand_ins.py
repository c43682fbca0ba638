"""What stands in for models and cards when a real server's HTTP code runs (in its own environment).

Every model is a tone of its text's likely length, made at twenty times real time; a text with
FAILING in it makes it fail, one with SILENT makes no audio.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import math
import sys
import time
import types
from collections.abc import Sequence
from typing import Any

RATE_HZ = 24_000
PACE = 20
CHARACTERS_PER_SECOND = 14
FAILING, SILENT = "explode", "vanish"


def seconds_of(text: str) -> float:
    """How long a text is said for."""
    if FAILING in text:
        raise RuntimeError("CUDA out of memory while saying: " + text)
    return 0.0 if SILENT in text else max(0.3, len(text) / CHARACTERS_PER_SECOND)


def tone(seconds: float) -> Any:
    """A tensor of float samples, shape (samples,), after the time that they take to make."""
    import torch  # noqa: PLC0415  (the server's own)

    time.sleep(seconds / PACE)
    return 0.3 * torch.sin(2 * math.pi * 220 * torch.arange(int(seconds * RATE_HZ)) / RATE_HZ)


class _Anything(type):
    """A class whose every attribute is another one."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _anything(name)


def _anything(name: str) -> Any:
    ignored: Any = lambda *_, **__: None  # noqa: E731
    return _Anything(name, (), {"__init__": ignored, "__class_getitem__": lambda _: object})


class _Module(types.ModuleType):
    """A module of which everything can be imported."""

    __version__ = "0.28.0"
    __file__ = __file__
    __path__: list[str] = []  # noqa: RUF012  (as in ModuleType)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = _anything(name)
        setattr(self, name, made)
        return made


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds stand-ins for packages that need a card, and for what lies below them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        """The specification of a stand-in, or None."""
        del path, target
        if any(f"{fullname}.".startswith(name + ".") for name in self._names):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """A module of which everything can be imported."""
        return _Module(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing."""


def stand_in(*names: str) -> None:
    """Let packages be imported that are not there."""
    sys.meta_path.insert(0, _Finder(names))


def provide(name: str, **contents: Any) -> None:
    """Let a module of these contents be imported."""
    module = _Module(name)
    module.__dict__.update(contents)
    sys.modules[name] = module
