"""Names of models: those that upstreams list, and aliases of the served one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from gateway.errors import ModelNotFound

# Names that clients send although this gateway serves another model; all mean the served one.
MODEL_ALIASES = (
    "tts-1",
    "tts-1-hd",
    "gpt-4o-mini-tts",
    "chatterbox",
    "chatterbox-tts-1",
    "chatterbox-multilingual",
    "chatterbox-turbo",
    "tts",
    "kokoro",
    "higgs-audio-v2",
    "higgs-audio-v2-generation-3B-base",
    "bosonai/higgs-audio-v2-generation-3B-base",
)
ANY_MODEL = "*"
CHATTERBOX = "chatterbox"
ANY_VARIANT = (CHATTERBOX, "kokoro")  # their servers have a name for every variant, and take any
_DATED = re.compile(r"-\d{4}-?(?:\d{2}-?\d{2})?$")  # gpt-4o-mini-tts-2025-12-15, tts-1-1106


def resolve_model(
    name: str | None, served: Sequence[str], aliases: Sequence[str] = ()
) -> str | None:
    """Resolves a name to a model that an upstream lists, or None for the served one.

    Args:
        name: From the client.
        served: What the upstreams list.
        aliases: The operator's further names; `*` is any.

    Raises:
        ModelNotFound: With the list of names that work.
    """
    if name is None or name in served:
        return name
    known = {alias.lower() for alias in (*MODEL_ALIASES, *aliases)}
    # Routers put the maker before a name (openai/tts-1), Ollama's clients a tag behind it.
    wanted = name.strip().lower().rpartition("/")[2].removesuffix(":latest")
    meant = {name.strip().lower(), wanted, _DATED.sub("", wanted), ANY_MODEL}
    if known & meant or wanted.startswith(ANY_VARIANT):
        return None
    names = ", ".join(model_names(served, aliases))
    raise ModelNotFound(f"The model {name[:64]!r} does not exist. Models: {names}.", param="model")


def model_names(served: Sequence[str], aliases: Sequence[str] = ()) -> list[str]:
    """Every model name that works, the served ones first."""
    named = [alias for alias in aliases if alias != ANY_MODEL]
    return list(dict.fromkeys([*served, *named, *MODEL_ALIASES]))


def list_models_of(served: Sequence[str], aliases: Sequence[str] = ()) -> dict[str, Any]:
    """OpenAI's list of models."""
    return {"object": "list", "data": [model_of(name) for name in model_names(served, aliases)]}


def model_of(name: str) -> dict[str, Any]:
    """A model as OpenAI shows it."""
    # A fixed date: the served model's own release, the same for its other names.
    return {"id": name, "object": "model", "created": 1753228800, "owned_by": "bosonai"}
