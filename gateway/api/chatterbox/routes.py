"""The routes of both Chatterbox servers together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor

from starlette.requests import Request
from starlette.responses import Response

from gateway.access.policy import HEALTH
from gateway.api.chatterbox.devnen.tts import DevnenSpeech, TtsEndpoint
from gateway.api.chatterbox.devnen.web_ui import DevnenServer
from gateway.api.chatterbox.travisvn.about import TravisvnAbout
from gateway.api.chatterbox.travisvn.long_text import TravisvnLong
from gateway.api.chatterbox.travisvn.memory import memory_routes
from gateway.api.chatterbox.travisvn.paths import routes as other_names
from gateway.api.chatterbox.travisvn.speech import TravisvnSpeech
from gateway.api.chatterbox.travisvn.status import TravisvnStatus
from gateway.api.chatterbox.travisvn.voices import TravisvnVoices
from gateway.api.endpoint import BodyReader
from gateway.api.routes import Route
from gateway.speech.activity import Activity
from gateway.speech.jobs.jobs import Jobs
from gateway.speech.service import SpeechService
from gateway.telemetry.outcomes import Outcomes
from gateway.upstream.pool import Pool
from gateway.voices.catalogue import VoiceCatalogue


class ChatterboxSurface:
    """What clients of Chatterbox speak.

    Args:
        service: The straight line.
        outcomes: Counts how requests end.
        bodies: Reads requests.
        catalogue: All voices.
        pool: The engines.
        threads: Where samples are decoded.
        jobs: Long texts in the background.
        activity: What is spoken and was.
        health: Answers `/health` for all surfaces, under Chatterbox's other names for it, too.
        model_aliases: Further names of models.
        show_texts: Show the texts of jobs.

    Attributes:
        parse_speech: Reads fields and files as travisvn's `/audio/speech` does.
    """

    def __init__(
        self,
        service: SpeechService,
        outcomes: Outcomes,
        bodies: BodyReader,
        catalogue: VoiceCatalogue,
        pool: Pool,
        threads: Executor,
        jobs: Jobs,
        activity: Activity,
        health: Callable[[Request], Awaitable[Response]],
        *,
        model_aliases: Sequence[str],
        show_texts: bool,
    ) -> None:
        speech = TravisvnSpeech(service, outcomes, bodies, catalogue, threads)
        self.parse_speech = speech.parse_fields
        devnen = DevnenSpeech(service, catalogue)
        self._parts = (
            TtsEndpoint(
                service, outcomes, bodies, speech, devnen
            ),  # `/tts` of both servers stands first
            speech,
            TravisvnLong(service, jobs, speech, bodies, show_texts=show_texts),
            TravisvnVoices(catalogue, bodies),
            TravisvnStatus(activity),
            TravisvnAbout(pool, catalogue.default, model_aliases),
            DevnenServer(catalogue, pool, bodies),
        )
        self._health = health

    def routes(self) -> list[Route]:
        """What this surface answers."""
        routes = [route for part in self._parts for route in part.routes()]
        health = other_names("GET", "/health", self._health, HEALTH, "Whether it lives")
        return [*routes, *memory_routes(), *health]
