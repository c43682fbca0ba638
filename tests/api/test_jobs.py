"""Long texts as jobs over real HTTP: steered, downloaded, and gone on with after a kill."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import av
import httpx
import pytest

from gateway.speech.jobs.store import Store
from loadtest.processes import ServeProcess, engine_state, running_serve
from tests.asking import KEY
from tests.running import Gateway, running_engine, running_gateway, wait_until

BASE = "/v1/audio/jobs"
LEASE_SECONDS = 0.5


def text_of(characters: int) -> str:
    """A text of chapters, no two sentences of it alike."""
    written: list[str] = []
    length = number = 0
    while length < characters:
        number += 1
        written.append(
            f"\n\nChapter {number // 60 + 1}\n\n"
            if number % 60 == 1
            else f"Sentence number {number} has something else to say than all others. "
        )
        length += len(written[-1])
    return "".join(written)[:characters].strip()


TEXT = text_of(6000)


@pytest.fixture(scope="module")
def client(engine: str) -> Iterator[httpx.Client]:
    """A client of a gateway with jobs."""
    with (
        running_gateway(upstreams=engine, show_texts=True) as gateway,
        httpx.Client(base_url=gateway.url, timeout=120) as client,
    ):
        yield client


def submit(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    """A new job."""
    answer = client.post(BASE, json={"voice": "mabel", "input": TEXT, **fields})
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"{BASE}/{job['id']}"
    return job


def finished(client: httpx.Client, job_id: str) -> dict[str, Any]:
    """A job at its end."""

    def job() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(f"{BASE}/{job_id}").json()
        return found if found["state"] in {"completed", "failed", "cancelled"} else None

    over = wait_until(job, "the job is over")
    assert isinstance(over, dict)
    return over


def test_a_job_becomes_one_file_with_chapters(client: httpx.Client) -> None:
    """Events tell how far it is; ranges of the file can be fetched; other formats are encoded."""
    job = submit(client, response_format="wav", title="A book", chapter_pause_seconds=2.0)
    events = client.get(f"{BASE}/{job['id']}/events").text.split("\n\n")
    assert {event.split("\n")[0] for event in events if event} <= {
        "event: progress",
        "event: completed",
        ": the job goes on",
    }
    over = json.loads(events[-2].split("data: ")[1])
    assert (over["state"], over["progress"], over["title"]) == ("completed", 1.0, "A book")
    assert over["segments"] == over["segments_made"]
    assert [chapter["title"] for chapter in over["chapters"]] == ["Chapter 1", "Chapter 2"]
    assert 0 < over["chapters"][1]["start_seconds"] < over["audio_seconds"]
    whole = client.get(over["download_url"])
    assert whole.headers["accept-ranges"] == "bytes"
    assert len(whole.content) == over["bytes"]
    part = client.get(over["download_url"], headers={"Range": "bytes=-100"})
    assert (part.status_code, part.content) == (206, whole.content[-100:])
    flac = client.get(over["download_url"], params={"response_format": "flac"})
    with av.open(io.BytesIO(flac.content), "r") as container:
        samples = b"".join(
            bytes(frame.planes[0])[: frame.samples * 2] for frame in container.decode(audio=0)
        )
    assert samples == whole.content[44:]


def test_a_file_of_markdown_is_a_job(client: httpx.Client) -> None:
    """As a form; its headings are chapters; what is no text is refused."""
    markdown = "# The first\n\nSome **words** here.\n\n## The second\n\nAnd some more."
    fields = {"voice": "mabel", "input_format": "markdown", "response_format": "pcm"}
    files = {"file": ("book.md", ("\ufeff" + markdown).encode())}
    answer = client.post(BASE, data=fields, files=files)
    assert answer.status_code == 202, answer.text
    over = finished(client, answer.json()["id"])
    assert over["state"] == "completed"
    assert [chapter["title"] for chapter in over["chapters"]] == ["The first", "The second"]
    binary = client.post(BASE, data=fields, files={"file": ("x.txt", b"\xff\xfe\x00")})
    assert binary.status_code == 400
    assert binary.json()["error"]["param"] == "file"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": " "}, "input"),
        ({"input": "x" * 2_000_001}, "input"),
        ({"voice": "nobody"}, "voice"),
        ({"chapter_pause_seconds": 99}, "chapter_pause_seconds"),
        ({"paragraph_pause_seconds": -1}, "paragraph_pause_seconds"),
        ({"input_format": "html"}, "input_format"),
        ({"title": "x" * 300}, "title"),
        ({"input": "\ud800"}, "input"),
    ],
)
def test_a_job_that_cannot_be_is_refused(
    client: httpx.Client, fields: dict[str, Any], param: str
) -> None:
    """With the field's name, and nothing stored."""
    before = len(client.get(BASE, params={"limit": 100}).json()["data"])
    body = json.dumps({"voice": "mabel", "input": TEXT, **fields}).encode()
    answer = client.post(BASE, content=body, headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]["param"] == param
    assert len(client.get(BASE, params={"limit": 100}).json()["data"]) == before


