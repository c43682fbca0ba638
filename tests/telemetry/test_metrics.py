"""The metrics tell what the clients saw."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import wave
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.metrics import LATENCY_BUCKETS, Distribution, Metrics, Tally
from loadtest.processes import ServeProcess, answers, running_engine, running_serve, wait_until

BYTES_PER_SECOND = 48_000
TOKENS_PER_SECOND = 25
WAV_HEADER_BYTES = 44
TEXTS = (
    "One short sentence for a start.",
    "A second one, which is somewhat longer than the first one was.",
    "The third is the longest of them all, because somebody has to tell the whole story.",
)
# Label names that may stand in the exposition: closed sets, never a client's text.
LABELS = {
    "surface", "outcome", "reason", "response_format", "voice", "upstream", "version", "python",
    "le", "key", "state", "result",
}  # fmt: skip


def samples(url: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of an exposition by name and labels."""
    text = httpx.get(url + "/metrics", timeout=120).text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(url: str, metric: str, **labels: str) -> float:
    """The sum of a metric's samples that carry the given labels."""
    wanted = frozenset(labels.items())
    return sum(value for (name, have), value in samples(url).items()
               if name == metric and wanted <= have)  # fmt: skip


@pytest.fixture(scope="module")
def gateway() -> Iterator[ServeProcess]:
    """A gateway in processes of its own, before a simulated engine."""
    arguments = ("--voice", "simulated", "--tokens-per-second", "2000", "--first-token-ms", "5")
    with (
        running_engine(*arguments) as engine,
        running_serve(upstreams=engine.address, probe_interval_seconds=0.5) as serve,
    ):
        wait_until(lambda: answers(serve.url + "/ready"), "it is ready")
        yield serve


class Client:
    """What a client can count of its own requests."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.audio_seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        self.body_bytes = 0
        self.characters = 0

    def speak(self, number: int) -> None:
        """One request of a kind that its number decides, on a connection of its own."""
        kind = (self._legacy, self._sse, self._wav, self._pcm, self._invalid)[number % 5]
        with httpx.Client(base_url=self.url, timeout=120) as client:
            kind(client, TEXTS[number % len(TEXTS)])

    def _legacy(self, client: httpx.Client, text: str) -> None:
        answer = client.post("/generate", json={"text": text})
        with wave.open(io.BytesIO(answer.content)) as file:
            samples = file.getnframes()
        self._count("generate", "wav", answer, samples * 2, text)

    def _sse(self, client: httpx.Client, text: str) -> None:
        body = {"model": "tts-1", "input": text, "response_format": "pcm", "stream_format": "sse"}
        answer = client.post("/v1/audio/speech", json=body)
        events = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line]
        audio = [base64.b64decode(event.get("audio", "")) for event in events]
        self._count("openai", "pcm", answer, sum(map(len, audio)), text)

    def _wav(self, client: httpx.Client, text: str) -> None:
        answer = client.post(
            "/v1/audio/speech", json={"model": "tts-1", "input": text, "response_format": "wav"}
        )
        self._count("openai", "wav", answer, len(answer.content) - WAV_HEADER_BYTES, text)

    def _pcm(self, client: httpx.Client, text: str) -> None:
        answer = client.post(
            "/v1/audio/speech", json={"model": "tts-1", "input": text, "response_format": "pcm"}
        )
        self._count("openai", "pcm", answer, len(answer.content), text)

    def _invalid(self, client: httpx.Client, text: str) -> None:
        answer = client.post("/v1/audio/speech", json={"model": "tts-1", "input": text, "speed": 9})
        assert answer.status_code == httpx.codes.BAD_REQUEST
        self.outcomes["openai", "invalid"] += 1

    def _count(
        self, surface: str, response_format: str, answer: httpx.Response, pcm_bytes: int, text: str
    ) -> None:
        assert answer.status_code == httpx.codes.OK
        self.outcomes[surface, "ok"] += 1
        self.audio_seconds[surface, response_format] += pcm_bytes / BYTES_PER_SECOND
        self.body_bytes += len(answer.content)
        self.characters += len(text)


def test_the_counters_equal_what_the_clients_counted(gateway: ServeProcess) -> None:
    """Requests, audio to the millisecond, bytes and characters."""
    client = Client(gateway.url)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(client.speak, range(60)))
    ended = sum(client.outcomes.values())
    wait_until(
        lambda: total(gateway.url, "gateway_requests_total") == ended, "all requests are counted"
    )
    for (surface, outcome), count in client.outcomes.items():
        assert count == total(
            gateway.url, "gateway_requests_total", surface=surface, outcome=outcome
        )
    for (surface, response_format), seconds in client.audio_seconds.items():
        counted = total(
            gateway.url,
            "gateway_audio_seconds_total",
            surface=surface,
            response_format=response_format,
        )
        assert counted == pytest.approx(seconds, abs=0.0005)
    spoken = client.outcomes["openai", "ok"] + client.outcomes["generate", "ok"]
    audio_seconds = sum(client.audio_seconds.values())
    for name, expected in {
        "gateway_response_bytes_total": client.body_bytes,
        "gateway_input_characters_total": client.characters,
        "gateway_audio_tokens_total": audio_seconds * TOKENS_PER_SECOND,
        "gateway_audio_duration_seconds_count": spoken,
        "gateway_audio_duration_seconds_sum": audio_seconds,
        "gateway_request_duration_seconds_count": spoken,
        "gateway_time_to_first_audio_seconds_count": spoken,
        "gateway_time_to_first_byte_seconds_count": spoken,
        "gateway_queue_wait_seconds_count": spoken,
        "gateway_real_time_factor_count": spoken,
        "gateway_underrun_seconds_count": spoken - client.outcomes["generate", "ok"],
        "gateway_in_flight_requests": 0,
        "gateway_slots_in_use": 0,
        "gateway_queued_requests": 0,
        "gateway_upstream_in_flight": 0,
        "gateway_slots": 64,
    }.items():
        assert total(gateway.url, name) == pytest.approx(expected, abs=0.0005), name


def test_stats_reads_the_same_numbers(gateway: ServeProcess) -> None:
    """`/stats` and `/metrics` never tell two stories."""
    httpx.post(gateway.url + "/generate", json={"text": TEXTS[0]}, timeout=120)
    wait_until(lambda: total(gateway.url, "gateway_in_flight_requests") == 0, "all is counted")
    stats = httpx.get(gateway.url + "/stats", timeout=120).json()
    ok = total(gateway.url, "gateway_requests_total", outcome="ok")
    assert stats["successful_requests"] == ok > 0
    assert stats["total_requests"] == total(gateway.url, "gateway_requests_total")
    assert stats["total_generation_time"] == pytest.approx(
        total(gateway.url, "gateway_request_duration_seconds_sum"), abs=0.001
    )


def test_the_series_do_not_grow_with_what_clients_send(gateway: ServeProcess) -> None:
    """A stranger cannot fill the memory of a Prometheus with names of his own."""

    def series() -> set[tuple[str, frozenset[tuple[str, str]]]]:
        return set(samples(gateway.url))

    def send(number: int) -> None:
        name = f"stranger{number}"
        body = {"input": "Hello.", "voice": name, "model": name, "response_format": name}
        for path in ("/v1/audio/speech", "/generate", f"/{name}"):
            httpx.post(gateway.url + path, json=body, headers={"x-request-id": name}, timeout=120)

    for number in range(4):
        send(number)
    before = series()
    for number in range(4, 20):
        send(number)
    assert not [key for key in series() - before if "stranger" in str(key)]
    assert {label for _, labels in series() for label, _ in labels} <= LABELS


def test_the_names_keep_to_the_rules_of_prometheus() -> None:
    """An own prefix, base units, `_total` on counters alone, a help text on each."""
    families = list(text_string_to_metric_families(Metrics().render().decode()))
    assert families
    for family in families:
        assert re.fullmatch(r"gateway_[a-z0-9_]*[a-z0-9]", family.name), family.name
        assert family.documentation.endswith("."), family.name
        assert not family.name.endswith("_total")  # the parser takes it off a counter's name
        assert not re.search(r"_(ms|milliseconds|minutes|kb|kib|mb|percent)(_|$)", family.name)


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_finds_nothing_to_say(gateway: ServeProcess) -> None:
    """Prometheus' own linter is content with a live exposition."""
    exposition = httpx.get(gateway.url + "/metrics", timeout=120).content
    said = subprocess.run(["promtool", "check", "metrics"], input=exposition,
                          capture_output=True, check=False)  # fmt: skip
    assert (said.returncode, said.stdout + said.stderr) == (0, b"")


