"""The scripts in the documentation of travisvn's server, run as they are but for the address.

Part of `make prove`, which fetches them (`scripts/install-clients prove`).
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.scripts import ROOT
from tests.listen import decode
from tests.running import Gateway, running_engine, running_gateway
from tests.voices.recordings import by_ffmpeg, tone, wav

FOLDER = ROOT / ".cache" / "clients" / "travisvn_front_end"
ITS_ADDRESS = "localhost:4123"
DEADLINE_SECONDS = 60.0
SHORTEST_SECONDS = 0.3  # of all its texts
BAD_REQUEST = 400
# What is run of each document.
DOCUMENTS = {
    "README.md": {"bash": 27, "python": 6},
    "docs/API_README.md": {"bash": 10, "python": 1, "javascript": 1},
    "docs/DOCKER_README.md": {"bash": 12},
    "docs/MULTILINGUAL.md": {"bash": 11, "python": 3},
    "docs/MULTILINGUAL_TESTING_GUIDE.md": {"bash": 4},
    "docs/STATUS_API.md": {"bash": 6},
    "docs/STREAMING_API.md": {"bash": 6, "python": 3, "typescript": 1},
    "docs/VOICE_LIBRARY_MANAGEMENT.md": {"bash": 9},
    "docs/VOICE_UPLOAD_SUMMARY.md": {"bash": 4, "python": 1},
}
# What its own server refuses, too.
REFUSED = {
    ("docs/DOCKER_README.md", 179): 422,  # a voice's name is `voice_name`, not `name`
    ("docs/VOICE_LIBRARY_MANAGEMENT.md", 106): 404,  # the voice is deleted some lines before
    ("docs/VOICE_LIBRARY_MANAGEMENT.md", 117): 404,
    ("docs/VOICE_LIBRARY_MANAGEMENT.md", 127): 404,
    ("docs/VOICE_UPLOAD_SUMMARY.md", 74): 404,  # it has no /v1/audio/speech/json any more
}
# The functions that it calls are the reader's own, or it is a part of its front end.
FRAGMENTS = ("./services/", "useQuery", "ttsService", "monitorStreaming", "MediaSource")
# Its script plays through a sound card: this takes what is played and keeps it.
SOUND_CARD = """
class RawOutputStream:
    def __init__(self, samplerate, channels, dtype):
        assert (samplerate, channels, dtype) == (24000, 1, "int16")
    def __enter__(self):
        self.file = open("played.pcm", "wb")
        return self.file
    def __exit__(self, *_):
        self.file.close()
