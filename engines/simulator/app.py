"""The simulator: the simulated voice behind the contract's HTTP, with a window for tests.

`GET /simulator/state` tells what came and what runs; `POST /simulator/faults` plans what goes
wrong. Faults of the HTTP side (500, refused and dropped connections, lying lists) live here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from engines.server.app import CONTEXT_TOKENS, Engine, EngineOptions, create_engine_app
from engines.server.contract import ChatFields, ContractError, SpeechFields
from engines.simulator.clock import GpuClock
from engines.simulator.connection_drops import CutError, TransportInScope, or_drop
from engines.simulator.faults import BEFORE_HEADERS, Fault, FaultPlan, Kind, parse_fault
from engines.simulator.voice import SimulatedJob, SimulatedVoice
from engines.voice import Job

REMEMBERED_REQUESTS = 64
SHOWN_CHARACTERS = 2**23  # of a reference in /simulator/state: 131 s as base64 WAV
UNLIMITED = 1e9
PRESET_TOKENS = 202  # of the reference that stands behind a preset, docs/contract.md section 6
STATUS_SERVER_ERROR = 500

Refuse = Callable[[float], Awaitable[None]]


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
    group.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME[-NUMBER]",
        help="what befalls generations, such as cut-48000; may be repeated, see --fault-rate",
    )
    group.add_argument("--fault-rate", type=float, default=1.0, help="share that meets a fault")
    group.add_argument("--fault-seed", type=int, default=0, help="of the choice")
    group.add_argument(
        "--tokenizer",
        metavar="FILE",
        help="tokenizer.json that counts text, with the package tokenizers; else a byte is a token",
    )
    group.add_argument("--voice-list", help="what /v1/audio/voices answers instead")
    group.add_argument(
        "--crash-on-special-tokens",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="die when a text holds an audio token, as the container does",
    )
    group.add_argument(
        "--stall-on-sigterm",
        action="store_true",
        help="at SIGTERM close the listener and leave open streams without data or end",
    )


@dataclass(slots=True)
class VoiceList:
    """What `/v1/audio/voices` answers instead of the truth.

    Attributes:
        body: The answer's text, JSON or not.
        status: Its status.
    """

    body: str
    status: int = 200


class Simulator(Engine):
    """The engine's routes around the simulated voice.

    Args:
        voice: The voice.
        options: How the process is set up.
        faults: What goes wrong.
        voice_list: What `/v1/audio/voices` answers instead, or None.

    Attributes:
        refuse: Closes the listener for so many seconds; set by who owns it.
    """

    voice: SimulatedVoice
    headers_first = True
    preset_tokens = PRESET_TOKENS

    def __init__(
        self,
        voice: SimulatedVoice,
        options: EngineOptions,
        faults: FaultPlan,
        voice_list: VoiceList | None,
    ) -> None:
        super().__init__(voice, options)
        self.refuse: Refuse | None = None
        self._faults = faults
        self._voice_list = voice_list
        self._requests: deque[dict[str, Any]] = deque(maxlen=REMEMBERED_REQUESTS)
        self._total = 0
        self._voice_lists = 0

    # -- generations -----------------------------------------------------------------------

    async def admit(self, job: Job, scope: Scope, fields: SpeechFields | ChatFields) -> Job:
        """Remember what came, and let the faults befall it that need no audio."""
        self._remember(job, scope, fields)
        fault = self._faults.draw(job.text)
        if fault is not None and fault.kind in BEFORE_HEADERS:
            with self.voice.counted():
                await self._befall(fault)
        return with_fault(job, fault)

    async def _befall(self, fault: Fault) -> None:
        if fault.kind is Kind.HANG:
            await asyncio.Event().wait()
        elif fault.kind is Kind.SLOW_HEADERS:
            await asyncio.sleep(fault.number / 1000)
        elif fault.kind is Kind.ERROR:
            raise ContractError(STATUS_SERVER_ERROR, "Internal Server Error")
        elif fault.kind is Kind.REFUSE and self.refuse is not None:
            await self.refuse(fault.number)
            raise CutError(reset=True)
        else:
            raise CutError(reset=True)

    def _remember(self, job: Job, scope: Scope, fields: SpeechFields | ChatFields) -> None:
        self._total += 1
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        self._requests.append(
            {
                "path": scope["path"],
                "headers": headers,
                "body": _shortened(fields.model_dump(mode="json", exclude_unset=True)),
                "text": job.text,
                "max_tokens": job.max_tokens,
                "chunk_tokens": job.chunk_tokens,
                "overlap_tokens": job.overlap_tokens,
                "prompt_tokens": job.prompt_tokens,
                "references": [len(audio) for _, audio in job.references],
                "reference_seconds": job.reference_seconds,
            }
        )

    async def speech(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The speech route, with faults that drop its connection."""
        await or_drop(super().speech(scope, receive, send), scope, receive)

    async def chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The chat route, with faults that drop its connection."""
        await or_drop(super().chat(scope, receive, send), scope, receive)

    # -- the other routes ------------------------------------------------------------------

    async def voices(self, request: Request) -> Response:
        """`/v1/audio/voices`, or what was asked for instead."""
        self._voice_lists += 1
        wrong = self._voice_list
        if wrong is None:
            return await super().voices(request)
        if wrong.status == STATUS_SERVER_ERROR:
            return PlainTextResponse("Internal Server Error", wrong.status)
        return Response(wrong.body, wrong.status, media_type="application/json")

    async def state(self, request: Request) -> Response:
        """What runs, what was, what came."""
        del request
        voice = self.voice
        return JSONResponse(
            {
                "running": voice.running,
                "waiting": voice.waiting,
                "on_gpu": voice.clock.running,
                "peak_running": voice.peak_running,
                "peak_waiting": voice.clock.peak_waiting,
                "peak_on_gpu": voice.clock.peak_running,
                "aborted": voice.aborted_total,
                "finished": voice.finished_total,
                "finish_reasons": self.counters.finished,
                "audio_tokens": voice.audio_tokens_total,
                "special_tokens": voice.special_tokens_total,
                "faults_met": self._faults.met,
                "requests_total": self._total,
                "voice_lists": self._voice_lists,
                "requests": list(self._requests),
            }
        )

    async def plan_faults(self, request: Request) -> Response:
        """Plan what goes wrong; every key may be left out.

        `next` (faults of the coming generations whose text holds `match`), `always`, `rate`,
        `kinds` and `seed` (faults at random); `voices` (what the list says instead, null for the
        truth), `voices_text` and `voices_status` (the list's raw body and status);
        `refuse_seconds` (the listener is closed for so long).
        """
        plan = await request.json()
        try:
            upcoming = [parse_fault(fault) for fault in plan.get("next", [])]
            kinds = [parse_fault(fault) for fault in plan.get("kinds", [])]
            always = parse_fault(plan["always"]) if plan.get("always") else None
        except ValueError as error:
            return JSONResponse({"detail": str(error)}, 400)
        self._faults.always = always
        self._faults.plan(
            upcoming=upcoming,
            rate=plan.get("rate", 0.0),
            kinds=kinds,
            seed=plan.get("seed", 0),
            match=plan.get("match", ""),
        )
        if "voices" in plan:
            voices = plan["voices"]
            self._voice_list = None if voices is None else VoiceList(json.dumps(voices))
        if "voices_text" in plan or "voices_status" in plan:
            text = plan.get("voices_text", "")
            self._voice_list = VoiceList(text, plan.get("voices_status", 200))
        if plan.get("refuse_seconds") and self.refuse is not None:
            await self.refuse(plan["refuse_seconds"])
        return JSONResponse({"planned": len(upcoming)})


def with_fault(job: Job, fault: Fault | None) -> Job:
    """The job with what befalls it."""
    if fault is None:
        return job
    return SimulatedJob(**{f.name: getattr(job, f.name) for f in fields(job)}, fault=fault)


def _shortened(value: Any) -> Any:
    """The body with long reference audio cut off: the state's size stays bounded."""
    if isinstance(value, dict):
        return {
            name: entry[:SHOWN_CHARACTERS]
            if name == "data" and isinstance(entry, str)
            else _shortened(entry)
            for name, entry in value.items()
        }
    return [_shortened(entry) for entry in value] if isinstance(value, list) else value


def load_tokenizer(path: str) -> Callable[[str], int]:
    """A function that counts the tokens of a text like the model that this tokenizer belongs to.

    Raises:
        ValueError: The package is missing, or the file is no tokenizer.
    """
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415  (the extra `test`)

        tokenizer = Tokenizer.from_file(path)
    except Exception as error:  # the package raises nothing more precise
        raise ValueError(f"--tokenizer: {error}") from error
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))


