"""Long texts in the background: made, watched, paused, fetched and forgotten."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from typing import Any

import av
import httpx
import pytest

from engines.simulator.waveform import expected_pcm
from gateway.speech.jobs.jobs import MOST_OPEN
from loadtest.processes import engine_state
from tests.running import Gateway, running_engine, running_gateway, wait_until

LONG = "This sentence is one of many that make a long text. " * 60
BASE = "/audio/speech/long"
ITEM = {"job_id", "status", "text_preview", "text_length", "progress_percentage", "download_url"}
LIST = {"jobs", "total_jobs", "active_jobs", "completed_jobs"}
CREATED = {"job_id", "status", "message", "total_chunks", "status_url", "sse_url"}
STATUS = {"job_id", "status", "progress", "metadata", "download_url", "can_pause", "can_resume"}
# Method, path behind the base, request, status, keys; {id} is a job that is complete.
ROUTES: tuple[tuple[str, str, dict[str, Any], int, set[str]], ...] = (
    ("POST", "", {"json": {"input": LONG}}, 200, CREATED),
    ("GET", "", {"params": {"status": "completed", "limit": 5}}, 200, LIST),
    ("GET", "-history", {}, 200, LIST),
    ("GET", "-history/stats", {}, 200, {"total_jobs", "completed_jobs", "success_rate_percentage"}),
    ("GET", "/{id}", {}, 200, STATUS),
    ("GET", "/{id}/details", {}, 200, {"metadata", "chunks", "input_text", "error_log"}),
    ("PATCH", "/{id}", {"json": {"display_name": "Book"}}, 200, {"success", "status"}),
    ("PUT", "/{id}/pause", {}, 409, {"error"}),
    ("PUT", "/{id}/resume", {}, 409, {"error"}),
    ("POST", "/{id}/retry", {}, 200, CREATED),
    (
        "POST",
        "/bulk",
        {"json": {"job_ids": ["{id}", "x"], "action": "archive", "confirm": True}},
        200,
        {"success_count", "failed_count", "total_count", "failed_jobs", "message"},
    ),
    ("GET", "/{id}/download", {}, 200, set()),
    ("GET", "/{id}/sse", {}, 200, set()),
    ("DELETE", "/{id}", {"params": {"action": "delete"}}, 200, {"message"}),
    ("GET", "/{id}", {}, 404, {"error"}),
)


@pytest.fixture
def jobs(client: httpx.Client) -> Iterator[httpx.Client]:
    """A client that leaves no job behind."""
    yield client
    for job in client.get(BASE, params={"limit": 100}).json()["jobs"]:
        client.delete(f"{BASE}/{job['job_id']}", params={"action": "delete"}).raise_for_status()


def create(client: httpx.Client, **fields: Any) -> str:
    """A new job's id."""
    answer = client.post(BASE, json={"input": LONG, **fields})
    answer.raise_for_status()
    assert answer.json()["status"] == "pending"
    return str(answer.json()["job_id"])


def finished(client: httpx.Client, job_id: str) -> dict[str, Any]:
    """A job's status once it is over."""

    def status() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(f"{BASE}/{job_id}").json()
        return found if found["status"] in {"completed", "failed", "cancelled"} else None

    over = wait_until(status, "the job is over")
    assert isinstance(over, dict)
    return over


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_every_route_answers_in_its_shape(jobs: httpx.Client, prefix: str) -> None:
    """Under both names."""
    job_id = create(jobs)
    assert finished(jobs, job_id)["status"] == "completed"
    for method, path, request, status, keys in ROUTES:
        told = json.loads(json.dumps(request).replace("{id}", job_id))
        answer = jobs.request(method, prefix + BASE + path.replace("{id}", job_id), **told)
        assert answer.status_code == status, f"{method} {path}: {answer.text[:300]}"
        if keys:
            assert keys <= set(answer.json()), path


@pytest.mark.parametrize("response_format", ["wav", "mp3", "ogg", None])
def test_the_file_is_the_whole_text(jobs: httpx.Client, response_format: str | None) -> None:
    """In the format that was asked for, MP3 otherwise; a WAV file with exact sizes."""
    job_id = create(jobs, response_format=response_format, voice="en_woman")
    status = finished(jobs, job_id)
    assert status["download_url"] == f"{BASE}/{job_id}/download"
    answer = jobs.get(status["download_url"])
    content = answer.content
    assert int(answer.headers["content-length"]) == len(content)
    ending = "wav" if response_format == "wav" else "mp3"
    assert answer.headers["content-disposition"].endswith(f'.{ending}"')
    seconds = status["metadata"]["output_duration_seconds"]
    likely = len(expected_pcm(LONG.strip(), "en_woman")) / 48_000
    assert seconds == pytest.approx(likely, rel=0.1)
    if ending == "wav":
        assert struct.unpack("<I", content[4:8])[0] == len(content) - 8
        assert struct.unpack("<I", content[40:44])[0] == len(content) - 44
    with av.open(io.BytesIO(content), "r") as container:
        assert container.duration is not None
        assert container.duration / 1_000_000 == pytest.approx(seconds, abs=0.3)


