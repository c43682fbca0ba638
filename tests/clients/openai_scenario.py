"""What a user of OpenAI's Python SDK does; prints what came of it as JSON.

Run by the tests with the current release and with one of the last that speak through httpx:
`python openai_scenario.py BASE_URL SCENARIO`.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import sys
from typing import Any

import openai

TEXT = "It was a bright cold day in April, and the clocks were striking one."
FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")


def encoded(data: bytes) -> str:
    """Bytes for JSON."""
    return base64.b64encode(data).decode()


def formats(client: openai.OpenAI) -> dict[str, Any]:
    """Every format, read whole and streamed."""
    found: dict[str, Any] = {}
    for name in FORMATS:
        fields: dict[str, Any] = {"model": "tts-1", "voice": "alloy", "input": TEXT}
        fields["response_format"] = name
        whole = client.audio.speech.create(**fields)
        with client.audio.speech.with_streaming_response.create(**fields) as answer:
            streamed = b"".join(answer.iter_bytes(4096))
            content_type = answer.headers["content-type"]
        found[name] = {
            "whole": encoded(whole.content),
            "streamed": encoded(streamed),
            "content_type": content_type,
        }
    default = client.audio.speech.create(model="tts-1", voice="alloy", input=TEXT)
    found["default"] = {"whole": encoded(default.content)}
    return found


async def in_parallel(base_url: str) -> list[int]:
    """The async client, several at once."""
    async with openai.AsyncOpenAI(base_url=base_url, api_key="unused") as client:

        async def one(voice: str) -> int:
            sink = io.BytesIO()
            async with client.audio.speech.with_streaming_response.create(
                model="gpt-4o-mini-tts", voice=voice, input=TEXT, response_format="pcm"
            ) as answer:
                async for chunk in answer.iter_bytes():
                    sink.write(chunk)
            return len(sink.getvalue())

        return list(await asyncio.gather(*(one(v) for v in ("nova", "onyx", "verse"))))


def events(client: openai.OpenAI) -> list[dict[str, Any]]:
    """Server-sent events, read by hand."""
    with client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts",
        voice="coral",
        input=TEXT,
        response_format="pcm",
        stream_format="sse",
    ) as answer:
        lines = [line for line in answer.iter_lines() if line]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def extras(client: openai.OpenAI) -> dict[str, int]:
    """Arguments beyond the required ones."""
    fields: dict[str, Any] = {"model": "tts-1", "voice": "ash", "input": TEXT}
    pcm: dict[str, Any] = {**fields, "response_format": "pcm"}
    return {
        "plain": len(client.audio.speech.create(**pcm).content),
        "fast": len(client.audio.speech.create(**pcm, speed=2.0).content),
        "instructed": len(client.audio.speech.create(**pcm, instructions="hushed").content),
        "low_rate": len(
            client.audio.speech.create(**pcm, extra_body={"sample_rate": 8000}).content
        ),
    }


def errors(client: openai.OpenAI) -> dict[str, Any]:
    """Error classes and what they tell."""
    found: dict[str, Any] = {}
    attempts: dict[str, dict[str, Any]] = {
        "voice": {"voice": "nobody"},
        "model": {"model": "whisper-9"},
        "input": {"input": ""},
        "speed": {"speed": 9.0},
        "response_format": {"response_format": "ogg"},
    }
    for name, change in attempts.items():
        fields: dict[str, Any] = {"model": "tts-1", "voice": "alloy", "input": TEXT, **change}
        try:
            client.audio.speech.create(**fields)
        except openai.APIStatusError as error:
            found[name] = {
                "class": type(error).__name__,
                "status": error.status_code,
                "param": error.param,
                "code": error.code,
                "type": error.type,
                "request_id": error.request_id,
            }
    return found


def models(client: openai.OpenAI) -> dict[str, Any]:
    """The lists."""
    return {
        "listed": [model.id for model in client.models.list()],
        "one": client.models.retrieve("tts-1").id,
    }


def patient(client: openai.OpenAI) -> int:
    """One call that may be refused at first: the SDK's own retries are the point."""
    answer = client.with_options(max_retries=6).audio.speech.create(
        model="tts-1", voice="alloy", input=TEXT, response_format="pcm"
    )
    return len(answer.content)


def main() -> None:
    """Run one scenario and print it."""
    base_url, scenario = sys.argv[1:]
    client = openai.OpenAI(base_url=base_url, api_key="unused")
    found: Any
    if scenario == "retry":
        found = {"bytes": patient(client)}
    else:
        found = {
            "version": openai.__version__,
            "formats": formats(client),
            "parallel": asyncio.run(in_parallel(base_url)),
            "events": events(client),
            "extras": extras(client),
            "errors": errors(client),
            "models": models(client),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