def create_simulator(
    arguments: argparse.Namespace, options: EngineOptions
) -> tuple[ASGIApp, Simulator]:
    """The simulator's application from its command line, and its state.

    Raises:
        ValueError: An argument that makes no sense; the message says which.
    """
    if options.context_tokens > CONTEXT_TOKENS:
        raise ValueError(f"--max-model-len: the simulated voice knows at most {CONTEXT_TOKENS}")
    given = [parse_fault(fault) for fault in arguments.fault]
    faults = FaultPlan()
    faults.plan(rate=arguments.fault_rate, kinds=given, seed=arguments.fault_seed)
    voice = SimulatedVoice(
        GpuClock(
            arguments.tokens_per_second, arguments.total_tokens_per_second, arguments.max_running
        ),
        first_token_seconds=arguments.first_token_ms / 1000,
        prefill_tokens_per_second=arguments.prefill_tokens_per_second,
        crash_on_special_tokens=arguments.crash_on_special_tokens,
    )
    if arguments.tokenizer:
        options = replace(options, count_tokens=load_tokenizer(arguments.tokenizer))
    voice_list = VoiceList(arguments.voice_list) if arguments.voice_list is not None else None
    simulator = Simulator(voice, options, faults, voice_list)
    routes = (
        Route("/simulator/state", simulator.state),
        Route("/simulator/faults", simulator.plan_faults, methods=["POST"]),
    )
    return TransportInScope(create_engine_app(simulator, routes)), simulator
