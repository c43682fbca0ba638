"""What an address answers to harmless questions, and what that tells; `dialects` judges it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from gateway.upstream.capabilities import Capabilities
from gateway.upstream.dialect import Dialect
from gateway.upstream.known_servers import VOICES_PATH, KnownServer

MODELS_PATH, ALIVE_PATH = "/v1/models", "/health/liveliness"
# What is asked, in the order of `Answers`; all are GETs that cost nothing.
QUESTIONS = ("/capabilities", MODELS_PATH, VOICES_PATH, "/", ALIVE_PATH)
_PRIVATE_SUFFIXES = (".local", ".internal", ".lan", ".home.arpa", ".localhost", ".svc")


@dataclass(frozen=True, slots=True)
class Answers:
    """What an address answered, JSON already read; None where there was nothing of use."""

    capabilities: Any = None
    models: Any = None
    voices: Any = None
    index: Any = None
    alive: Any = None

    def told_of_models(self, *keys: str) -> Iterator[str]:
        """The words that the list of models has under these keys."""
        entries = self.models.get("data") if isinstance(self.models, dict) else None
        for entry in entries if isinstance(entries, list) else ():
            words = [entry.get(key) for key in keys] if isinstance(entry, dict) else []
            yield from (word for word in words if isinstance(word, str))


@dataclass(frozen=True, slots=True)
class Found:
    """What an address is.

    Attributes:
        dialect: How it is spoken to.
        capabilities: What it can do.
        why: What told so, for the log.
        server: Its row of `known_servers`; None for the Higgs container's own contract.
    """

    dialect: Dialect
    capabilities: Capabilities
    why: str
    server: KnownServer | None = None


class Recognise(Protocol):
    """How a dialect is told; each dialect's module has one."""

    def __call__(self, address: str, answers: Answers, *, named: bool) -> Found | None:
        """What an address is, or None where it does not speak this dialect.

        Args:
            address: Without a dialect's name.
            answers: What it answered.
            named: The settings say that it speaks this dialect.
        """


def may_charge(address: str) -> bool:
    """Whether an address is not plainly of a private network: its owner may charge for speech."""
    host = (urlsplit(address).hostname or "").rstrip(".")
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return "." in host and not host.endswith(_PRIVATE_SUFFIXES)
    return not (found.is_private or found.is_loopback or found.is_link_local)
