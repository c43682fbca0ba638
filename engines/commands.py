"""The commands that engines add to `speech-gateway`: an entry point each in pyproject.toml."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from engines.container.arguments import add_container_arguments
from engines.doctor.command import add_doctor_arguments
from engines.serve import add_engine_arguments

AddParser = Callable[..., argparse.ArgumentParser]


def add_engine(add_parser: AddParser) -> None:
    """Add `speech-gateway engine`."""
    parser = add_parser("engine", help="run an engine: cpu, higgs or simulated")
    add_engine_arguments(parser)
    parser.set_defaults(run="engines.serve:run_from_arguments")


def add_container(add_parser: AddParser) -> None:
    """Add `speech-gateway container`."""
    parser = add_parser("container", help="the engine's container on this machine's GPU")
    add_container_arguments(parser)
    parser.set_defaults(run="engines.container.commands:run_container")


def add_doctor(add_parser: AddParser) -> None:
    """Add `speech-gateway doctor`."""
    parser = add_parser("doctor", help="check, measure and hear an engine; writes a report")
    add_doctor_arguments(parser)
    parser.set_defaults(run="engines.doctor.command:run_doctor")
