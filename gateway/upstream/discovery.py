"""Finds out what an upstream is and what it lists, by requests that cost nothing."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from gateway.errors import (
    UpstreamBusy,
    UpstreamProtocolError,
    UpstreamRejected,
    UpstreamRouteUnknown,
)
from gateway.text.tokens import CONTEXT_TOKENS
from gateway.upstream.client import UpstreamClient
from gateway.upstream.detection import MODELS_PATH, QUESTIONS, Answers
from gateway.upstream.dialects import identify
from gateway.upstream.known_servers import OPENAI_VOICE_NAMES, VOICES_PATH, KnownServer
from gateway.upstream.parsers import parse_context_tokens, parse_models, parse_voices
from gateway.upstream.pool import Upstream
from gateway.voices.aliases import spread

T = TypeVar("T")

logger = logging.getLogger("gateway.health")

PROBE_SECONDS = 5.0
NO_ENGINE = "The upstream is no speech engine: it does not list models and voices as one does."


@dataclass(slots=True, eq=False, repr=False)
class Discovery:
    """Asks one upstream.

    Attributes:
        upstream: Whose dialect, capabilities, models and voices it notes.
        client: The process' HTTP client.
        aliases: From the settings: names that clients use, alias to voice.
        server: What kind of server it is; None for the Higgs container's own contract.
    """

    upstream: Upstream
    client: UpstreamClient
    aliases: Mapping[str, str]
    server: KnownServer | None = None
    _why: str = ""

    async def refresh_lists(self) -> None:
        """Note the models and voices that it has now.

        Raises:
            UpstreamError: It does not tell, or has none.
        """
        upstream, address = self.upstream, self.upstream.address
        models, context_tokens = await self._models()
        voices = await self._voices()
        if not models or not voices:
            raise UpstreamProtocolError("The upstream lists no model or no voice.")
        upstream.aliases = spread(OPENAI_VOICE_NAMES, voices, self.aliases)
        if (models, voices) != (upstream.models, upstream.voices):
            logger.info("upstream %s lists %s", address, ", ".join((*models, *voices)))
        upstream.models, upstream.voices = models, voices
        if context_tokens != upstream.context_tokens:
            logger.info("upstream %s has a context of %d tokens", address, context_tokens)
            upstream.context_tokens = context_tokens
            upstream.prompt_tokens.clear()

    async def _models(self) -> tuple[tuple[str, ...], int]:
        """The models that the upstream lists, and its smallest context."""
        server = self.server
        told = await self._asked(
            MODELS_PATH,
            lambda body: (parse_models(body), parse_context_tokens(body)),
            needed=server is None or server.lists_models,
        )
        models, context_tokens = told or ((), None)
        if server is not None:
            models = server.speech_models(models)
        return models, context_tokens or CONTEXT_TOKENS

    async def _voices(self) -> tuple[str, ...]:
        """The voices that the upstream lists, or what its kind of server is known to have."""
        server = self.server
        path = server.voices_path if server else VOICES_PATH
        listed = await self._asked(path, parse_voices, needed=server is None) or ()
        return server.voices_beside(listed, self.aliases) if server else listed

    async def _asked(self, path: str, parse: Callable[[bytes], T], *, needed: bool) -> T | None:
        """What a list says, or None where there is no such list and none is needed."""
        body = None
        try:
            body = await self.client.get(self.upstream.address, path, PROBE_SECONDS)
            return parse(body)
        except UpstreamProtocolError as error:
            absent = isinstance(error, UpstreamRouteUnknown | UpstreamRejected)
            if body is None and not absent:
                raise
            if needed:
                raise UpstreamProtocolError(NO_ENGINE) from error
            return None

    async def identify(self) -> None:
        """Note what it is and what it can do, and log the reason.

        Raises:
            UpstreamError: It does not tell, or is no speech engine.
        """
        upstream = self.upstream
        answers = Answers(*[await self._json(path) for path in QUESTIONS])
        found = identify(upstream.address, upstream.named, answers)
        if found is None:
            raise UpstreamProtocolError(NO_ENGINE)
        if found.why != self._why:
            self._why = found.why
            name = found.capabilities.engine
            logger.info("upstream %s is taken for %s: %s", upstream.address, name, found.why)
        self.server = found.server
        upstream.capabilities, upstream.dialect = found.capabilities, found.dialect

    async def _json(self, path: str) -> Any:
        """An answer's JSON, or None where there is no such route.

        Raises:
            UpstreamError: The question stays open: nothing may be concluded from its silence.
        """
        is_list = path in {MODELS_PATH, VOICES_PATH}
        is_open = self.upstream.named is None  # what the settings say needs no other answers
        try:
            return json.loads(await self.client.get(self.upstream.address, path, PROBE_SECONDS))
        except (UpstreamRouteUnknown, UpstreamRejected):
            return None
        except UpstreamProtocolError as error:
            if is_list or (is_open and isinstance(error, UpstreamBusy)):
                raise
        except (ValueError, RecursionError) as error:
            if is_list and is_open:
                raise UpstreamProtocolError(NO_ENGINE) from error
        return None
