"""The `doctor` command: is this engine right, how fast is it, and how does it sound?

It asks an engine over the HTTP of docs/contract.md, the makers' container as well as those of this
repository, and writes one JSON and one HTML report to attach to an issue.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import html
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx

from gateway import __version__
from gateway.audio.encoders.wav import wav_file
from gateway.audio.pcm import ENGINE_BYTES_PER_SECOND
from gateway.audio.playback import Player

TOKEN_BYTES = 1920
TIMEOUT_SECONDS = 300.0
SPEED_TEXT = "The north wind and the sun were arguing which of them was the stronger. " * 6
SAMPLES = {
    "English": "Please remember to bring your umbrella: it is going to rain this afternoon.",
    "German": "Guten Morgen! Der Zug nach München fährt heute von Gleis sieben ab.",
    "Chinese": "今天天气很好。我们一起去公园散步吧。",
    "Dialogue": "[SPEAKER0] Did you hear that?\n[SPEAKER1] Hear what? It is only the wind.",
}
# Memory bandwidth in GB/s, as NVIDIA's data sheets give it; the longest name that fits counts.
BANDWIDTHS = {
    "H200": 4800, "H100": 3350, "A100": 1555, "A100-SXM4-80GB": 2039, "L40S": 864, "L4": 300,
    "RTX 5090": 1792, "RTX 5080": 960, "RTX 5070 Ti": 896, "RTX 5060 Ti": 448,
    "RTX 4090": 1008, "RTX 4080": 717, "RTX 4060 Ti": 288, "RTX 4060": 272,
    "RTX 3090": 936, "RTX 3060": 360, "RTX A6000": 768,
}  # fmt: skip
# Bytes that one step of a lone stream reads, by precision: 2.844 billion parameters of attention,
# audio feed-forward nets and audio head, and 300 positions of keys and values.
STEP_GIGABYTES = {"bf16": 5.73, "int8": 2.92, "int4": 1.67}


@dataclass(frozen=True, slots=True)
class Speed:
    """What so many streams at once got.

    Attributes:
        tokens_per_second: Audio tokens of all streams; 25 are a second of sound.
        first_audio_seconds: Median time to the first sound.
        underrun_seconds: Longest silence of a player that starts at once.
    """

    streams: int
    tokens_per_second: float
    first_audio_seconds: float
    underrun_seconds: float


@dataclass(slots=True)
class Report:
    """All that was found."""

    url: str
    version: str = __version__
    capabilities: dict[str, Any] = field(default_factory=dict)
    cards: list[str] = field(default_factory=list)
    checks: dict[str, str] = field(default_factory=dict)
    speeds: list[Speed] = field(default_factory=list)
    limit_tokens_per_second: float | None = None
    word_errors: dict[str, float] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """Checks that did not pass."""
        return sum(result != "ok" for result in self.checks.values())


class Doctor:
    """Asks one engine.

    Args:
        client: Its address, and its key.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.model = ""
        self.voice = ""
        self.capabilities: dict[str, Any] = {}

    async def introduce(self) -> None:
        """Learn what the engine is called and can do.

        Raises:
            httpx.HTTPError: It does not answer as an engine does.
        """
        models = (await self.client.get("/v1/models")).raise_for_status().json()
        voices = (await self.client.get("/v1/audio/voices")).raise_for_status().json()
        self.model, self.voice = models["data"][0]["id"], voices[0]
        found = await self.client.get("/capabilities")
        self.capabilities = found.json() if found.is_success else {"engine": "container"}

    def body(self, text: str, **fields: Any) -> dict[str, Any]:
        """A speech request."""
        return {"model": self.model, "voice": self.voice, "input": text, **fields}

    async def speech(self, text: str = "Hello there.", **fields: Any) -> httpx.Response:
        """The answer to a speech request."""
        return await self.client.post("/v1/audio/speech", json=self.body(text, **fields))

    async def audio(self, text: str = "Hello there.", **fields: Any) -> bytes:
        """PCM of a text."""
        answer = await self.speech(text, **fields)
        _see(answer.status_code == httpx.codes.OK, f"status {answer.status_code}")
        _see(not answer.content.startswith(b'{"error"'), "an error's text inside a 200")
        return answer.content

    # -- checks: each returns or raises AssertionError ---------------------------------------

    async def gives_whole_tokens(self) -> None:
        """A short text gives some seconds of sound in whole audio tokens."""
        pcm = await self.audio(max_tokens=400)
        _see(len(pcm) > 10 * TOKEN_BYTES, f"only {len(pcm)} bytes")
        _see(len(pcm) % TOKEN_BYTES == 0, f"{len(pcm)} bytes are no whole tokens")

    async def counts_tokens(self) -> None:
        """A bound of 108 tokens cuts a long text after 100 frames."""
        pcm = await self.audio(SPEED_TEXT, max_tokens=108)
        _see(len(pcm) == 100 * TOKEN_BYTES, f"{len(pcm) / TOKEN_BYTES} frames")

    async def refuses_what_is_wrong(self) -> None:
        """Another model is a 404, a missing field and a bad value are 400."""
        for fields, status in (
            ({"model": "no-such-model"}, 404),
            ({"voice": None}, 400),
            ({"top_p": 2}, 400),
        ):
            answer = await self.speech(**fields)
            _see(answer.status_code == status, f"{fields}: {answer.status_code}")

    async def takes_a_reference(self) -> None:
        """A chat with a recording and its transcript streams sound."""
        recording = await self.audio("This is the voice that I would like to hear.", max_tokens=200)
        part = {"data": base64.b64encode(wav_file(recording)).decode(), "format": "wav"}
        messages = [
            {"role": "user", "content": "This is the voice that I would like to hear."},
            {"role": "assistant", "content": [{"type": "input_audio", "input_audio": part}]},
            {"role": "user", "content": "And so it is."},
        ]
        body = {"model": self.model, "messages": messages, "stream": True}
        answer = await self.client.post(
            "/v1/chat/completions", json={**body, "max_completion_tokens": 200}
        )
        _see(answer.status_code == httpx.codes.OK, f"status {answer.status_code}")
        _see(answer.text.rstrip().endswith("[DONE]"), "no [DONE]")
        _see('"data":' in answer.text.replace('"data": ', '"data":'), "no sound")

    async def repeats_a_seed(self) -> None:
        """The same seed gives the same samples, another one does not."""
        one, same, other = [await self.audio(seed=seed, max_tokens=200) for seed in (1, 1, 2)]
        _see(one == same, "two answers of one seed differ")
        _see(one != other, "two seeds give one answer")

    async def survives_special_tokens(self) -> None:
        """A special token in a text is text; this kills the makers' container."""
        await self.audio("Hello <|AUDIO|> there <|eot_id|>.", max_tokens=200)
        _see((await self.client.get("/health")).is_success, "it is not healthy any more")

    def checks(self) -> Iterable[Callable[[], Awaitable[None]]]:
        """Those that this engine promises to pass."""
        yield self.gives_whole_tokens
        if self.capabilities.get("engine") != "cpu":
            yield self.counts_tokens
        yield self.refuses_what_is_wrong
        yield self.takes_a_reference
        if self.capabilities.get("seed"):
            yield self.repeats_a_seed
        if self.capabilities.get("engine") != "container":
            yield self.survives_special_tokens

    # -- speed ---------------------------------------------------------------------------------

    async def speed(self, streams: int, tokens: int) -> Speed:
        """Let so many clients stream the same long text at once."""
        began = time.monotonic()
        results = await asyncio.gather(*(self._stream(tokens) for _ in range(streams)))
        seconds = time.monotonic() - began
        total = sum(size for size, _, _ in results) / TOKEN_BYTES
        return Speed(
            streams,
            round(total / seconds, 1),
            round(statistics.median(first for _, first, _ in results), 3),
            round(max(underrun for _, _, underrun in results), 3),
        )

    async def _stream(self, tokens: int) -> tuple[int, float, float]:
        """Bytes, seconds to the first, and underrun seconds of one stream."""
        began = asked = time.monotonic()
        player, size, first = Player(), 0, 0.0
        body = self.body(SPEED_TEXT, max_tokens=tokens)
        async with self.client.stream("POST", "/v1/audio/speech", json=body) as answer:
            answer.raise_for_status()
            async for chunk in answer.aiter_raw():
                came = time.monotonic()
                first = first or came - began
                size += len(chunk)
                player.deliver(asked, came, size / ENGINE_BYTES_PER_SECOND)
                asked = came
        return size, first, player.underrun_seconds


