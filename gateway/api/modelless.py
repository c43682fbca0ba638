"""`/v1/audio/speech` without a model: the path that OpenAI's clients and Chatterbox's share.

OpenAI's clients always send a model; travisvn's front end, tests and documentation never do, and
read WAV with exact sizes and events of their own.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from starlette.types import Scope

from gateway.api.endpoint import Spoken
from gateway.api.error_bodies import TRAVISVN
from gateway.api.field_rules import is_unset

logger = logging.getLogger("gateway.api")

ANSWERED_AS = "X-Answered-As"
# A model, or what only the OpenAI surface has: who sends these speaks to that, and nothing that a
# client asks for is ignored.
_OPENAI_FIELDS = frozenset(
    {
        *("model", "instructions", "system_prompt", "stream", "sample_rate", "voices"),
        *("references", "reference_audio_base64", "reference_text", "ref_audio", "ref_text"),
        *("top_p", "top_k", "max_tokens"),
    }
)
# Reads the fields of such a request; it may choose the surface of the scope.
Modelless = Callable[[Any, Scope], Awaitable[Spoken]]


def is_modelless(value: Any) -> bool:
    """Whether a client of travisvn's server sends these fields."""
    if not isinstance(value, dict) or isinstance(value.get("voice"), dict):
        return False
    return not any(name in _OPENAI_FIELDS and not is_unset(given) for name, given in value.items())


@dataclass(slots=True)
class AsChatterbox:
    """Reads such requests as travisvn's server would, and says so: once in the log.

    Attributes:
        parse: Reads fields in that server's way.
    """

    parse: Callable[[Any], Awaitable[Spoken]]
    _told: bool = False

    async def __call__(self, value: Any, scope: Scope) -> Spoken:
        """What to say; errors are in that server's shape.

        Raises:
            GatewayError.
        """
        scope["surface"] = TRAVISVN
        if not self._told:
            self._told = True
            logger.info(
                "requests without a model are answered as Chatterbox; "
                "GATEWAY_MODELLESS=openai answers them as OpenAI"
            )
        spoken = await self.parse(value)
        return replace(spoken, headers={**spoken.headers, ANSWERED_AS: TRAVISVN.name})