def test_events_tell_of_progress_until_it_is_complete(jobs: httpx.Client) -> None:
    """A client that watches hears the end, and the stream ends."""
    job_id = create(jobs)
    answer = jobs.get(f"{BASE}/{job_id}/sse")
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [event.split("\n") for event in answer.text.split("\n\n") if event]
    names = [lines[0] for lines in events]
    assert names[-1] == "event: completed"
    assert set(names[:-1]) <= {"event: progress"}
    assert json.loads(events[-1][1][6:])["status"] == "completed"


@pytest.fixture(scope="module")
def slow() -> Iterator[tuple[Gateway, httpx.Client]]:
    """A gateway whose engine needs minutes for a long text."""
    with (
        running_engine("--voice", "simulated", "--tokens-per-second", "50") as engine,
        running_gateway(upstreams=engine.address) as gateway,
        httpx.Client(base_url=gateway.url, timeout=120) as client,
    ):
        yield gateway, client


def test_a_job_that_runs_can_be_paused_resumed_and_cancelled(
    slow: tuple[Gateway, httpx.Client],
) -> None:
    """Its slot is free at once, and each state refuses what makes no sense in it."""
    gateway, client = slow
    job_id = create(client)

    def running() -> bool:
        return gateway.runtime.service.in_flight > 0

    wait_until(running, "it is spoken")
    assert client.get(f"{BASE}/{job_id}/download").status_code == 409
    assert client.post(f"{BASE}/{job_id}/retry").status_code == 409
    client.put(f"{BASE}/{job_id}/pause").raise_for_status()
    wait_until(lambda: not running(), "its slot is free")
    status = client.get(f"{BASE}/{job_id}").json()
    assert (status["status"], status["can_resume"], status["can_pause"]) == ("paused", True, False)
    assert client.put(f"{BASE}/{job_id}/pause").status_code == 409
    client.put(f"{BASE}/{job_id}/resume").raise_for_status()
    wait_until(running, "it is spoken again")
    client.delete(f"{BASE}/{job_id}").raise_for_status()
    wait_until(lambda: not running(), "its slot is free")
    assert client.get(f"{BASE}/{job_id}").json()["status"] == "cancelled"
    assert client.get(f"{BASE}/{job_id}/sse").text.startswith("event: error")
    client.delete(f"{BASE}/{job_id}?action=delete").raise_for_status()


def test_jobs_are_bounded_and_texts_masked(slow: tuple[Gateway, httpx.Client]) -> None:
    """One too many is told to come back; a place is free when one is over."""
    _, client = slow
    ids = [create(client) for _ in range(MOST_OPEN)]
    refused = client.post(BASE, json={"input": LONG})
    assert refused.status_code == 429
    assert refused.headers["retry-after"]
    listed = client.get(BASE, params={"limit": 100}).json()
    assert len(listed["jobs"]) == listed["active_jobs"] == MOST_OPEN
    assert {job["text_preview"] for job in listed["jobs"]} == {"[hidden]"}
    assert client.get(f"{BASE}/{ids[0]}/details").json()["input_text"] == "[hidden]"
    client.delete(f"{BASE}/{ids[0]}").raise_for_status()
    ids.append(create(client))
    for start in (0, 50):
        request = {"job_ids": ids[start : start + 50], "action": "delete", "confirm": True}
        client.post(f"{BASE}/bulk", json=request).raise_for_status()
    assert client.get(BASE).json()["total_jobs"] == 0


def test_a_job_whose_engine_fails_says_so(jobs: httpx.Client) -> None:
    """It is an error, not a file; it can be repeated as a new job."""
    job_id = create(jobs, input=f"fault-error {LONG}")
    status = finished(jobs, job_id)
    assert status["status"] == "failed"
    assert status["metadata"]["error"]
    assert status["download_url"] is None
    assert jobs.get(f"{BASE}/{job_id}/download").status_code == 409
    again = jobs.post(f"{BASE}/{job_id}/retry").json()["job_id"]
    metadata = finished(jobs, again)["metadata"]
    assert (metadata["original_job_id"], metadata["retry_count"]) == (job_id, 1)


