"""The command `speech-gateway`: parse, call, print."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module

from gateway import __version__


def build_parser() -> argparse.ArgumentParser:
    """The command line's grammar; each command brings its own arguments."""
    from engines.container.arguments import add_container_arguments  # noqa: PLC0415
    from engines.serve import add_engine_arguments  # noqa: PLC0415  (start-up time)
    from gateway.commands.doctor import add_doctor_arguments  # noqa: PLC0415
    from gateway.commands.keys import add_keys_arguments  # noqa: PLC0415
    from gateway.commands.say import add_say_arguments  # noqa: PLC0415
    from gateway.commands.serve import add_serve_arguments  # noqa: PLC0415
    from gateway.commands.settings import add_settings_arguments  # noqa: PLC0415
    from gateway.commands.voices import add_voices_arguments  # noqa: PLC0415

    parser = argparse.ArgumentParser(
        prog="speech-gateway",
        description="OpenAI's speech API in front of a Higgs Audio v2 engine.",
    )
    parser.add_argument("--version", action="version", version=f"speech-gateway {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    add_serve_arguments(commands.add_parser("serve", help="run the gateway"))
    add_engine_arguments(
        commands.add_parser("engine", help="run an engine: cpu, higgs or simulated")
    )
    add_say_arguments(commands.add_parser("say", help="speak a text through a gateway"))
    add_keys_arguments(commands.add_parser("keys", help="make keys for clients"))
    add_container_arguments(
        commands.add_parser("container", help="the engine's container on this machine's GPU")
    )
    add_doctor_arguments(
        commands.add_parser("doctor", help="check, measure and hear an engine; writes a report")
    )
    add_voices_arguments(commands.add_parser("voices", help="keep the voice library"))
    add_settings_arguments(
        commands.add_parser("settings", help="show every setting, secrets masked")
    )
    return parser


# Imported when they run: a command starts without the others' libraries.
_COMMANDS = {
    "container": "engines.container.commands:run_container",
    "doctor": "gateway.commands.doctor:run_doctor",
    "engine": "engines.serve:run_from_arguments",
    "keys": "gateway.commands.keys:run_keys",
    "say": "gateway.commands.say:run_say",
    "serve": "gateway.commands.serve:run_serve",
    "settings": "gateway.commands.settings:run_settings",
    "voices": "gateway.commands.voices:run_voices",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    arguments = build_parser().parse_args(argv)
    module, _, function = _COMMANDS[arguments.command].partition(":")
    return int(getattr(import_module(module), function)(arguments))
