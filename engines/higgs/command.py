"""`speech-gateway engine --voice higgs`: arguments, loading and the pieces put together."""

from __future__ import annotations

import argparse
import gc
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette

from engines.server.app import Engine, EngineOptions, create_engine_app
from engines.voice import TOKENS_PER_SECOND

if TYPE_CHECKING:
    from engines.higgs.load import LoadedEngine
    from engines.higgs.voice import HiggsVoice

MODEL = "bosonai/higgs-audio-v2-generation-3B-base"
CODEC = "bosonai/higgs-audio-v2-tokenizer"
CODEC_FOLDER = "codec"  # beside the weights, where --codec names nothing
CODEC_FILES = ["config.json", "model.safetensors"]
CONTEXT_TOKENS = 4096  # 2:40 of speech; a slot of 8,192 takes 0.9 GiB
# Of the codec on the card: measured on an H100, 2026-11-25.
DECODER_BYTES = 90 * 2**20
BYTES_PER_BATCH_FRAME = 1.6 * 2**20
ENCODER_BYTES = 650 * 2**20
ENCODER_ON_CARD_FROM_BYTES = 15 * 2**30  # smaller cards encode references on the CPU
BATCH_FRAMES_PER_SLOT = 40
LEAST_BATCH_FRAMES, MOST_BATCH_FRAMES = 160, 1280
MOST_REFERENCE_SECONDS = 60.0  # the gateway sends 30 at most
PROGRESS_EVERY_SECONDS = 2.0


def add_higgs_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that only this voice reads."""
    group = parser.add_argument_group("higgs voice")
    group.add_argument(
        "--model", default=MODEL, help="folder, hub repository, random or random-tiny"
    )
    group.add_argument("--revision", help="of the hub repository")
    group.add_argument("--codec", help=f"folder or hub repository (default: {CODEC})")
    group.add_argument("--codec-revision", help="of the codec's hub repository")
    group.add_argument("--precision", choices=["bf16", "int8", "int4"], default="bf16")
    group.add_argument("--slots", type=int, help="streams at once; default: what fits")
    group.add_argument("--queue", type=int, default=64, help="requests that may wait; then 429")
    group.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto")
    group.add_argument(
        "--deterministic",
        action="store_true",
        help="an answer's bits do not depend on what else runs; slower",
    )


def create_higgs(arguments: argparse.Namespace, options: EngineOptions) -> Starlette:
    """Load model and codec, which takes seconds, and return the application.

    Raises:
        ValueError: One sentence: a missing package, file or gibibyte.
    """
    try:
        from engines.higgs import load  # noqa: PLC0415  (the extra `gpu`)
        from engines.higgs.config import UnsupportedCheckpointError  # noqa: PLC0415
    except ImportError as error:
        raise ValueError(
            f"--voice higgs needs the extra gpu, pip install 'higgs-speech-gateway[gpu]': {error}"
        ) from error
    context = arguments.max_model_len or CONTEXT_TOKENS
    show = ProgressLines()
    try:
        engine = load.load_engine(
            arguments.model,
            revision=arguments.revision,
            precision=arguments.precision,
            slots=arguments.slots,
            context=context,
            device=arguments.device,
            deterministic=arguments.deterministic,
            queue_size=arguments.queue,
            codec_bytes=_codec_bytes(arguments.slots, arguments.device),
            progress=show,
        )
        voice = _voice(arguments, engine, show)
    except (
        load.UnsuitableCardError,
        load.NotEnoughMemoryError,
        UnsupportedCheckpointError,
        OSError,
    ) as error:
        raise ValueError(str(error)) from error
    # Full collections would walk the million objects of the libraries, and everything waits.
    gc.collect()
    gc.freeze()
    show("ready", 1.0)
    options = replace(options, context_tokens=context, count_tokens=voice.count_tokens)
    return create_engine_app(Engine(voice, options))


def _voice(arguments: argparse.Namespace, engine: LoadedEngine, show: ProgressLines) -> HiggsVoice:
    # Here, not above: they import torch.
    import torch  # noqa: PLC0415

    from engines.higgs.codec import Codec  # noqa: PLC0415
    from engines.higgs.codec_worker import BatchDecoder, CodecWorker  # noqa: PLC0415
    from engines.higgs.prompt import (  # noqa: PLC0415
        CheckpointTokenizer,
        PromptBuilder,
        RandomTokenizer,
    )
    from engines.higgs.references import ReferenceEncoder  # noqa: PLC0415
    from engines.higgs.voice import HiggsVoice  # noqa: PLC0415

    show("codec", 0.0)
    if engine.folder is None:
        codec = Codec.random(tiny=arguments.model == "random-tiny")
    else:
        codec = Codec.from_folder(
            find_codec(engine.folder, arguments.codec, arguments.codec_revision)
        )
    on_card = _encodes_on_card(engine.device.type)
    codec.place(engine.device, engine.device if on_card else torch.device("cpu"))
    worker = CodecWorker(
        codec,
        BatchDecoder(
            codec,
            batch_frames=_batch_frames(engine.loop.slots),
            most_rows=1 if arguments.deterministic else 32,
        ),
    )
    worker.start()
    tokenizer = RandomTokenizer() if engine.folder is None else CheckpointTokenizer(engine.folder)
    context = engine.loop.context_positions
    return HiggsVoice(
        arguments.model.rstrip("/").rsplit("/", 1)[-1],
        engine.loop,
        worker,
        PromptBuilder(tokenizer, engine.config),
        ReferenceEncoder(codec, min(context / TOKENS_PER_SECOND, MOST_REFERENCE_SECONDS)),
        facts=engine.facts,
        natural_length=engine.folder is None,
    )


def find_codec(model: Path, codec: str | None, revision: str | None) -> Path:
    """Folder of the codec: the one named, one beside the weights, or the hub's.

    Raises:
        OSError: It is nowhere.
    """
    folder = Path(codec).expanduser() if codec else model / CODEC_FOLDER
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    return Path(snapshot_download(codec or CODEC, revision=revision, allow_patterns=CODEC_FILES))


def _batch_frames(slots: int) -> int:
    return max(LEAST_BATCH_FRAMES, min(BATCH_FRAMES_PER_SLOT * slots, MOST_BATCH_FRAMES))


def _codec_bytes(slots: int | None, device: str) -> int:
    """Device memory that the codec will take, before the number of slots is known."""
    frames = MOST_BATCH_FRAMES if slots is None else _batch_frames(slots)
    encoder = ENCODER_BYTES if _encodes_on_card(device) else 0
    return int(DECODER_BYTES + BYTES_PER_BATCH_FRAME * frames) + encoder


def _encodes_on_card(device: str) -> bool:
    import torch  # noqa: PLC0415

    if device == "cpu" or not torch.cuda.is_available():
        return False
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return bool(total >= ENCODER_ON_CARD_FROM_BYTES)


class ProgressLines:
    """Prints what is done and how far, at most every two seconds."""

    def __init__(self) -> None:
        self._began = self._shown = time.monotonic()
        self._what = ""

    def __call__(self, what: str, share: float) -> None:
        """Tell a share from 0 to 1 of something."""
        now = time.monotonic()
        if what == self._what and now - self._shown < PROGRESS_EVERY_SECONDS:
            return
        self._what, self._shown = what, now
        line = f"{now - self._began:5.1f} s  {what} {share:.0%}"
        print(line, file=sys.stderr, flush=True)  # noqa: T201  (the command's own progress)
