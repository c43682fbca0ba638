"""`speech-gateway keys`: makes a key, shows it once, and keeps only its hash.

The line for the keys file is printed, or appended to the file in one write that a running gateway
takes up within a second.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from gateway.access.keys import Key, file_line, new_key, parse_file
from gateway.access.rate_limits import Limits

HINT = (
    "The first line is the key, shown only now; the second is for the file that "
    "GATEWAY_API_KEYS_FILE names."
)


def add_keys_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `speech-gateway keys`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")
    new = actions.add_parser("new", help="make a key and show it once")
    new.add_argument("name", help="what logs and metrics call it")
    new.add_argument("--admin", action="store_true", help="it may change voices and settings")
    new.add_argument("--requests-per-minute", type=float, metavar="N", help="its own limit")
    new.add_argument("--audio-seconds-per-minute", type=float, metavar="N", help="its own limit")
    new.add_argument(
        "--file", type=Path, help="keys file to append to; without it, the line is printed"
    )


def run_keys(arguments: argparse.Namespace) -> int:
    """Make a key; return the exit status."""
    key = new_key()
    limits = Limits(arguments.requests_per_minute, arguments.audio_seconds_per_minute)
    try:
        line = file_line(arguments.name, key, admin=arguments.admin, limits=limits)
        parse_file(line.encode())
        if arguments.file is not None:
            append_line(arguments.file, line)
    except (ValueError, OSError) as error:
        print(f"speech-gateway: {error}", file=sys.stderr)
        return 2
    print(key)
    if arguments.file is not None and len(same := _named(arguments.file, arguments.name)) > 1:
        note = f"{len(same)} keys are named {arguments.name} now: each works until its line is gone"
        print(note, file=sys.stderr)
    if arguments.file is None:
        print(line)
        print(HINT, file=sys.stderr)
    return 0


def _named(path: Path, name: str) -> list[Key]:
    """The keys of a name in a keys file."""
    return [key for key in parse_file(path.read_bytes()) if key.name == name]


def append_line(path: Path, line: str) -> None:
    """Append a line to a keys file, which is made for its owner's eyes alone if it is not there.

    Raises:
        ValueError: The file, with the line, would not be a keys file.
        OSError: It cannot be written.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        before = file.read()
        start = b"\n" if before and not before.endswith(b"\n") else b""
        addition = start + line.encode() + b"\n"
        parse_file(before + addition)
        file.write(addition)
