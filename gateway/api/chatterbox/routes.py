"""The routes of both Chatterbox servers together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response

from gateway.access.policy import HEALTH
from gateway.api.chatterbox.devnen.tts import DevnenSpeech
from gateway.api.chatterbox.devnen.web_ui import DevnenServer
from gateway.api.chatterbox.travisvn.about import TravisvnAbout
from gateway.api.chatterbox.travisvn.long_text import TravisvnLong
from gateway.api.chatterbox.travisvn.memory import memory_routes
from gateway.api.chatterbox.travisvn.paths import routes as other_names
from gateway.api.chatterbox.travisvn.speech import TravisvnSpeech
from gateway.api.chatterbox.travisvn.status import TravisvnStatus
from gateway.api.chatterbox.travisvn.voices import TravisvnVoices
from gateway.api.routes import Route
from gateway.speech.activity import Activity
from gateway.speech.jobs.jobs import Jobs
from gateway.upstream.pool import Pool


def chatterbox_routes(
    speech: TravisvnSpeech,
    pool: Pool,
    jobs: Jobs,
    activity: Activity,
    health: Callable[[Request], Awaitable[Response]],
    *,
    model_aliases: Sequence[str],
    show_texts: bool,
) -> list[Route]:
    """What clients of Chatterbox speak.

    Args:
        speech: Speech of travisvn's server; the other routes share its parts.
        pool: The engines.
        jobs: Long texts in the background.
        activity: What is spoken and was.
        health: Answers `/health` for all surfaces, under Chatterbox's other names for it, too.
        model_aliases: Further names of models.
        show_texts: Show the texts of jobs.
    """
    bodies, catalogue = speech.bodies, speech.catalogue
    devnen = DevnenSpeech(
        speech.service, speech.outcomes, bodies, catalogue, speech.threads, speech
    )
    mounted: list[Route] = []
    mounted += [
        *devnen.routes(),  # `/tts` of both servers stands first
        *speech.routes(),
        *TravisvnLong(jobs, speech, show_texts).routes(),
        *TravisvnVoices(catalogue, bodies).routes(),
        *TravisvnStatus(activity).routes(),
        *TravisvnAbout(pool, catalogue.default, model_aliases, mounted).routes(),
        *DevnenServer(catalogue, pool, bodies).routes(),
        *memory_routes(activity),
        *other_names("GET", "/health", health, HEALTH, "Whether it lives"),
    ]
    return mounted
