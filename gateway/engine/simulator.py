"""The simulator: the simulated voice behind the contract's HTTP, with a window for tests.

`GET /simulator/state` tells what came and what runs; `POST /simulator/faults` plans what goes
wrong. Faults of the HTTP side (500, refused connections, lying lists) live here.
"""

from __future__ import annotations

import argparse
import json
from collections import deque
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.engine.app import Engine, EngineOptions, create_engine_app
from gateway.engine.base import Job
from gateway.engine.clock import GpuClock
from gateway.engine.contract import ChatFields, SpeechFields
from gateway.engine.faults import FaultPlan, parse_fault
from gateway.engine.simulated import CutError, SimulatedVoice

REMEMBERED_REQUESTS = 64
UNLIMITED = 1e9


def add_simulator_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that only the simulated voice reads."""
    group = parser.add_argument_group("simulated voice")
    group.add_argument("--tokens-per-second", type=float, default=94, help="of one stream")
    group.add_argument(
        "--total-tokens-per-second",
        type=float,
        default=UNLIMITED,
        help="shared by all streams: 1500 is an A100, 600 an RTX 4090",
    )
    group.add_argument("--max-running", type=int, default=4096, help="streams at once")
    group.add_argument("--first-token-ms", type=float, default=0, help="time to the first token")
    group.add_argument(
        "--prefill-tokens-per-second", type=float, default=20_000, help="of reference audio"
    )
    group.add_argument("--fault", help="a fault for every generation, such as cut-48000")
    group.add_argument("--voice-list", help="what /v1/audio/voices answers instead, as JSON")


class Simulator(Engine):
    """The engine's routes around the simulated voice."""

    voice: SimulatedVoice

    def __init__(
        self,
        voice: SimulatedVoice,
        options: EngineOptions,
        faults: FaultPlan,
        voice_list: str | None,
    ) -> None:
        super().__init__(voice, options)
        self._faults = faults
        self._voice_list = voice_list
        self._requests: deque[dict[str, Any]] = deque(maxlen=REMEMBERED_REQUESTS)
        self._total = 0
        self._voice_lists = 0

    def note(self, job: Job, scope: Scope, fields: SpeechFields | ChatFields) -> None:
        """Remember what came."""
        self._total += 1
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        self._requests.append(
            {
                "path": scope["path"],
                "headers": headers,
                "body": fields.model_dump(mode="json"),
                "max_tokens": job.max_tokens,
                "references": [len(audio) for _, audio in job.references],
            }
        )

    async def speech(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The speech route, with faults that drop its connection."""
        try:
            await super().speech(scope, receive, send)
        except CutError:
            await _drop(scope, receive)

    async def chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The chat route, with faults that drop its connection."""
        try:
            await super().chat(scope, receive, send)
        except CutError:
            await _drop(scope, receive)

    async def voices(self, request: Request) -> Response:
        """`/v1/audio/voices`, or what was asked for instead."""
        self._voice_lists += 1
        if self._voice_list is None:
            return await super().voices(request)
        return PlainTextResponse(self._voice_list, headers={"Content-Type": "application/json"})

    async def state(self, request: Request) -> Response:
        """What runs, what was, what came."""
        del request
        voice = self.voice
        return JSONResponse(
            {
                "running": voice.running,
                "waiting": voice.waiting,
                "peak_running": voice.peak_running,
                "aborted": voice.aborted_total,
                "finished": voice.finished_total,
                "audio_tokens": voice.audio_tokens_total,
                "requests_total": self._total,
                "voice_lists": self._voice_lists,
                "requests": list(self._requests),
            }
        )

    async def plan_faults(self, request: Request) -> Response:
        """`{"next": [...], "always": …, "rate": 0.2, "kinds": [...], "seed": 1, "voices": …}`."""
        plan = await request.json()
        try:
            upcoming = [parse_fault(fault) for fault in plan.get("next", [])]
            kinds = [parse_fault(fault) for fault in plan.get("kinds", [])]
            always = parse_fault(plan["always"]) if plan.get("always") else None
        except ValueError as error:
            return JSONResponse({"detail": str(error)}, 400)
        self._faults.always = always
        self._faults.plan(
            upcoming=upcoming, rate=plan.get("rate", 0.0), kinds=kinds, seed=plan.get("seed", 0)
        )
        if "voices" in plan:
            voices = plan["voices"]
            self._voice_list = None if voices is None else json.dumps(voices)
        return JSONResponse({"planned": len(upcoming)})


async def _drop(scope: Scope, receive: Receive) -> None:
    """Close the connection without another byte."""
    scope["transport"].abort()
    while (await receive())["type"] != "http.disconnect":
        pass


class _TransportInScope:
    """Puts uvicorn's transport into the scope, where the faults that need a socket find it."""

    def __init__(self, app: Starlette) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["transport"] = send.__self__.transport  # type: ignore[attr-defined]
        await self._app(scope, receive, send)


def create_simulator(arguments: argparse.Namespace, options: EngineOptions) -> ASGIApp:
    """The simulator's application from its command line."""
    clock = GpuClock(
        arguments.tokens_per_second, arguments.total_tokens_per_second, arguments.max_running
    )
    faults = FaultPlan(parse_fault(arguments.fault) if arguments.fault else None)
    voice = SimulatedVoice(
        clock,
        faults,
        first_token_seconds=arguments.first_token_ms / 1000,
        prefill_tokens_per_second=arguments.prefill_tokens_per_second,
    )
    simulator = Simulator(voice, options, faults, arguments.voice_list)
    app = create_engine_app(
        simulator,
        (
            Route("/simulator/state", simulator.state),
            Route("/simulator/faults", simulator.plan_faults, methods=["POST"]),
        ),
    )
    return _TransportInScope(app)
