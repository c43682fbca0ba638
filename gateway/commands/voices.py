"""The command `voices`: the voice library's folder by hand, with or without a running gateway.

Every gateway that shares the folder sees a change at its next request.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from gateway.errors import GatewayError
from gateway.voices.library.config_entry import LibraryVoice
from gateway.voices.library.library import VoiceLibrary
from gateway.voices.samples.loudness import UPLOAD_LIMITS

STATUS_FAILED = 1
STATUS_USAGE = 2


def add_voices_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `speech-gateway voices`."""
    parser.add_argument(
        "--dir", type=Path, help="the library's folder; default: that of the settings"
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")
    shown = actions.add_parser("list", help="show the voices")
    shown.add_argument("--json", action="store_true", help="print JSON")
    shown.set_defaults(act=_list)
    new = actions.add_parser("add", help="make a voice from a recording of 1 to 30 seconds")
    new.add_argument("name")
    new.add_argument("file", type=Path, help="WAV, FLAC, MP3, OGG, M4A, AAC or WebM")
    new.add_argument("--transcript", help="what the recording says")
    new.add_argument("--language", default="en", help="language tag of the recording")
    new.add_argument("--alias", action="append", default=[], help="a further name; repeatable")
    new.set_defaults(act=_add)
    renamed = actions.add_parser("rename", help="give a voice another name")
    renamed.add_argument("name")
    renamed.add_argument("new_name")
    renamed.set_defaults(act=_rename)
    removed = actions.add_parser("remove", help="take a voice out")
    removed.add_argument("name")
    removed.set_defaults(act=_remove)
    default = actions.add_parser("default", help="show, set or clear the default voice")
    default.add_argument("name", nargs="?", help="the voice; without it the default is shown")
    default.add_argument("--clear", action="store_true", help="have no default voice")
    default.set_defaults(act=_default)


def run_voices(arguments: argparse.Namespace) -> int:
    """Do one thing to the library and return the exit status."""
    from gateway.settings import SettingsError, load_settings  # noqa: PLC0415  (start-up time)

    try:
        folder = arguments.dir or load_settings().voices_folder
    except SettingsError as error:
        return _complain(str(error), STATUS_USAGE)
    library = VoiceLibrary(folder)
    try:
        library.check()
        return int(arguments.act(library, arguments))
    except GatewayError as error:
        return _complain(error.message, STATUS_FAILED)
    except OSError as error:
        return _complain(f"{error.filename or folder}: {error.strerror}", STATUS_FAILED)


def _list(library: VoiceLibrary, arguments: argparse.Namespace) -> int:
    voices = library.snapshot.voices
    if arguments.json:
        print(json.dumps([_as_json(voice) for voice in voices], indent=2))
        return 0
    for voice in voices:
        print(_line(voice))
    if not voices:
        _note("no voices")
    return 0


def _add(library: VoiceLibrary, arguments: argparse.Namespace) -> int:
    with arguments.file.open("rb") as file:
        audio = file.read(UPLOAD_LIMITS.max_bytes + 1)
    voice = library.add(
        arguments.name,
        audio,
        transcript=arguments.transcript,
        language=arguments.language,
        aliases=arguments.alias,
        original_name=arguments.file.name,
    )
    print(_line(voice))
    if voice.transcript is None:
        _note(
            f'no transcript given: the engine is told "{voice.prompt_transcript}"; '
            "a clone is better with what the recording says"
        )
    return 0


def _rename(library: VoiceLibrary, arguments: argparse.Namespace) -> int:
    print(_line(library.rename(arguments.name, arguments.new_name)))
    return 0


def _remove(library: VoiceLibrary, arguments: argparse.Namespace) -> int:
    voice = library.remove(arguments.name)
    print(f"removed {voice.name}; its recording goes when no request can need it any more")
    return 0


def _default(library: VoiceLibrary, arguments: argparse.Namespace) -> int:
    if arguments.clear and arguments.name is not None:
        return _complain("default: either a name or --clear", STATUS_USAGE)
    if arguments.clear or arguments.name is not None:
        voice = library.set_default(arguments.name)
    else:
        voice = library.snapshot.default
    print(voice.name if voice else "no default voice")
    return 0


def _line(voice: LibraryVoice) -> str:
    parts = [voice.name, voice.id, voice.language, f"{voice.duration_seconds:.1f} s"]
    if voice.aliases:
        parts.append("also " + ", ".join(voice.aliases))
    if voice.is_default:
        parts.append("default")
    return "\t".join(parts)


def _as_json(voice: LibraryVoice) -> dict[str, Any]:
    return {
        "id": voice.id,
        "name": voice.name,
        "aliases": list(voice.aliases),
        "language": voice.language,
        "transcript": voice.transcript,
        "duration_seconds": voice.duration_seconds,
        "created_at": voice.created_at,
        "default": voice.is_default,
        "file": voice.audio_file,
    }


def _note(text: str) -> None:
    print(text, file=sys.stderr)


def _complain(message: str, status: int) -> int:
    _note(f"speech-gateway: {message}")
    return status
