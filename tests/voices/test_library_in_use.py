"""Voices come and go by many hands while others speak with them: never a wrong one."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from gateway.voices.library.library import VoiceLibrary
from gateway.voices.samples.loudness import normalise_recording
from tests.running import Gateway, running_gateway, wait_until
from tests.voices.echo import EchoVoice, pcm_of, running_echo
from tests.voices.recordings import tone, wav

VOICES = 50
STREAMS = 50
PROCESSES = 4
ROUNDS = 2
TEXT = "How do you do, my dear?"


def recording(number: int) -> bytes:
    """A sample that no other voice has: its own pitch and length."""
    samples = tone(1.0 + number * 0.01, 24_000)
    samples[::2] *= 0.5 + number / 200
    return wav(samples)


def expected(number: int) -> bytes:
    """What the engine says with this voice."""
    return pcm_of(normalise_recording(recording(number), param="audio").wav)


# Adds and removes its share of the voices over and over, as another gateway or command would.
WRITER = """
import sys
from pathlib import Path
from gateway.voices.library.library import VoiceLibrary
from tests.voices.test_library_in_use import PROCESSES, ROUNDS, VOICES, recording

folder, share = Path(sys.argv[1]), int(sys.argv[2])
library = VoiceLibrary(folder)
for _ in range(ROUNDS):
    for number in range(share, VOICES, PROCESSES):
        if library.snapshot.find(f"voice {number}"):
            library.remove(f"voice {number}")
        library.add(f"voice {number}", recording(number), transcript="Hello.")
    for number in range(share, VOICES, 2 * PROCESSES):
        library.remove(f"voice {number}")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A library of 50 voices, made an hour ago."""
    library = VoiceLibrary(tmp_path / "voices", now=lambda: time.time() - 3600)
    for number in range(VOICES):
        library.add(f"voice {number}", recording(number), transcript="Hello.")
    return tmp_path / "voices"


@pytest.fixture
def echo(folder: Path) -> Iterator[tuple[str, EchoVoice]]:
    """The engine, reading the folder."""
    with running_echo(folder) as running:
        yield running


@pytest.fixture
def gateway(folder: Path, echo: tuple[str, EchoVoice]) -> Iterator[Gateway]:
    """A gateway that shares the folder with the engine."""
    with running_gateway(upstreams=echo[0], voices_dir=folder) as running:
        yield running


@contextmanager
def read_without_rest(folder: Path) -> Iterator[list[list[str]]]:
    """Reads config.json over and over, as the container does; what was wrong with each read."""
    reads: list[list[str]] = []
    end = threading.Event()

    def run() -> None:
        while not end.wait(0.005):
            try:
                config = json.loads((folder / "config.json").read_bytes())
            except (OSError, ValueError) as error:
                reads.append([repr(error)])
                continue
            faults = [
                name
                for name, entry in config.items()
                if not entry["transcript"] or not (folder / entry["audio_file"]).is_file()
            ]
            reads.append(faults if config else ["empty"])

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield reads
    finally:
        end.set()
        thread.join()


async def speak_until(url: str, done: asyncio.Event) -> tuple[Counter[int], list[str]]:
    """50 streams that ask for one voice after the other; statuses, and what was wrong."""
    statuses: Counter[int] = Counter()
    wrong: list[str] = []
    right = [expected(number) for number in range(VOICES)]
    limits = httpx.Limits(max_connections=STREAMS)

    async def stream(client: httpx.AsyncClient, number: int) -> None:
        while not done.is_set():
            number = (number + 7) % VOICES
            answer = await client.post(
                "/v1/audio/speech",
                json={
                    "model": "tts-1",
                    "input": TEXT,
                    "voice": f"Voice {number}.wav",
                    "response_format": "pcm",
                },
            )
            statuses[answer.status_code] += 1
            if answer.status_code == httpx.codes.OK and answer.content != right[number]:
                heard = right.index(answer.content) if answer.content in right else None
                wrong.append(f"asked for {number}, heard {heard}")
            elif answer.status_code not in {200, 404}:
                wrong.append(answer.text)

    async with (
        httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client,
        asyncio.TaskGroup() as group,
    ):
        for number in range(STREAMS):
            group.create_task(stream(client, number))
    return statuses, wrong


def test_voices_come_and_go_by_four_processes_under_fifty_streams(
    gateway: Gateway, echo: tuple[str, EchoVoice], folder: Path
) -> None:
    """No torn config, no wrong voice, no failure: the right recording, or an honest 404."""

    async def scene() -> tuple[Counter[int], list[str], list[int]]:
        done = asyncio.Event()
        streams = asyncio.create_task(speak_until(gateway.url, done))
        writers = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-c", WRITER, str(folder), str(share)
            )
            for share in range(PROCESSES)
        ]
        codes = [await writer.wait() for writer in writers]
        done.set()
        return *await streams, codes

    with read_without_rest(folder) as reads:
        statuses, wrong, codes = asyncio.run(scene())
    assert codes == [0] * PROCESSES
    assert wrong == []
    assert [faults for faults in reads if faults] == []
    assert len(reads) > VOICES
    assert statuses[200] > STREAMS
    routes = {job.request_id.partition("-")[0] for job in echo[1].jobs}
    assert routes == {"audiospeech", "chatcmpl"}, "voices by name, and as references"
    left = {voice.name for voice in VoiceLibrary(folder).snapshot.voices}
    assert left == {f"voice {n}" for n in range(VOICES) if n % 8 >= PROCESSES}


def test_a_writer_that_is_killed_leaves_the_library_whole(folder: Path) -> None:
    """The lock goes with the process; a half-written file is no part of the library."""
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder), "0"])
        before = (folder / "config.json").stat().st_mtime_ns

        def changed(before: int = before) -> bool:
            return (folder / "config.json").stat().st_mtime_ns != before

        wait_until(changed, "the writer writes")
        writer.kill()
        writer.wait()
        library = VoiceLibrary(folder)
        assert len(library.snapshot.voices) >= VOICES - VOICES // PROCESSES - 1
        library.set_default("voice 1")
        for voice in library.snapshot.voices:
            assert library.read_audio(voice)
    library.purge(unnamed=True)
    assert not [path for path in folder.iterdir() if path.suffix == ".tmp"]
