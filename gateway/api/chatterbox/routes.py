"""The routes of both Chatterbox servers together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway.api.chatterbox.devnen.tts import DevnenSpeech, TtsEndpoint
from gateway.api.chatterbox.devnen.web_ui import DevnenServer
from gateway.api.chatterbox.travisvn.about import TravisvnAbout
from gateway.api.chatterbox.travisvn.long_text import TravisvnLong
from gateway.api.chatterbox.travisvn.memory import TravisvnMemory
from gateway.api.chatterbox.travisvn.paths import paths_of
from gateway.api.chatterbox.travisvn.speech import TravisvnSpeech
from gateway.api.chatterbox.travisvn.status import TravisvnStatus
from gateway.api.chatterbox.travisvn.voices import TravisvnVoices
from gateway.speech.jobs.jobs import LongJobs
from gateway.speech.service import SpeechService


class ChatterboxSurface:
    """What clients of Chatterbox speak.

    Args:
        service: The straight line.
        jobs: Long texts in the background.
        health: Answers `/health` for all surfaces, under Chatterbox's other names for it, too.
    """

    def __init__(
        self,
        service: SpeechService,
        jobs: LongJobs,
        health: Callable[[Request], Awaitable[Response]],
    ) -> None:
        self._service = service
        self._jobs = jobs
        self._health = health

    def routes(self) -> list[BaseRoute]:
        """What this surface answers; `/tts` for both servers stands first."""
        service = self._service
        speech = TravisvnSpeech(service)
        return [
            *TtsEndpoint(service, speech, DevnenSpeech(service)).routes(),
            *speech.routes(),
            *TravisvnLong(service, self._jobs, speech).routes(),
            *TravisvnVoices(service).routes(),
            *TravisvnStatus(service).routes(),
            *TravisvnMemory(service).routes(),
            *TravisvnAbout(service).routes(),
            *DevnenServer(service).routes(),
            *(Route(path, self._health) for path in paths_of("/health")),
        ]
