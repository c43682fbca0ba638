"""What runs and what ran, as travisvn's clients watch it: fed by real requests of any surface."""

from __future__ import annotations

import threading

import httpx
import pytest

from gateway.speech.activity import HIDDEN
from tests.running import Gateway, running_engine, running_gateway, wait_until

LONG = "This is a sentence that takes its time to be said, word after word. " * 20


def history(client: httpx.Client, limit: int = 10) -> list[dict[str, object]]:
    """The latest requests."""
    found = client.get(f"/status/history?limit={limit}").json()["request_history"]
    assert isinstance(found, list)
    return found


def test_a_request_shows_while_it_runs_and_when_it_is_over() -> None:
    """Where it is, how far, and when it will likely end; then how long it took."""
    with (
        running_engine("--voice", "simulated", "--tokens-per-second", "120") as engine,
        running_gateway(upstreams=engine.address, show_texts=True) as gateway,
        httpx.Client(base_url=gateway.url, timeout=120) as client,
    ):
        stop = threading.Event()

        def listen() -> None:
            with httpx.stream(
                "POST",
                gateway.url + "/v1/audio/speech",
                json={"model": "tts-1", "input": LONG},
                timeout=120,
            ) as answer:
                for _ in answer.iter_raw():
                    if stop.is_set():
                        return

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            wait_until(
                lambda: client.get("/v1/status").json().get("progress", {}).get("current_chunk"),
                "it is being spoken",
            )
            status = client.get("/processing?include_memory=true&include_stats=true").json()
            assert status["status"] == "generating_audio"
            assert status["is_processing"] is True
            assert status["text_length"] == len(LONG)
            assert status["text_preview"] == LONG[:100] + "..."
            assert status["parameters"]["surface"] == "openai"
            assert 0 < status["progress"]["progress_percentage"] < 100
            assert status["progress"]["total_chunks"] > 1
            assert status["progress"]["estimated_completion"] > status["start_time"]
            assert status["memory_info"]["cpu_memory_mb"] > 10
            assert status["statistics"]["is_processing"] is True
            progress = client.get("/progress").json()
            assert progress["is_processing"] is True
            assert progress["current_step"].startswith("Generating audio for chunk")
            assert client.post("/status/history/clear?confirm=true").json()["success"]
            assert client.get("/v1/status").json()["is_processing"] is True
        finally:
            stop.set()
            listener.join(120)
        wait_until(lambda: history(client), "it is over")
        past = history(client)[0]
        assert past["status"] == "error"  # the listener left
        assert past["error_message"] == "cancelled"
        assert client.get("/status/progress").json()["is_processing"] is False


def test_history_and_statistics_count_what_was_spoken(
    gateway: Gateway, client: httpx.Client
) -> None:
    """The latest first, as many as asked for; clearing wants a confirmation."""
    client.post("/status/history/clear?confirm=true").raise_for_status()
    for number in range(3):
        said = {"input": f"Number {number}."}
        client.post("/audio/speech", json=said).raise_for_status()
    activity = gateway.runtime.activity
    wait_until(lambda: len(activity.over) == 3 and not activity.running, "all three are over")
    records = history(client, limit=2)
    assert [record["text_preview"] for record in records] == ["Number 2.", "Number 1."]
    assert {record["status"] for record in records} == {"completed"}
    statistics = client.get("/status/statistics").json()
    assert statistics["completed_requests"] == 3
    assert statistics["success_rate"] == 100
    assert statistics["average_text_length"] == 9
    assert "success" not in client.post("/status/history/clear").json()
    assert len(history(client)) == 3


@pytest.mark.parametrize("query", ["limit=0", "limit=51", "limit=x", "limit=-1", "limit=²"])
def test_a_limit_out_of_range_is_refused(client: httpx.Client, query: str) -> None:
    """422 with the parameter's name."""
    answer = client.get(f"/status/history?{query}")
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", "limit"]
    assert client.get("/v1/status?include_memory=perhaps").status_code == 422


def test_texts_are_masked_by_default() -> None:
    """Whoever asks for the history has not written the texts."""
    with (
        running_engine("--voice", "simulated", "--tokens-per-second", "4000") as engine,
        running_gateway(upstreams=engine.address) as gateway,
        httpx.Client(base_url=gateway.url, timeout=120) as client,
    ):
        secret = "The password is swordfish."  # noqa: S105 (a text)
        client.post("/audio/speech", json={"input": secret}).raise_for_status()
        wait_until(lambda: history(client), "it is over")
        for path in ("/status/history", "/info", "/v1/status?include_history=true"):
            answer = client.get(path).text
            assert "swordfish" not in answer
            assert HIDDEN in answer


def test_memory_is_this_process_s_own(client: httpx.Client) -> None:
    """Real figures, and no levers: what asks to free memory is told that nothing was changed."""
    info = client.get("/memory?cleanup=true&force_cuda_clear=true").json()
    assert 10 < info["memory_info"]["cpu_memory_mb"] < 10_000
    assert info["memory_info"]["cpu_memory_peak_mb"] >= info["memory_info"]["cpu_memory_mb"]
    assert 0 < info["memory_info"]["cpu_memory_percent"] < 100
    assert info["cleanup_performed"] is False
    assert client.post("/memory/reset?confirm=true").json()["status"] == "success"