def test_a_counter_tells_what_the_librarys_would() -> None:
    """To the byte, with labels and without; it never goes down."""
    Metrics()  # the library leaves out `_created` from then on
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    labels = ("surface", "outcome")
    sent, ended = Tally(ours, "sent_bytes", "Bytes."), Tally(ours, "ended", "Requests.", *labels)
    bytes_sent = prometheus_client.Counter("sent_bytes", "Bytes.", registry=theirs)
    requests_ended = prometheus_client.Counter("ended", "Requests.", labels, registry=theirs)
    assert generate_latest(ours) == generate_latest(theirs)
    for values in (("openai", "ok"), ("openai", "cancelled"), ("openai", "ok")):
        ended.inc(*values)
        sent.inc(by=0.5)
        requests_ended.labels(*values).inc()
        bytes_sent.inc(0.5)
    with pytest.raises(ValueError, match="only"):
        sent.inc(by=-1)
    assert generate_latest(ours) == generate_latest(theirs)


def test_a_distribution_tells_what_the_librarys_histogram_would() -> None:
    """To the byte: below, at and above each bound, and beyond the last."""
    Metrics()  # the library leaves out `_created` from then on
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    distribution = Distribution(ours, "wait_seconds", "A wait.", LATENCY_BUCKETS)
    histogram = Histogram("wait_seconds", "A wait.", registry=theirs, buckets=LATENCY_BUCKETS)
    assert generate_latest(ours) == generate_latest(theirs)
    for amount in (0.0, *LATENCY_BUCKETS, *(bound * 1.01 for bound in LATENCY_BUCKETS), 1e6):
        distribution.observe(amount)
        histogram.observe(amount)
    assert generate_latest(ours) == generate_latest(theirs)
