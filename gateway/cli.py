"""The command `speech-gateway`: parse, call, print."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from gateway import __version__


def build_parser() -> argparse.ArgumentParser:
    """The command line's grammar; each command brings its own arguments."""
    from gateway.engine.serve import add_engine_arguments  # noqa: PLC0415  (start-up time)
    from gateway.say import add_say_arguments  # noqa: PLC0415
    from gateway.serve import add_serve_arguments  # noqa: PLC0415

    parser = argparse.ArgumentParser(
        prog="speech-gateway",
        description="OpenAI's speech API in front of a Higgs Audio v2 engine.",
    )
    parser.add_argument("--version", action="version", version=f"speech-gateway {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    add_serve_arguments(commands.add_parser("serve", help="run the gateway"))
    add_engine_arguments(commands.add_parser("engine", help="run the CPU or simulated engine"))
    add_say_arguments(commands.add_parser("say", help="speak a text through a gateway"))
    settings = commands.add_parser("settings", help="show every setting, secrets masked")
    settings.add_argument("--json", action="store_true", help="print JSON")
    return parser


def run_settings(arguments: argparse.Namespace) -> int:
    """Print the settings as they are in force."""
    from gateway.settings import (  # noqa: PLC0415
        SettingsError,
        describe,
        describe_json,
        load_settings,
    )

    try:
        settings = load_settings()
    except SettingsError as error:
        print(f"speech-gateway: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        print(describe_json(settings))
    else:
        for name, value in describe(settings).items():
            print(f"{name}={value}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    arguments = build_parser().parse_args(argv)
    if arguments.command == "settings":
        return run_settings(arguments)
    if arguments.command == "serve":
        from gateway.serve import run_serve  # noqa: PLC0415

        return run_serve(arguments)
    if arguments.command == "engine":
        from gateway.engine.serve import run_from_arguments  # noqa: PLC0415

        return run_from_arguments(arguments)
    from gateway.say import run_say  # noqa: PLC0415

    return run_say(arguments)
