"""The command `say`: a text from the command line, a file or a pipe, spoken through a gateway.

It is a client like any other and knows the gateway by its HTTP address alone; when none runs, it
starts one for the call.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.commands.say_sinks import Sink

DEFAULT_URL = "http://127.0.0.1:8888"
API_KEY_VARIABLE = "SPEECH_GATEWAY_API_KEY"
STATUS_FAILED = 1
STATUS_USAGE = 2
STATUS_INTERRUPTED = 130

FORMATS = {
    ".wav": "wav",
    ".pcm": "pcm",
    ".raw": "pcm",
    ".mp3": "mp3",
    ".aac": "aac",
    ".opus": "opus",
    ".ogg": "opus",
    ".flac": "flac",
}
# Where a long text is cut, best first: behind a paragraph, a sentence (with its closing quotes and
# brackets; ideographic stops need no space behind them), a word.
_PARAGRAPH_END = r"\n\s*\n\s*"
_SENTENCE_END = r"[.!?\u2026][\"'\u201d\u2019)\]]*\s+"
_WIDE_SENTENCE_END = r"[\u3002\uff01\uff1f][\u300d\u300f\u201d\u2019\uff09]*\s*"
_CUTS = tuple(
    re.compile(pattern)
    for pattern in (_PARAGRAPH_END, f"{_SENTENCE_END}|{_WIDE_SENTENCE_END}", r"\s+")
)


class SayError(Exception):
    """What went wrong, in one line for the person at the terminal."""


class UsageError(SayError):
    """The command line asks for something impossible."""


def add_say_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `speech-gateway say`."""
    parser.add_argument("text", nargs="?", help="what to say; `-` or nothing reads standard input")
    parser.add_argument("--file", type=Path, help="read the text from this file (UTF-8)")
    parser.add_argument("-o", "--output", type=Path, help="write a file instead of playing")
    parser.add_argument("--voice", help="a voice that the gateway lists; default: its own default")
    parser.add_argument(
        "--format",
        choices=sorted(set(FORMATS.values())),
        help="format of the file; default: what its suffix says",
    )
    parser.add_argument("--speed", type=float, help="tempo from 0.25 to 4; the pitch stays")
    parser.add_argument(
        "--url", help=f"address of a gateway; default: {DEFAULT_URL}, or one started for the call"
    )
    parser.add_argument(
        "--api-key",
        default=os.environ.get(API_KEY_VARIABLE),
        help=f"key that the gateway wants; default: the variable {API_KEY_VARIABLE}",
    )


def run_say(arguments: argparse.Namespace) -> int:
    """Say the text; return the exit status: 0, 1 after a failure, 2 for a wrong command line."""
    try:
        _say(arguments)
    except SayError as error:
        print(f"speech-gateway say: {error}", file=sys.stderr)  # noqa: T201
        return STATUS_USAGE if isinstance(error, UsageError) else STATUS_FAILED
    except KeyboardInterrupt:
        return STATUS_INTERRUPTED
    return 0


def _say(arguments: argparse.Namespace) -> None:
    # httpx and tqdm stay out of the processes that only serve.
    from gateway.commands.say_client import Voicing, own_gateway, somebody_listens, speak  # noqa: PLC0415

    text = read_text(arguments.text, arguments.file)
    response_format = choose_format(arguments.format, arguments.output)
    voicing = Voicing(
        # Raw samples join without a gap; the file's header is written when its sizes are known.
        response_format="pcm" if response_format == "wav" else response_format,
        voice=arguments.voice,
        speed=arguments.speed,
        api_key=arguments.api_key,
    )
    with ExitStack() as scope:
        # Opened first: a folder that cannot be written to, or no player, is known at once.
        sink = scope.enter_context(_sink(arguments.output, response_format))
        url = arguments.url or DEFAULT_URL
        if not arguments.url and not somebody_listens(url):
            url = scope.enter_context(own_gateway())
        speak(url, text, voicing, sink)


def _sink(output: Path | None, response_format: str) -> Sink:
    from gateway.commands.say_sinks import FileSink, WavSink, find_player  # noqa: PLC0415

    if output is None:
        return find_player()
    return WavSink(output) if response_format == "wav" else FileSink(output)


def read_text(argument: str | None, file: Path | None) -> str:
    """The text, from wherever the command line says.

    Raises:
        UsageError: There is none, there are two, or it cannot be read as UTF-8.
    """
    if argument not in (None, "-") and file is not None:
        raise UsageError("a text and --file: one of them, please")
    if file is None and argument is None and sys.stdin.isatty():
        raise UsageError("nothing to say: give a text, --file, or a pipe")
    try:
        if file is not None:
            text = file.read_bytes().decode()
        elif argument in (None, "-"):
            text = sys.stdin.buffer.read().decode()
        else:
            text = argument or ""
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file or 'standard input'} is not UTF-8 text") from None
    text = text.strip()
    if not text:
        raise UsageError("the text is empty")
    return text


def choose_format(given: str | None, output: Path | None) -> str:
    """The response format: what was given, else what the file's suffix says; wav for playing.

    Raises:
        UsageError: The suffix says nothing, or a format was given for playing.
    """
    if output is None:
        if given not in (None, "wav"):
            raise UsageError("--format is for files: name one with -o")
        return "wav"
    response_format = given or FORMATS.get(output.suffix.lower())
    if response_format is None:
        raise UsageError(
            f"no format is known for {output.name!r}; use --format, or one of {', '.join(FORMATS)}"
        )
    return response_format


def split_text(text: str, limit: int) -> list[str]:
    """Cut a text into parts of at most `limit` characters at the best ends within reach.

    The parts are the text, less the white space at the cuts: at the end of a paragraph, else of a
    sentence, else of a word, else anywhere.
    """
    parts = []
    rest = text.strip()
    while len(rest) > limit:
        cut = _last_cut(rest, limit)
        parts.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return [*parts, rest]


def _last_cut(text: str, limit: int) -> int:
    for pattern in _CUTS:
        ends = [match.end() for match in pattern.finditer(text, 0, limit + 1)]
        # A part of a few words would sound cut off: a weaker end further on is better.
        if ends and ends[-1] > limit // 4:
            return min(ends[-1], limit)
    return limit
