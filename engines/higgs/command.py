"""`speech-gateway engine --voice higgs`: arguments, loading and the pieces put together."""

from __future__ import annotations

import argparse
import gc
import math
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from starlette.applications import Starlette

from engines.server.app import Engine, EngineOptions, create_engine_app
from engines.voice import TOKENS_PER_SECOND

if TYPE_CHECKING:
    from engines.higgs.codec import Codec
    from engines.higgs.load import LoadedEngine
    from engines.higgs.voice import HiggsVoice

T = TypeVar("T")
MODEL = "bosonai/higgs-audio-v2-generation-3B-base"
CODEC = "bosonai/higgs-audio-v2-tokenizer"
CODEC_FOLDER = "codec"  # beside the weights, where --codec names nothing
CODEC_FILES = ["config.json", "model.safetensors"]
CONTEXT_TOKENS = 4096  # 2:40 of speech; a slot of 8,192 takes 0.9 GiB
# Of the codec on the card: measured on an H100, 2026-11-25.
DECODER_BYTES = 90 * 2**20
BYTES_PER_BATCH_FRAME = 1.6 * 2**20
ENCODER_BYTES = 650 * 2**20
BYTES_PER_ENCODED_SECOND = 36 * 2**20
ENCODER_ON_CARD_FROM_BYTES = 15 * 2**30  # smaller cards encode references on the CPU
BATCH_FRAMES_PER_SLOT = 40
LEAST_BATCH_FRAMES, MOST_BATCH_FRAMES = 160, 1280
ENCODED_SECONDS_PER_SLOT = 3
LEAST_ENCODED_SECONDS, MOST_ENCODED_SECONDS = 16, 96
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
    group.add_argument(
        "--memory", type=_bytes_of, metavar="GIB", help="of the card at most; default: what is free"
    )
    group.add_argument("--queue", type=int, default=64, help="requests that may wait; then 429")
    group.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto")
    group.add_argument(
        "--deterministic",
        action="store_true",
        help="an answer's bits do not depend on what else runs; slower",
    )


def _bytes_of(gibibytes: str) -> int:
    number = float(gibibytes)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError("must be a number above 0")
    return int(number * 2**30)


def create_higgs(arguments: argparse.Namespace, options: EngineOptions) -> Starlette:
    """Load model and codec, which takes seconds, and return the application.

    Raises:
        ValueError: One sentence: a missing package, file or gibibyte.
    """
    try:
        from engines.higgs import load  # noqa: PLC0415  (the extra `gpu`)
    except ImportError as error:
        raise ValueError(
            f"--voice higgs needs the extra gpu, pip install 'higgs-speech-gateway[gpu]': {error}"
        ) from error
    context = arguments.max_model_len or CONTEXT_TOKENS
    on_card = _encodes_on_card(arguments.device, arguments.memory)
    show = ProgressLines()
    try:
        codec = _in_thread(partial(_codec, arguments))
        engine = load.load_engine(
            arguments.model,
            revision=arguments.revision,
            precision=arguments.precision,
            slots=arguments.slots,
            context=context,
            device=arguments.device,
            deterministic=arguments.deterministic,
            queue_size=arguments.queue,
            codec_bytes=_codec_bytes(arguments.slots, on_card=on_card),
            memory_bytes=arguments.memory,
            progress=show,
        )
        show("codec", 0.0)
        voice = _voice(arguments, engine, codec(), on_card=on_card)
    except OSError as error:
        raise ValueError(str(error)) from error
    # Full collections would walk the million objects of the libraries, and everything waits.
    gc.collect()
    gc.freeze()
    show("ready", 1.0)
    options = replace(options, context_tokens=context, count_tokens=voice.count_tokens)
    return create_engine_app(Engine(voice, options))


def _in_thread(work: Callable[[], T]) -> Callable[[], T]:
    """Begin some work; what is returned waits for its result."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(work)
    pool.shutdown(wait=False)
    return future.result


def _codec(arguments: argparse.Namespace) -> Codec:
    from engines.higgs.codec import Codec  # noqa: PLC0415
    from engines.higgs.load import RANDOM_MODELS  # noqa: PLC0415

    if arguments.model in RANDOM_MODELS:
        return Codec.random(tiny=arguments.model == "random-tiny")
    folder = Path(arguments.model).expanduser()
    return Codec.from_folder(find_codec(folder, arguments.codec, arguments.codec_revision))


def _voice(
    arguments: argparse.Namespace, engine: LoadedEngine, codec: Codec, *, on_card: bool
) -> HiggsVoice:
    # Here, not above: they import torch.
    import torch  # noqa: PLC0415

    from engines.higgs.codec_worker import BatchDecoder, CodecWorker  # noqa: PLC0415
    from engines.higgs.prompt import (  # noqa: PLC0415
        CheckpointTokenizer,
        PromptBuilder,
        RandomTokenizer,
    )
    from engines.higgs.references import ReferenceEncoder  # noqa: PLC0415
    from engines.higgs.voice import HiggsVoice  # noqa: PLC0415

    codec.place(engine.device, engine.device if on_card else torch.device("cpu"))
    slots, context = engine.loop.slots, engine.loop.context_positions
    worker = CodecWorker(
        codec,
        BatchDecoder(
            codec,
            batch_frames=_batch_frames(slots),
            most_rows=1 if arguments.deterministic else 32,
        ),
    )
    worker.start()
    encoder = ReferenceEncoder(
        codec, min(context / TOKENS_PER_SECOND, MOST_REFERENCE_SECONDS), _encoded_seconds(slots)
    )
    if on_card:
        encoder.warm_up()
    tokenizer = RandomTokenizer() if engine.folder is None else CheckpointTokenizer(engine.folder)
    return HiggsVoice(
        arguments.model.rstrip("/").rsplit("/", 1)[-1],
        engine.loop,
        worker,
        PromptBuilder(tokenizer, engine.config),
        encoder,
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


def _encoded_seconds(slots: int) -> float:
    """Seconds of recordings that are encoded at once."""
    return max(LEAST_ENCODED_SECONDS, min(ENCODED_SECONDS_PER_SLOT * slots, MOST_ENCODED_SECONDS))


def _codec_bytes(slots: int | None, *, on_card: bool) -> int:
    """Device memory that the codec will take, before the number of slots is known."""
    frames = MOST_BATCH_FRAMES if slots is None else _batch_frames(slots)
    seconds = MOST_ENCODED_SECONDS if slots is None else _encoded_seconds(slots)
    encoder = ENCODER_BYTES + BYTES_PER_ENCODED_SECOND * seconds if on_card else 0
    return int(DECODER_BYTES + BYTES_PER_BATCH_FRAME * frames + encoder)


def _encodes_on_card(device: str, memory_bytes: int | None) -> bool:
    import torch  # noqa: PLC0415

    if device == "cpu" or not torch.cuda.is_available():
        return False
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return bool(min(memory_bytes or total, total) >= ENCODER_ON_CARD_FROM_BYTES)


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
