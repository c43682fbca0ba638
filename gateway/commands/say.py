"""The command `say`: one speech request to a gateway, streamed to a file or to a player."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import httpx
from tqdm import tqdm

STATUS_FAILED, STATUS_USAGE, STATUS_INTERRUPTED = 1, 2, 130
TIMEOUTS = httpx.Timeout(5.0, read=90.0)  # the gateway itself gives up after 30 s twice
FORMATS = {".wav": "pcm", ".pcm": "pcm", ".raw": "pcm", ".mp3": "mp3", ".aac": "aac",
           ".opus": "opus", ".ogg": "opus", ".flac": "flac"}  # fmt: skip
# ffplay's s16le is mono unless told otherwise, in every release; the option changed its name.
PLAYERS = {
    "ffplay": "-nodisp -autoexit -loglevel error -f s16le -sample_rate 24000 -i -",
    "aplay": "-q -t raw -f S16_LE -c 1 -r 24000 -",
    "paplay": "--raw --format=s16le --channels=1 --rate=24000",
}
Write = Callable[[bytes], object]


class SayError(Exception):
    """What went wrong, in one line, and the exit status if it is not 1."""


def add_say_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `speech-gateway say`."""
    parser.add_argument("text", nargs="?", help="what to say; `-` or nothing reads standard input")
    parser.add_argument("--file", type=Path, help="read the text from this file (UTF-8)")
    parser.add_argument("-o", "--output", type=Path, help="write a file, in the suffix's format")
    parser.add_argument("--voice", help="a voice that the gateway lists; default: its own default")
    parser.add_argument("--speed", type=float, help="tempo from 0.25 to 4; the pitch stays")
    parser.add_argument("--url", default="http://127.0.0.1:8888", help="address of the gateway")
    parser.add_argument("--api-key", default=os.environ.get("SPEECH_GATEWAY_API_KEY"))


def run_say(arguments: argparse.Namespace) -> int:
    """Say the text; return the exit status: 0, 1 after a failure, 2 for a wrong command line."""
    try:
        suffix = arguments.output.suffix.lower() if arguments.output else ".wav"
        if suffix not in FORMATS:
            raise SayError(f"the suffix is none of {', '.join(FORMATS)}", STATUS_USAGE)
        text = read_text(arguments.text, arguments.file)
        # WAV is asked for as samples: its sizes are known when the last one has come.
        # Without a model the answer would be that of another server (docs/compatibility.md).
        body: dict[str, Any] = {"model": "tts-1", "input": text, "response_format": FORMATS[suffix]}
        body |= {k: v for k in ("voice", "speed") if (v := getattr(arguments, k)) is not None}
        headers = {"Authorization": f"Bearer {arguments.api_key}"} if arguments.api_key else {}
        with _file(arguments.output) if arguments.output else _player() as write:
            url = arguments.url.rstrip("/").removesuffix("/v1") + "/v1/audio/speech"
            _speak(url, headers, body, write)
    except SayError as error:
        print(f"speech-gateway say: {error.args[0]}", file=sys.stderr)
        return error.args[-1] if len(error.args) > 1 else STATUS_FAILED
    except KeyboardInterrupt:
        return STATUS_INTERRUPTED
    return 0


def read_text(argument: str | None, file: Path | None) -> str:
    """The text of the command line, the file or standard input."""
    if argument not in {None, "-"} and file is not None:
        raise SayError("a text and --file: one of them, please", STATUS_USAGE)
    if argument in {None, "-"}:
        if file is None and argument is None and sys.stdin.isatty():
            raise SayError("nothing to say: give a text, --file, or a pipe", STATUS_USAGE)
        try:
            argument = (file.read_bytes() if file else sys.stdin.buffer.read()).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise SayError(f"cannot read {file or 'the input'}: {error}", STATUS_USAGE) from None
    if text := (argument or "").strip():
        return text
    raise SayError("the text is empty", STATUS_USAGE)


def _speak(url: str, headers: dict[str, str], body: dict[str, Any], write: Write) -> None:
    unit, size = ("s", 48_000) if body["response_format"] == "pcm" else ("KiB", 1024)
    form = "{n:.1f} " + unit + " of audio in {elapsed}"
    try:
        with (
            httpx.stream("POST", url, json=body, headers=headers, timeout=TIMEOUTS) as answer,
            tqdm(disable=None, leave=False, bar_format=form) as bar,  # None: on terminals alone
        ):
            if answer.status_code != httpx.codes.OK:
                raise SayError(f"{_reason(answer)} (status {answer.status_code})")
            for data in answer.iter_raw():
                write(data)
                bar.update(len(data) / size)
        if not answer.num_bytes_downloaded:
            raise SayError(f"{url} answered without any audio")
    except httpx.ConnectError:
        raise SayError(f"no gateway at {url}: start one with `speech-gateway serve`") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SayError(f"the answer of {url} broke off: {error or type(error)}") from None
    except OSError as error:
        raise SayError(f"the audio cannot be written or played: {error.strerror}") from None


def _reason(answer: httpx.Response) -> str:
    """An error's message in one line, with nothing that a terminal would obey."""
    answer.read()
    message = answer.reason_phrase
    with suppress(ValueError, LookupError, TypeError):
        message = str(answer.json()["error"]["message"])
    return "".join(c if c.isprintable() else " " for c in message[:1000])


@contextmanager
def _file(path: Path) -> Iterator[Write]:
    """A file that takes its name only when it is complete."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            if path.suffix.lower() != ".wav":
                yield file.write
            else:
                with wave.open(file, "wb") as sound:
                    sound.setparams((1, 2, 24_000, 0, "NONE", ""))
                    yield sound.writeframesraw
        part.replace(path)
    except OSError as error:
        raise SayError(f"cannot write {path}: {error.strerror}") from None
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def _player() -> Iterator[Write]:
    """The first player that is installed; opened before anything is spoken."""
    found = next(filter(shutil.which, PLAYERS), None)
    if found is None:
        raise SayError(f"no player found ({', '.join(PLAYERS)}): write a file with -o")
    with Popen([found, *PLAYERS[found].split()], stdin=PIPE, bufsize=0) as process:  # noqa: S603
        try:
            yield process.stdin.write  # type: ignore[union-attr]
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise SayError(f"the player {found} failed with status {process.returncode}")
