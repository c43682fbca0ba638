"""The command `speech-gateway`: parse, call, print."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points

from gateway import __version__

# Other packages add commands here: a function each, which is given argparse's `add_parser`.
COMMANDS_GROUP = "speech_gateway.commands"


def build_parser() -> argparse.ArgumentParser:
    """The command line's grammar; each command brings its own arguments.

    `run` of the parsed arguments names the function that runs the command, in a module that is
    imported only then: a command starts without the others' libraries.
    """
    from gateway.commands.keys import add_keys_arguments  # noqa: PLC0415  (start-up time)
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

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text)
        command.set_defaults(run=f"gateway.commands.{name}:run_{name}")
        return command

    add_serve_arguments(add("serve", "run the gateway"))
    add_say_arguments(add("say", "speak a text through a gateway"))
    add_keys_arguments(add("keys", "make keys for clients"))
    add_voices_arguments(add("voices", "keep the voice library"))
    add_settings_arguments(add("settings", "show every setting, secrets masked"))
    # By name: an installation under the distribution's earlier name has the same entries again.
    entries = {entry.name: entry for entry in entry_points(group=COMMANDS_GROUP)}
    for name in sorted(entries):
        entries[name].load()(commands.add_parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    arguments = build_parser().parse_args(argv)
    module, _, function = arguments.run.partition(":")
    return int(getattr(import_module(module), function)(arguments))