"""

pytestmark = pytest.mark.prove


@dataclass(frozen=True, slots=True)
class Piece:
    """A script of a document.

    Attributes:
        line: Where it begins.
        language: `bash`, `python`, `javascript` or `typescript`.
        text: As the document has it.
    """

    line: int
    language: str
    text: str


def pieces(document: str) -> Iterator[Piece]:
    """Scripts and curl's commands that ask the server, in the document's order."""
    text = (FOLDER / "checkout" / document).read_text()
    for block in re.finditer(r"^([ \t]*)```(\w+)\n(.*?)^[ \t]*```", text, re.DOTALL | re.MULTILINE):
        line, language, inner = text[: block.start()].count("\n") + 2, block[2], block[3]
        if language == "bash":
            yield from commands(line, inner)
        elif re.search(r"import requests|fetch\(", inner) and not any(
            word in inner for word in FRAGMENTS
        ):
            yield Piece(line, language, inner)


def commands(line: int, block: str) -> Iterator[Piece]:
    """Commands with curl in a block, without the programs that show or play what it gets."""
    rows = block.splitlines()
    for first, row in enumerate(rows):
        if not row.strip().startswith("curl "):
            continue
        command = row
        for following in rows[first + 1 :]:
            if complete(command):
                break
            command += "\n" + following
        if ITS_ADDRESS in command:
            command = re.sub(r"\s*(\\\n\s*)?\| (ffplay|grep)\b.*", "", command)
            yield Piece(line + first, "bash", command)


def complete(command: str) -> bool:
    """Whether a command ends here: no open quote, and no line that goes on."""
    try:
        shlex.split(command)
    except ValueError:
        return False
    return not command.endswith("\\")


def programs(piece: Piece, address: str, folder: Path) -> list[str]:
    """The command line that runs a script in a folder."""
    text = re.sub("/?path/to/", "", piece.text.replace(ITS_ADDRESS, address))
    if piece.language == "bash":
        return ["bash", "-c", text]
    if piece.language == "python":
        (folder / "sounddevice.py").write_text(SOUND_CARD)
        (folder / "script.py").write_text(text)
        return [sys.executable, "-X", "utf8", "script.py"]
    # A function of a page: its paths are the server's, and it is called once.
    called = re.search(r"async function (\w+)", text)
    text = text.replace("fetch('/", f"fetch('http://{address}/")
    if called:
        text += f"\nconsole.log((await {called[1]}('Hello from a page.')).length + ' bytes');\n"
    else:
        text += "\nconsole.log('status: ' + response.status);\n"
    (folder / "script.mts").write_text(text)
    esbuild = FOLDER / "node_modules" / ".bin" / "esbuild"
    return ["bash", "-c", f"{esbuild} script.mts --log-level=error > script.mjs; node script.mjs"]


def recordings(piece: Piece, folder: Path) -> set[str]:
    """Make the recordings that a script names, and what curl reads at its start."""
    (folder / ".curlrc").write_text('silent\nshow-error\nwrite-out = "%{stderr}\\n%{http_code}"\n')
    for name in re.findall(r'[@"]([\w/-]+\.(?:wav|mp3))"(?!, "wb")', piece.text):
        samples = tone(3.0, 24_000)
        mp3 = name.endswith(".mp3")
        sound = by_ffmpeg(samples, 24_000, "mp3", "libmp3lame") if mp3 else wav(samples)
        (folder / Path(name).name).write_bytes(sound)
    return {path.name for path in folder.iterdir()}


def fault_of(document: str, piece: Piece, gateway: Gateway, folder: Path) -> str | None:
    """Run a script; what is wrong with what it said and wrote, or None."""
    given = recordings(piece, folder)
    ended = subprocess.run(
        programs(piece, gateway.url.removeprefix("http://"), folder),
        cwd=folder,
        env={**os.environ, "CURL_HOME": str(folder)},
        capture_output=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    said = ended.stdout.decode(errors="replace")
    if ended.returncode:
        return ended.stderr.decode()[-500:]
    told = ended.stderr.decode().split()[-1:] if piece.language == "bash" else []
    statuses = [*map(int, told), *map(int, re.findall(r": (\d{3})$", said, re.MULTILINE))]
    expected = REFUSED.get((document, piece.line))
    if expected or any(status >= BAD_REQUEST for status in statuses):
        return None if statuses == [expected] else f"{statuses} {said}"
    if (
        re.search(r"error|failed|no audio|\b0 (audio chunks|bytes)", said, re.IGNORECASE)
        and piece.language != "bash"
    ):
        return said
    for path in folder.iterdir():
        if path.name in given or path.suffix not in {".wav", ".mp3", ".pcm"}:
            continue
        if path.suffix == ".pcm":
            seconds = path.stat().st_size / 48_000
        else:
            samples, rate = decode(path.read_bytes(), "wav")
            seconds = len(samples) / rate
        if seconds < SHORTEST_SECONDS:
            return f"{path.name}: {seconds} s"
    return None


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    """A simulated engine."""
    if not (FOLDER / ".installed").exists() or shutil.which("curl") is None:
        pytest.skip("needs curl and travisvn's server: `scripts/install-clients prove`")
    with running_engine("--voice", "simulated", "--tokens-per-second", "4000") as running:
        yield running.address


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_scripts_of_a_document_do_what_it_says(
    engine: str, document: str, tmp_path: Path
) -> None:
    """Each succeeds, and what it writes is a recording that plays."""
    faults: dict[int, str] = {}
    run = Counter[str]()
    with running_gateway(upstreams=engine, voices_dir=tmp_path / "voices") as gateway:
        for piece in pieces(document):
            folder = tmp_path / str(piece.line)
            folder.mkdir()
            run[piece.language] += 1
            fault = fault_of(document, piece, gateway, folder)
            if fault:
                faults[piece.line] = fault
    assert faults == {}
    assert run == DOCUMENTS[document]