def test_a_key_sees_its_own_jobs_alone() -> None:
    """What somebody has read out is nobody else's business."""
    keys = "anna=sg-for-anna-0123456789,bert=sg-for-bert-0123456789"
    with (
        running_engine("--voice", "simulated", "--tokens-per-second", "4000") as engine,
        running_gateway(upstreams=engine.address, api_keys=keys) as gateway,
        httpx.Client(base_url=gateway.url, timeout=120) as client,
    ):
        anna, bert = (
            {"Authorization": f"Bearer sg-for-{name}-0123456789"} for name in ("anna", "bert")
        )
        job_id = client.post(BASE, json={"input": LONG}, headers=anna).json()["job_id"]
        assert client.get(f"{BASE}/{job_id}", headers=anna).status_code == 200
        for path in ("", "/download", "/details", "/sse"):
            assert client.get(f"{BASE}/{job_id}{path}", headers=bert).status_code == 404
        assert client.delete(f"{BASE}/{job_id}", headers=bert).status_code == 404
        assert client.get(BASE, headers=bert).json()["total_jobs"] == 0
        assert client.get(BASE, headers=anna).json()["total_jobs"] == 1
        assert client.get(BASE).status_code == 401


def test_a_job_that_runs_ends_with_the_process() -> None:
    """Nothing is left running: neither the job nor its generation holds up the end."""
    with running_engine("--voice", "simulated", "--tokens-per-second", "50") as engine:
        with (
            running_gateway(upstreams=engine.address) as gateway,
            httpx.Client(base_url=gateway.url, timeout=120) as client,
        ):
            for _ in range(3):
                create(client)
            wait_until(lambda: gateway.runtime.service.in_flight > 0, "it is spoken")

        def running() -> int:
            return int(engine_state(engine.address)["running"])

        wait_until(lambda: running() == 0, "the engine is free")


@pytest.mark.parametrize(
    ("method", "path", "request_", "field"),
    [
        ("POST", "", {"json": {"input": "Too short."}}, "input"),
        ("POST", "", {"json": {"input": "a" * 100_001}}, "input"),
        ("POST", "", {"json": {"input": LONG, "exaggeration": 3}}, "exaggeration"),
        ("GET", "?status=lost", {}, "status"),
        ("GET", "?limit=0", {}, "limit"),
        ("POST", "/bulk", {"json": {"job_ids": [], "action": "delete", "confirm": 1}}, "job_ids"),
        ("POST", "/bulk", {"json": {"job_ids": ["x"], "action": "eat", "confirm": 1}}, "action"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(
    client: httpx.Client, method: str, path: str, request_: dict[str, Any], field: str
) -> None:
    """422 with FastAPI's list."""
    answer = client.request(method, BASE + path, **request_)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][1] == field


def test_the_history_is_filtered_sorted_and_paged(jobs: httpx.Client) -> None:
    """As travisvn's server does: by archive, words, dates, size; actions tell the new state."""
    ids = [create(jobs, input=f"{word} {LONG}") for word in ("Whale", "Monster", "Time")]
    for job_id in ids:
        finished(jobs, job_id)
    update = jobs.patch(f"{BASE}/{ids[0]}", json={"display_name": "Moby", "is_archived": True})
    assert update.json() == {
        "success": True,
        "message": "Job metadata updated successfully",
        "status": "completed",
    }

    def history(**query: Any) -> list[str]:
        answer = jobs.get(f"{BASE}-history", params=query)
        answer.raise_for_status()
        return [job["job_id"] for job in answer.json()["jobs"]]

    assert history(sort="created_asc") == ids
    assert history(sort="created_desc", limit=1, offset=1) == [ids[1]]
    assert history(is_archived=True) == [ids[0]]
    assert set(history(is_archived=False)) == set(ids[1:])
    assert history(search="mOnStEr") == [ids[1]]
    assert history(search="moby") == [ids[0]]
    assert history(start_date="2100-01-01") == history(end_date="2000-01-01T00:00:00Z") == []
    assert len(history(start_date="2000-01-01T00:00:00Z", end_date="2100-01-01")) == len(ids)
    assert history(sort="size_asc")[0] == ids[2]
    assert jobs.get(f"{BASE}-history", params={"sort": "taste"}).status_code == 422
    assert jobs.get(f"{BASE}-history", params={"start_date": "soon"}).status_code == 422
    paused = jobs.put(f"{BASE}/{ids[0]}/pause")
    assert paused.status_code == 409


def test_a_part_of_the_file_can_be_fetched(jobs: httpx.Client) -> None:
    """Safari plays nothing else."""
    job_id = create(jobs)
    finished(jobs, job_id)
    whole = jobs.get(f"{BASE}/{job_id}/download").content
    part = jobs.get(f"{BASE}/{job_id}/download", headers={"Range": "bytes=10-19"})
    assert part.status_code == 206
    assert part.content == whole[10:20]
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole)}"