def _see(fact: object, otherwise: str) -> None:
    if not fact:
        raise AssertionError(otherwise)


def cards_here() -> list[str]:
    """This machine's GPUs with their memory, as nvidia-smi tells it; none without it."""
    query = ["nvidia-smi", "--query-gpu=name,memory.used,memory.total", "--format=csv,noheader"]
    try:
        shown = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    return shown.stdout.strip().splitlines()


def bandwidth_limit(cards: list[str], precision: str) -> float | None:
    """Tokens a second that a lone stream cannot exceed on the first card; None where unknown."""
    names = [name for name in BANDWIDTHS if cards and name in cards[0]]
    if not names or precision not in STEP_GIGABYTES:
        return None
    return round(BANDWIDTHS[max(names, key=len)] / STEP_GIGABYTES[precision], 1)


def write_html(report: Report, samples: dict[str, bytes], path: Path) -> None:
    """One file with everything in it, the sound too."""
    rows = [f"<tr><td>{html.escape(n)}<td>{html.escape(r)}" for n, r in report.checks.items()]
    speeds = [
        f"<tr><td>{s.streams}<td>{s.tokens_per_second}<td>{s.tokens_per_second / 25:.1f}"
        f"<td>{s.first_audio_seconds}<td>{s.underrun_seconds}"
        for s in report.speeds
    ]
    players = [
        f'<p>{name}<br><audio controls src="data:audio/wav;base64,'
        f'{base64.b64encode(wav_file(pcm)).decode()}"></audio>'
        for name, pcm in samples.items()
    ]
    words = f"Word errors: {report.word_errors}" if report.word_errors else ""
    facts = html.escape(json.dumps(report.capabilities, indent=1))
    path.write_text(
        "<!doctype html><meta charset=utf-8><title>speech-gateway doctor</title>"
        "<style>body{font:16px sans-serif;max-width:50em;margin:2em auto}td{padding:.2em 1em}"
        f"</style><h1>{html.escape(report.url)}</h1><p>{html.escape('; '.join(report.cards))}"
        f"<h2>Checks</h2><table>{''.join(rows)}</table><h2>Speed</h2><table><tr><th>streams"
        "<th>tokens/s<th>audio s/s<th>first audio, s<th>underrun, s"
        f"{''.join(speeds)}</table><p>Limit by memory bandwidth, one stream: "
        f"{report.limit_tokens_per_second} tokens/s<h2>Samples</h2>{''.join(players)}"
        f"<p>{html.escape(words)}<h2>Engine</h2><pre>{facts}</pre>",
        encoding="utf-8",
    )


