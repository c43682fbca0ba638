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
import tempfile
import time
from pathlib import Path
from typing import Any

import openai

TEXT = "It was a bright cold day in April, and the clocks were striking one."
FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")


def encoded(data: bytes) -> str:
    """Bytes for JSON."""
    return base64.b64encode(data).decode()


def carrier(client: openai.OpenAI) -> str:
    """The package whose client the SDK's own client is made of."""
    modules = [base.__module__.split(".")[0] for base in type(client._client).__mro__]
    return next(name for name in modules if name.startswith("httpx"))


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


def files(client: openai.OpenAI) -> dict[str, str]:
    """The SDK's own ways to a file: written whole, and streamed to it."""
    fields: dict[str, Any] = {"model": "tts-1", "voice": "alloy", "input": TEXT}
    with tempfile.TemporaryDirectory() as folder:
        whole, streamed = Path(folder, "whole.flac"), Path(folder, "streamed.flac")
        client.audio.speech.create(**fields, response_format="flac").write_to_file(whole)
        with client.audio.speech.with_streaming_response.create(
            **fields, response_format="flac"
        ) as answer:
            answer.stream_to_file(streamed)
        return {"whole": encoded(whole.read_bytes()), "streamed": encoded(streamed.read_bytes())}


async def in_parallel(base_url: str) -> dict[str, Any]:
    """The async client: several at once, and a refusal."""
    async with openai.AsyncOpenAI(base_url=base_url, api_key="unused") as client:

        async def one(voice: str) -> int:
            sink = io.BytesIO()
            async with client.audio.speech.with_streaming_response.create(
                model="gpt-4o-mini-tts", voice=voice, input=TEXT, response_format="pcm"
            ) as answer:
                async for chunk in answer.iter_bytes():
                    sink.write(chunk)
            return len(sink.getvalue())

        lengths = list(await asyncio.gather(*(one(v) for v in ("nova", "onyx", "verse"))))
        try:
            await client.audio.speech.create(model="tts-1", voice="nobody", input=TEXT)
        except openai.NotFoundError as error:
            return {"lengths": lengths, "refused": error.code}
        return {"lengths": lengths, "refused": None}


def events(client: openai.OpenAI) -> dict[str, list[dict[str, Any]]]:
    """Server-sent events, read by hand: from a streamed answer and from a whole one."""
    fields: dict[str, Any] = {"model": "gpt-4o-mini-tts", "voice": "coral", "input": TEXT}
    fields["stream_format"] = "sse"
    with client.audio.speech.with_streaming_response.create(
        **fields, response_format="pcm"
    ) as answer:
        streamed = [line for line in answer.iter_lines() if line]
    whole = client.audio.speech.create(**fields, response_format="mp3")
    lines = {"pcm": streamed, "mp3": [line for line in whole.iter_lines() if line]}
    return {
        name: [json.loads(line.removeprefix("data: ")) for line in found]
        for name, found in lines.items()
    }


def cut(client: openai.OpenAI) -> dict[str, str | None]:
    """What a client sees of an engine that fails in mid-answer; None where it sees nothing."""
    once = client.with_options(max_retries=0)
    fields: dict[str, Any] = {"model": "tts-1", "voice": "alloy", "response_format": "pcm"}
    fields["input"] = f"fault-cut-96000 {TEXT}"
    found: dict[str, str | None] = {"whole": None, "streamed": None}
    try:
        _ = once.audio.speech.create(**fields).content
    except Exception as error:  # noqa: BLE001  (whatever its class, it is the result)
        found["whole"] = type(error).__name__
    try:
        with once.audio.speech.with_streaming_response.create(**fields) as answer:
            for _ in answer.iter_bytes():
                pass
    except Exception as error:  # noqa: BLE001  (as above)
        found["streamed"] = type(error).__name__
    return found


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


def told_by(error: openai.APIStatusError) -> dict[str, Any]:
    """What an error tells its catcher."""
    return {
        "class": type(error).__name__,
        "status": error.status_code,
        "param": error.param,
        "code": error.code,
        "type": error.type,
        "request_id": error.request_id,
        "message": error.body.get("message") if isinstance(error.body, dict) else None,
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
        "stream_format": {"stream_format": "websocket"},
    }
    for name, change in attempts.items():
        fields: dict[str, Any] = {"model": "tts-1", "voice": "alloy", "input": TEXT, **change}
        try:
            client.audio.speech.create(**fields)
        except openai.APIStatusError as error:
            found[name] = told_by(error)
    return found


def models(client: openai.OpenAI) -> dict[str, Any]:
    """The lists, and a model that is on none."""
    try:
        missing: str | None = client.models.retrieve("whisper-9").id
    except openai.NotFoundError as error:
        missing = error.code
    return {
        "listed": [model.id for model in client.models.list()],
        "one": client.models.retrieve("tts-1").id,
        "missing": missing,
    }


def patient(client: openai.OpenAI) -> dict[str, Any]:
    """A call that is refused, then one that goes on by the SDK's own retries."""
    fields: dict[str, Any] = {"model": "tts-1", "voice": "alloy", "input": TEXT}
    found: dict[str, Any] = {"refusal": None}
    try:
        client.with_options(max_retries=0).audio.speech.create(**fields)
    except openai.APIStatusError as error:
        found["refusal"] = told_by(error)
        found["told_seconds"] = int(error.response.headers.get("retry-after-ms", 0)) / 1000
    began = time.monotonic()
    answer = client.with_options(max_retries=1000).audio.speech.with_raw_response.create(
        **fields, response_format="pcm"
    )
    found["seconds"] = time.monotonic() - began
    found["retries"] = answer.retries_taken
    found["bytes"] = len(answer.content)
    return found


def main() -> None:
    """Run one scenario and print it."""
    base_url, scenario = sys.argv[1:]
    client = openai.OpenAI(base_url=base_url, api_key="unused")
    found: Any
    if scenario == "retry":
        found = patient(client)
    else:
        found = {
            "version": openai.__version__,
            "carrier": carrier(client),
            "formats": formats(client),
            "files": files(client),
            "parallel": asyncio.run(in_parallel(base_url)),
            "events": events(client),
            "extras": extras(client),
            "errors": errors(client),
            "cut": cut(client),
            "models": models(client),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
