"""`speech-gateway engine --voice higgs`: its arguments, read without PyTorch."""

from __future__ import annotations

import argparse
import math

from starlette.applications import Starlette

from engines.server.app import EngineOptions

MODEL = "bosonai/higgs-audio-v2-generation-3B-base"


def add_higgs_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that only this voice reads."""
    group = parser.add_argument_group("higgs voice")
    group.add_argument(
        "--model", default=MODEL, help="folder, hub repository, random or random-tiny"
    )
    group.add_argument("--revision", help="of the hub repository")
    group.add_argument("--codec", help="folder or hub repository; default: the makers'")
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
        from engines.higgs.engine import create_app  # noqa: PLC0415  (the extra `gpu`)
    except ImportError as error:
        raise ValueError(
            f"--voice higgs needs the extra gpu, pip install 'higgs-speech-gateway[gpu]': {error}"
        ) from error
    try:
        return create_app(arguments, options)
    except OSError as error:
        raise ValueError(str(error)) from error
