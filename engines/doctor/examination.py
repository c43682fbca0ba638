"""Checks an engine by the HTTP of docs/contract.md, and measures it.

The makers' container can be examined as well as the engines of this repository.
"""

from __future__ import annotations

import asyncio
import base64
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import httpx

from engines.doctor.report import Speed
from gateway.audio.encoders.wav import wav_file
from gateway.audio.pcm import ENGINE_BYTES_PER_SECOND
from gateway.audio.playback import Player

TOKEN_BYTES = 1920
SPEED_TEXT = "The north wind and the sun were arguing which of them was the stronger. " * 6


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
            httpx.HTTPError, ValueError: It does not answer as an engine does.
        """
        models = (await self.client.get("/v1/models")).raise_for_status().json()
        voices = (await self.client.get("/v1/audio/voices")).raise_for_status().json()
        try:
            self.model, self.voice = models["data"][0]["id"], voices[0]
        except (LookupError, TypeError):
            raise ValueError("it does not list models and voices as one does") from None
        found = await self.client.get("/capabilities")
        told = found.json() if found.is_success else None
        self.capabilities = told if isinstance(told, dict) else {"engine": "container"}

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
