"""Puts the engine together: model and loop, codec, tokenizer, and the voice around them."""

from __future__ import annotations

import argparse
import gc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from starlette.applications import Starlette

from engines.higgs.codec import Codec
from engines.higgs.codec_worker import BATCH_FRAMES, MOST_ROWS, BatchDecoder, CodecWorker
from engines.higgs.load import MOST_SLOTS, RANDOM_MODELS, choose_device, fetched, load_engine
from engines.higgs.loop import GenerationLoop
from engines.higgs.progress import show
from engines.higgs.references import ReferenceEncoder
from engines.higgs.voice import HiggsVoice
from engines.server.app import Engine, EngineOptions, create_engine_app
from engines.voice import TOKENS_PER_SECOND

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
LEAST_BATCH_FRAMES = 160
ENCODED_SECONDS_PER_SLOT = 3
LEAST_ENCODED_SECONDS, MOST_ENCODED_SECONDS = 16, 96
MOST_REFERENCE_SECONDS = 60.0  # the gateway sends 30 at most


def create_app(arguments: argparse.Namespace, options: EngineOptions) -> Starlette:
    """Load model and codec, which takes seconds, and return the application.

    Raises:
        ValueError: What the card cannot do, or the checkpoint is not.
        OSError: A file is missing.
    """
    context = arguments.max_model_len or CONTEXT_TOKENS
    device = choose_device(arguments.device)
    on_card = _encodes_on_card(device, arguments.memory)
    with ThreadPoolExecutor(1) as beside:
        codec = beside.submit(_codec, arguments)
        loop, builder, facts = load_engine(
            arguments.model,
            revision=arguments.revision,
            precision=arguments.precision,
            slots=arguments.slots,
            context=context,
            device=device,
            deterministic=arguments.deterministic,
            queue_size=arguments.queue,
            codec_bytes=_codec_bytes(arguments.slots or MOST_SLOTS, on_card=on_card),
            memory_bytes=arguments.memory,
        )
        show("codec: loading")
        placed = codec.result().place(device, device if on_card else torch.device("cpu"))
    worker = _worker(placed, loop, most_rows=1 if arguments.deterministic else MOST_ROWS)
    encoder = _encoder(placed, loop, warm=on_card)
    voice = HiggsVoice(
        arguments.model.rstrip("/").rsplit("/", 1)[-1],
        loop,
        worker,
        builder,
        encoder,
        facts=facts,
        natural_length=arguments.model in RANDOM_MODELS,
    )
    # Full collections would walk the million objects of the libraries, and everything waits.
    gc.collect()
    gc.freeze()
    show("ready")
    options = replace(options, context_tokens=context, count_tokens=voice.count_tokens)
    return create_engine_app(Engine(voice, options))


def _codec(arguments: argparse.Namespace) -> Codec:
    """The codec: a random one, the one named, one beside the weights, or the hub's."""
    if arguments.model in RANDOM_MODELS:
        return Codec.random(tiny=arguments.model == "random-tiny")
    beside = Path(arguments.model).expanduser() / CODEC_FOLDER
    name = arguments.codec or (str(beside) if beside.is_dir() else CODEC)
    return Codec.from_folder(fetched(name, arguments.codec_revision, CODEC_FILES))


def _worker(codec: Codec, loop: GenerationLoop, *, most_rows: int) -> CodecWorker:
    frames = _batch_frames(loop.slots)
    worker = CodecWorker(BatchDecoder(codec, batch_frames=frames, most_rows=most_rows))
    worker.start()
    return worker


def _encoder(codec: Codec, loop: GenerationLoop, *, warm: bool) -> ReferenceEncoder:
    most_seconds = min(loop.context_positions / TOKENS_PER_SECOND, MOST_REFERENCE_SECONDS)
    encoder = ReferenceEncoder(codec, most_seconds, _encoded_seconds(loop.slots))
    if warm:
        encoder.warm_up()
    return encoder


def _batch_frames(slots: int) -> int:
    return max(LEAST_BATCH_FRAMES, min(BATCH_FRAMES_PER_SLOT * slots, BATCH_FRAMES))


def _encoded_seconds(slots: int) -> float:
    """Seconds of recordings that are encoded at once."""
    return max(LEAST_ENCODED_SECONDS, min(ENCODED_SECONDS_PER_SLOT * slots, MOST_ENCODED_SECONDS))


def _codec_bytes(slots: int, *, on_card: bool) -> int:
    """Device memory that the codec will take beside so many slots."""
    encoder = ENCODER_BYTES + BYTES_PER_ENCODED_SECOND * _encoded_seconds(slots) if on_card else 0
    return int(DECODER_BYTES + BYTES_PER_BATCH_FRAME * _batch_frames(slots) + encoder)


def _encodes_on_card(device: torch.device, memory_bytes: int | None) -> bool:
    if device.type == "cpu":
        return False
    total = torch.cuda.get_device_properties(device).total_memory
    return bool(min(memory_bytes or total, total) >= ENCODER_ON_CARD_FROM_BYTES)