def test_lists_are_paged_and_filtered(client: httpx.Client) -> None:
    """By state, after an id; deleted jobs are gone with their files."""
    ids = [finished(client, submit(client, input="A short one.")["id"])["id"] for _ in range(3)]
    page = client.get(BASE, params={"limit": 2}).json()
    assert [job["id"] for job in page["data"]] == ids[:0:-1]
    assert page["has_more"]
    rest = client.get(BASE, params={"after": ids[1], "limit": 1}).json()
    assert [job["id"] for job in rest["data"]] == ids[:1]
    assert client.get(BASE, params={"state": "paused"}).json()["data"] == []
    assert client.get(BASE, params={"state": "lost"}).status_code == 400
    assert client.get(BASE, params={"limit": "many"}).status_code == 400
    for job_id in ids:
        assert client.delete(f"{BASE}/{job_id}").json()["deleted"]
        assert client.get(f"{BASE}/{job_id}").status_code == 404
        assert client.delete(f"{BASE}/{job_id}").status_code == 404


def test_a_job_is_paused_resumed_cancelled_and_retried() -> None:
    """Each state refuses what makes no sense in it."""
    with (
        running_engine("--voice", "simulated", "--tokens-per-second", "100") as slow,
        running_gateway(upstreams=slow.address) as gateway,
        httpx.Client(base_url=gateway.url, timeout=120) as slow_client,
    ):
        job_id = submit(slow_client)["id"]
        _is_running(gateway)
        assert slow_client.get(f"{BASE}/{job_id}/download").status_code == 409
        assert slow_client.post(f"{BASE}/{job_id}/retry").status_code == 409
        assert slow_client.post(f"{BASE}/{job_id}/pause").json()["state"] == "paused"
        wait_until(lambda: engine_state(slow.address)["running"] == 0, "the engine is free")
        assert slow_client.post(f"{BASE}/{job_id}/pause").status_code == 409
        assert slow_client.post(f"{BASE}/{job_id}/resume").json()["state"] == "pending"
        _is_running(gateway)
        assert slow_client.post(f"{BASE}/{job_id}/cancel").json()["state"] == "cancelled"
        wait_until(lambda: engine_state(slow.address)["running"] == 0, "the engine is free")
        assert slow_client.post(f"{BASE}/{job_id}/retry").json()["state"] == "pending"
        _is_running(gateway)
        assert slow_client.delete(f"{BASE}/{job_id}").json()["deleted"]
        wait_until(lambda: engine_state(slow.address)["running"] == 0, "the engine is free")
        assert not list(Path(gateway.runtime.settings.data_dir, "jobs").glob("*/"))


def _is_running(gateway: Gateway) -> None:
    wait_until(lambda: gateway.runtime.service.in_flight > 0, "it is spoken")


def test_a_job_is_its_owner_s_alone(engine: str) -> None:
    """Another key finds none of its id, whatever it wants of it, and has it in no list."""
    keys = f"alice={KEY},bob={KEY}-of-bob"
    with running_gateway(upstreams=engine, api_keys=keys) as gateway:
        alice, bob = (
            httpx.Client(base_url=gateway.url, headers={"api-key": key}, timeout=120)
            for key in (KEY, f"{KEY}-of-bob")
        )
        with alice, bob:
            job = submit(alice, input="Hello there.", response_format="pcm")
            assert finished(alice, job["id"])["state"] == "completed"
            for path in ("", "/download", "/events"):
                assert bob.get(f"{BASE}/{job['id']}{path}").status_code == 404
            assert bob.delete(f"{BASE}/{job['id']}").status_code == 404
            listed = [each.get(BASE).json()["data"] for each in (alice, bob)]
            assert [len(jobs) for jobs in listed] == [1, 0]
            assert alice.get(f"{BASE}/{job['id']}/download").status_code == 200


def test_the_metrics_tell_of_jobs(client: httpx.Client) -> None:
    """By state, and the segments that were made."""
    finished(client, submit(client, input="A short one.")["id"])

    def told() -> bool:
        lines = client.get("/metrics").text.splitlines()
        made = [
            line for line in lines if line.startswith('gateway_job_segments_total{outcome="made')
        ]
        completed = [line for line in lines if line.startswith('gateway_jobs{state="completed"')]
        return bool(made and completed) and all(
            float(line.split()[-1]) > 0 for line in (*made, *completed)
        )

    wait_until(told, "the metrics know the job")


def test_a_folder_that_cannot_be_used_is_told_and_speech_goes_on(
    engine: str, tmp_path: Path
) -> None:
    """Jobs are refused with 503; nothing else suffers."""
    (tmp_path / "jobs").write_text("in the way")
    with (
        running_gateway(upstreams=engine, data_dir=tmp_path) as gateway,
        httpx.Client(base_url=gateway.url, timeout=120) as client,
    ):
        answer = client.post(BASE, json={"voice": "mabel", "input": TEXT})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_jobs")
        speech = client.post(
            "/v1/audio/speech", json={"model": "tts-1", "input": "Hello.", "voice": "mabel"}
        )
        assert speech.status_code == 200


