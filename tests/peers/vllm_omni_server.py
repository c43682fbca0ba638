"""Runs vLLM-Omni's API server with its engine replaced: `python vllm_omni_server.py PORT STAGE`.

STAGE is the key of a model's first stage (`higgs_audio_v2`, `qwen3_tts`): it chooses the adapter
that checks requests. Real: the application, its routes, the adapter's checks, the encoding of audio
and what happens when a client leaves. Replaced: the engine, and the model's prompt.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from tests.peers.stand_ins import RATE_HZ, seconds_of, stand_in, tone

AT_ONCE = 4  # max_num_seqs of vllm_omni/deploy/higgs_audio_v2.yaml
PIECE_SECONDS = 1.0


class Engine:
    """The part of AsyncOmni that the HTTP code uses."""

    errored = False
    is_running = True
    endpoint_restrictions: tuple[str, ...] = ()
    vllm_config = None
    renderer = input_processor = io_processor = None

    def __init__(self, model: str, stage: str) -> None:
        sampling = importlib.import_module("vllm.sampling_params").SamplingParams
        self.default_sampling_params_list = [sampling(max_tokens=1024), sampling()]
        talker = SimpleNamespace(spk_id={"vivian": 1, "ryan": 2}) if "qwen" in stage else None
        config = SimpleNamespace(talker_config=talker, architectures=[], model_type="stand-in")
        self.model_config = SimpleNamespace(
            model=model,
            max_model_len=4096,
            hf_config=config,
            async_chunk=True,
            logits_processors=None,
            allowed_local_media_path="",
            allowed_media_domains=None,
        )
        arguments = SimpleNamespace(
            model_stage=stage, model_arch=None, worker_type="ar", model=model
        )
        self.stage_configs = [SimpleNamespace(engine_args=arguments, stage_type="llm")]
        self._room = asyncio.Semaphore(AT_ONCE)

    async def get_supported_tasks(self) -> tuple[str, ...]:
        """None but speech."""
        return ()

    async def get_vllm_config(self) -> Any:
        """Its parts that the server's start reads."""
        return SimpleNamespace(
            lora_config=None,
            model_config=self.model_config,
            parallel_config=SimpleNamespace(_api_process_rank=0),
            shutdown_timeout=0,
        )

    async def get_tokenizer(self) -> None:
        """None."""

    async def check_health(self) -> None:
        """All is well."""

    async def generate(self, *, prompt: Any, request_id: str, **options: Any) -> AsyncIterator[Any]:
        """Make audio in pieces, at most AT_ONCE requests at a time."""
        params = options["sampling_params_list"][0]
        print(
            f"PEER begin {request_id} max_tokens={params.max_tokens} seed={params.seed}", flush=True
        )
        try:
            async with self._room:
                left = min(seconds_of(prompt["prompt"]), params.max_tokens / 25)
                pieces = []
                while left > 0:
                    now = min(left, PIECE_SECONDS)
                    pieces.append(await asyncio.to_thread(tone, now))
                    left -= now
                    if params.output_kind.name == "DELTA":
                        yield self._output(pieces.pop(), request_id)
                if pieces:
                    yield self._output(importlib.import_module("torch").cat(pieces), request_id)
        except (asyncio.CancelledError, GeneratorExit):
            print(f"PEER abort {request_id}", flush=True)
            raise
        print(f"PEER end {request_id}", flush=True)

    def _output(self, audio: Any, request_id: str) -> Any:
        return SimpleNamespace(
            multimodal_output={"audio": audio, "sr": RATE_HZ},
            outputs=[],
            request_id=request_id,
            final_output_type="audio",
            stage_id=0,
            metrics={},
            finished=True,
        )


async def serve(port: str, stage: str) -> None:
    """Run the server's own `omni_run_server` until it is ended."""
    stand_in("torchvision", "torchaudio", "diffusers")
    platforms: Any = importlib.import_module("vllm.platforms")
    platforms.current_platform = importlib.import_module("vllm.platforms.cpu").CpuPlatform()
    server: Any = importlib.import_module("vllm_omni.entrypoints.openai.api_server")
    adapters = importlib.import_module("vllm_omni.entrypoints.openai.tts_adapters")
    base = importlib.import_module("vllm_omni.entrypoints.openai.tts_adapters.base")

    @asynccontextmanager
    async def engine(args: Any, **_: Any) -> AsyncIterator[Engine]:
        yield Engine(args.model, stage)

    async def build(self: Any, request: Any, *_: Any) -> Any:
        if request.ref_audio is not None:
            await self.ctx.server._resolve_ref_audio(request.ref_audio)
        return base.PreparedRequest(prompt={"prompt": request.input}, model_type=stage)

    adapters.resolve_adapter(adapters.detect_tts_model_type(stage, None)).build = build
    server.build_async_omni = engine
    for name in ("OnlineRenderer", "ServingTokenization"):
        setattr(server, name, lambda *_, **__: SimpleNamespace(warmup=lambda: None))
    launchers = importlib.import_module("vllm.entrypoints.launchers.cli_args")
    parser = importlib.import_module("vllm_omni.utils.tracking_parser").TrackingArgumentParser()
    arguments = ["--model", f"stand-in/{stage}", "--host", "127.0.0.1", "--port", port]
    await server.omni_run_server(launchers.make_arg_parser(parser).parse_args(arguments))


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    asyncio.run(serve(*sys.argv[1:3]))
