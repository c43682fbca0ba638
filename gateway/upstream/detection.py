"""Which dialect an address speaks: decided from what it answers to harmless questions.

Pure: the prober asks, this judges.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from gateway.upstream import known_servers as known
from gateway.upstream.capabilities import HIGGS, Capabilities, told_capabilities
from gateway.upstream.known_servers import KnownServer

DialectName = Literal["higgs", "openai"]
DIALECTS: tuple[DialectName, ...] = ("higgs", "openai")
MODELS_PATH, VOICES_PATH, ALIVE_PATH = "/v1/models", "/v1/audio/voices", "/health/liveliness"
# What is asked, in the order of `Answers`; all are GETs that cost nothing.
QUESTIONS = ("/capabilities", MODELS_PATH, VOICES_PATH, "/", ALIVE_PATH)
LIBRARY_PATH = "/voices"  # travisvn's list
LITELLM_ALIVE = "I'm alive!"

_OWNERS: Mapping[str, KnownServer] = {
    "sglang-omni": known.SGLANG_OMNI,
    "kokoro": known.KOKORO_FASTAPI,
    "resemble-ai": known.TRAVISVN,
    "vllm": known.VLLM_OMNI,
}
_SPEECH_MODEL = re.compile(
    r"tts|speech|audio|kokoro|chatterbox|higgs|voice|orpheus|csm", re.IGNORECASE
)
_PRIVATE_SUFFIXES = (".local", ".internal", ".lan", ".home.arpa", ".localhost", ".svc")


@dataclass(frozen=True, slots=True)
class Answers:
    """What an address answered, JSON already read; None where there was nothing of use."""

    capabilities: Any = None
    models: Any = None
    voices: Any = None
    index: Any = None
    alive: Any = None


@dataclass(frozen=True, slots=True)
class Found:
    """What an address is.

    Attributes:
        server: Its row, or None for the Higgs container's own contract.
        capabilities: What it can do.
        why: What told so, for the log.
    """

    server: KnownServer | None
    capabilities: Capabilities
    why: str


def split_address(address: str) -> tuple[DialectName | None, str]:
    """The dialect that an entry of GATEWAY_UPSTREAMS names (`openai+http://…`), and its address."""
    for name in DIALECTS:
        if address.startswith(name + "+"):
            return name, address[len(name) + 1 :]
    return None, address


def may_charge(address: str) -> bool:
    """Whether an address is not plainly of a private network: its owner may charge for speech."""
    host = (urlsplit(address).hostname or "").rstrip(".")
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return "." in host and not host.endswith(_PRIVATE_SUFFIXES)
    return not (found.is_private or found.is_loopback or found.is_link_local)


def identify(address: str, named: DialectName | None, answers: Answers) -> Found | None:
    """What an address is, or None where nothing tells a speech engine.

    Args:
        address: Without a dialect's name.
        named: The dialect that the settings name.
        answers: What it answered.
    """
    told = answers.capabilities
    ours = isinstance(told, dict) and "sample_rate_hz" in told and "max_model_len" in told
    if named != "openai":
        if ours:
            return Found(None, told_capabilities(told), "it tells its capabilities")
        if isinstance(answers.voices, list):
            return Found(None, HIGGS, "its list of voices is a bare array")
        if named == "higgs":
            return Found(None, HIGGS, "the settings say so")
    server, why = _server_of(address, answers)
    if server is known.VLLM_OMNI and named != "openai" and not isinstance(answers.voices, dict):
        return None  # the container and a vLLM without speech name the same owner
    if server is None and (named == "openai" or _has(answers.models) or _has(answers.voices)):
        server, why = known.GENERIC, "it speaks OpenAI's API and is no server that is known"
    if server is None:
        return None
    server = server.serving(tuple(_told(answers.models, "id", "root")))
    return Found(server, server.capabilities, why)


def _server_of(address: str, answers: Answers) -> tuple[KnownServer | None, str]:
    index, voices = answers.index, answers.voices
    if (urlsplit(address).hostname or "") == "api.openai.com":
        return known.OPENAI, "its address"
    if isinstance(index, dict) and index.get("name") == "speech-gateway":
        return known.GATEWAY, "its index page"
    if answers.alive == LITELLM_ALIVE:
        return known.LITELLM, f"it answers {ALIVE_PATH}"
    for owner in _told(answers.models, "owned_by"):
        if owner in _OWNERS:
            return _OWNERS[owner], f"its models are owned by {owner!r}"
    if answers.models is None and isinstance(voices, dict) and voices.get("status") == "ok":
        return known.DEVNEN, "it lists voices with a status and has no list of models"
    return None, ""


def _has(answer: Any) -> bool:
    keys = ("data", "voices")
    return isinstance(answer, dict) and any(isinstance(answer.get(key), list) for key in keys)


def _told(models: Any, *keys: str) -> Iterable[str]:
    """The words that a list of models has under these keys."""
    entries = models.get("data") if isinstance(models, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        words = [entry.get(key) for key in keys] if isinstance(entry, dict) else []
        yield from (word for word in words if isinstance(word, str))


def speech_models(models: Sequence[str], server: KnownServer) -> tuple[str, ...]:
    """The models of a list that speak, as far as names tell; the row's own where none is listed."""
    speaking = tuple(name for name in models if _SPEECH_MODEL.search(name))
    return speaking or tuple(models) or (server.model,)


def spread(
    names: Iterable[str], voices: Sequence[str], aliases: Mapping[str, str]
) -> dict[str, str]:
    """What the names that clients use mean on an engine: its own voice, one each in turn.

    Args:
        names: The 13 names of OpenAI's voices, in a fixed order.
        voices: What the engine lists.
        aliases: From the settings, alias to voice; one whose voice is listed holds.
    """
    if not voices:
        return {}
    folded = {voice.casefold(): voice for voice in voices}
    found = {
        alias: folded[voice.casefold()]
        for alias, voice in aliases.items()
        if voice.casefold() in folded
    }
    for place, name in enumerate(names):
        found.setdefault(name, folded.get(name.casefold(), voices[place % len(voices)]))
    return found