def _serving(engine: str, data: Path) -> AbstractContextManager[ServeProcess]:
    return running_serve(
        upstreams=engine,
        data_dir=data,
        job_lease_seconds=LEASE_SECONDS,
        probe_interval_seconds=0.2,
    )


def _kill(serve: ServeProcess) -> None:
    os.kill(serve.process.pid, signal.SIGKILL)
    serve.process.wait()


def _job(serve: ServeProcess, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{serve.url}{BASE}/{job_id}", timeout=120).json()
    return found


def _new(serve: ServeProcess, fields: dict[str, Any]) -> str:
    answer = httpx.post(serve.url + BASE, json=fields, timeout=120)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def _complete(serve: ServeProcess, job_id: str) -> bytes:
    wait_until(lambda: _job(serve, job_id)["state"] == "completed", "it is complete", 300)
    return httpx.get(f"{serve.url}{BASE}/{job_id}/download", timeout=120).content


def test_another_gateway_goes_on_when_the_owner_is_killed(engine: str, tmp_path: Path) -> None:
    """Of two on one data folder; the audio is that of an unbroken run."""
    fields = {"voice": "mabel", "input": text_of(20_000), "response_format": "pcm"}
    with _serving(engine, tmp_path) as before:
        unbroken = _complete(before, _new(before, fields))
    slow = running_engine("--voice", "simulated", "--tokens-per-second", "300")
    with slow as slow_engine, _serving(slow_engine.address, tmp_path) as owner:
        job_id = _new(owner, fields)
        wait_until(lambda: _job(owner, job_id)["segments_made"] > 0, "it is worked on")
        with _serving(engine, tmp_path) as other:
            job = _job(other, job_id)
            assert 0 < job["segments_made"] < job["segments"]
            _kill(owner)
            assert _complete(other, job_id) == unbroken


def test_the_first_request_may_be_for_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application says that it has started when its jobs are at hand, not before."""
    found, opened, told = threading.Event(), threading.Event(), threading.Event()

    class LateStore(Store):
        def __init__(self, folder: Path, most_bytes: int) -> None:
            found.set()
            assert opened.wait(120)
            super().__init__(folder, most_bytes)

    monkeypatch.setattr("gateway.speech.jobs.store_thread.Store", LateStore)
    gateway = Gateway(upstreams="http://127.0.0.1:1", data_dir=tmp_path)

    def start() -> None:
        gateway.start(ready=False)
        told.set()

    starting = threading.Thread(target=start)
    starting.start()
    try:
        assert found.wait(120)
        assert not told.wait(0.5)
        opened.set()
        assert told.wait(120)
        assert httpx.get(gateway.url + BASE).status_code == 200
    finally:
        opened.set()
        starting.join()
        gateway.stop()


def _killed_at_random(engine: str, folder: Path, kills: int, characters: int) -> None:
    """A job survives kills of its gateway."""
    fields = {"voice": "mabel", "input": text_of(characters), "response_format": "pcm"}
    chance = random.Random(20_261_125)  # noqa: S311  (places of kills)
    with _serving(engine, folder) as first:
        unbroken = _complete(first, _new(first, fields))
        job_id = _new(first, fields)
        segments = _job(first, job_id)["segments"]
        _kill(first)
    made = 0
    for _ in range(kills):
        with _serving(engine, folder) as serve:
            before = made
            # More may be made than was waited for: never wait for what there is not.
            enough = min(segments - 1, before + chance.randint(0, (segments - 2) // kills))

            def so_far() -> int:
                return int(_job(serve, job_id)["segments_made"])

            wait_until(lambda: so_far() >= enough, "it goes on")  # noqa: B023
            made = so_far()
            assert made >= before, "what was made once stays made"
            _kill(serve)
    with _serving(engine, folder) as last:
        assert _complete(last, job_id) == unbroken
    files = [path.name.split("-")[1] for path in (folder / "jobs" / job_id).glob("segment-*")]
    assert len(files) == len(set(files)) == segments


def test_a_job_survives_three_kills(tmp_path: Path) -> None:
    """No segment is lost or doubled, and the samples are those of an unbroken run."""
    with running_engine("--voice", "simulated", "--tokens-per-second", "20000") as engine:
        _killed_at_random(engine.address, tmp_path, 3, 30_000)


@pytest.mark.prove
def test_a_job_survives_fifty_kills(tmp_path: Path) -> None:
    """The same, far more often, before an engine that is slow enough for all of them."""
    with running_engine("--voice", "simulated", "--tokens-per-second", "3000") as engine:
        _killed_at_random(engine.address, tmp_path, 50, 100_000)