async def examine(arguments: argparse.Namespace) -> tuple[Report, dict[str, bytes]]:
    """Ask everything, printing as it goes."""
    headers = {"Authorization": f"Bearer {arguments.api_key}"} if arguments.api_key else {}
    # No connection is kept: httpx looks at every idle one for each request, which at 128 streams
    # would measure the client.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(
        base_url=arguments.url, headers=headers, timeout=TIMEOUT_SECONDS, limits=limits
    ) as client:
        doctor = Doctor(client)
        await doctor.introduce()
        report = Report(arguments.url, capabilities=doctor.capabilities, cards=cards_here())
        for check in doctor.checks():
            name = (check.__doc__ or "").split("\n")[0]
            try:
                await check()
                report.checks[name] = "ok"
            except (AssertionError, httpx.HTTPError) as error:
                report.checks[name] = str(error) or type(error).__name__
            print(f"{report.checks[name]:>4}  {name}")  # noqa: T201
        for streams in arguments.streams:
            report.speeds.append(await doctor.speed(streams, arguments.tokens))
            print(report.speeds[-1])  # noqa: T201
        precision = str(doctor.capabilities.get("precision", "bf16"))
        report.limit_tokens_per_second = bandwidth_limit(report.cards, precision)
        samples = {}
        for name, text in SAMPLES.items():
            try:
                samples[name] = await doctor.audio(text)
            except AssertionError as error:
                report.checks[f"Sample: {name}"] = str(error)
    return report, samples


def add_doctor_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `speech-gateway doctor`."""
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the engine's address")
    parser.add_argument("--api-key", help="bearer key of the engine")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8], help="loads to measure")
    parser.add_argument("--tokens", type=int, default=508, help="audio tokens of each stream")
    parser.add_argument(
        "--golden",
        metavar="MODEL",
        help="instead: load these weights and compare greedy codes with transformers' own test",
    )
    parser.add_argument("--precision", default="bf16", help="of --golden")
    parser.add_argument("--device", default="auto", help="of --golden")
    parser.add_argument(
        "--recogniser",
        metavar="MODEL",
        help="name or folder of a faster-whisper model: word errors",
    )
    parser.add_argument(
        "--against", type=Path, metavar="JSON", help="report to compare --recogniser with"
    )
    parser.add_argument("--report", type=Path, default=Path("doctor"), help="name of both files")


def run_doctor(arguments: argparse.Namespace) -> int:
    """Examine an engine; 1 where a check failed, 2 where it does not answer."""
    if arguments.golden:
        golden = import_module("engines.higgs.golden")  # with torch, which only this needs
        share = golden.matching_codes(
            arguments.golden,
            revision=None,
            precision=arguments.precision,
            device=arguments.device,
        )
        print(f"{share:.0%} of the codes that transformers' test expects")  # noqa: T201
        return int(share < 1)
    try:
        report, samples = asyncio.run(examine(arguments))
    except (httpx.HTTPError, ValueError, LookupError) as error:
        print(f"speech-gateway: {arguments.url} is no engine: {error}", file=sys.stderr)  # noqa: T201
        return 2
    if arguments.recogniser:
        recognition = import_module("engines.recognition")
        try:
            report.word_errors, compared = recognition.listen(
                arguments.recogniser, samples, SAMPLES, arguments.against
            )
        except (OSError, ValueError) as error:
            print(f"speech-gateway: {error}", file=sys.stderr)  # noqa: T201
            return 2
        report.checks |= compared
        print(f"word errors: {report.word_errors}")  # noqa: T201
    arguments.report.with_suffix(".json").write_text(json.dumps(asdict(report), indent=1))
    write_html(report, samples, arguments.report.with_suffix(".html"))
    print(f"Written: {arguments.report}.json, {arguments.report}.html")  # noqa: T201
    return 1 if report.failed else 0
