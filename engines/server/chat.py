"""Answers of `POST /v1/chat/completions`: one event a token, or one JSON with a complete file.

After docs/contract.md section 4, oddities included: the tail of the audio behind the finish event
of a cut answer, errors as events of a 200.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import AsyncGenerator
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Send

from engines.server.asgi import encode, finish, honest_error, send_part, start
from engines.server.contract import ContractError, in_stream_error
from engines.voice import (
    BYTES_PER_TOKEN,
    OVERHEAD_TOKENS,
    EngineFailureError,
    Job,
    UnspeakableError,
)

EVENT_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8")]
CHAT_OVERHEAD_TOKENS = OVERHEAD_TOKENS + 1
FORMATS_UNKNOWN_AT_THE_END = ("opus", "pcm16")  # refused after the whole generation
DONE = b"data: [DONE]\n\n"
UNSPEAKABLE = "unspeakable_text"  # the CPU engine's own param, which the container has not


class ChatEvents:
    """Writes the events of one streamed answer.

    Args:
        model_id: Served model name.
        request_id: The engine's id of the request.
    """

    def __init__(self, model_id: str, request_id: str) -> None:
        head = {
            "id": request_id,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model_id,
        }
        self._head = json.dumps(head, separators=(",", ":")).encode()[:-1]
        self.role = self._event({"role": "assistant", "content": ""}, None)
        self.token = self._event({"content": "", "audio": None}, None)

    def _event(self, delta: dict[str, Any], reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        body = json.dumps([choice], separators=(",", ":")).encode()
        return b"data: " + self._head + b',"choices":' + body + b"}\n\n"

    def audio(self, pcm: bytes) -> bytes:
        """An event with raw PCM, whatever format was asked for."""
        return self._event({"content": "", "audio": audio_object(pcm)}, None)

    def finish(self, reason: str) -> bytes:
        """The event that tells why the tokens ended."""
        return self._event({"content": "", "audio": None}, reason)

    def usage(self, prompt_tokens: int, completion_tokens: int) -> bytes:
        """The last event when `include_usage` asks for it."""
        usage = json.dumps(usage_object(prompt_tokens, completion_tokens), separators=(",", ":"))
        return b"data: " + self._head + b',"choices":[],"usage":' + usage.encode() + b"}\n\n"


def audio_object(data: bytes) -> dict[str, Any]:
    """`audio` of a message or a delta."""
    return {
        "id": f"audio-{uuid.uuid4().hex}",
        "data": base64.b64encode(data).decode(),
        "expires_at": 0,
        "transcript": "",
    }


def usage_object(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """`usage`."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


class StreamedChat:
    """One streamed answer.

    Args:
        events: Its writer.
        job: What is generated.
        send: ASGI send.
        include_usage: Whether a usage event ends it.
        headers_first: Whether the 200 leaves before the generation begins, as the container's does.
    """

    def __init__(
        self,
        events: ChatEvents,
        job: Job,
        send: Send,
        *,
        include_usage: bool,
        headers_first: bool,
    ) -> None:
        self._events = events
        self._job = job
        self._send = send
        self._include_usage = include_usage
        self._headers_first = headers_first
        self._started = False
        self._role_sent = False
        self._finish_sent = False
        self._tokens = 0

    async def run(self, chunks: AsyncGenerator[bytes, None]) -> None:
        """Send all of it.

        Raises:
            ContractError: The text cannot be said, and nothing has been sent.
        """
        if self._headers_first:
            await self._start()
        try:
            async for chunk in chunks:
                await self._start()
                await send_part(self._send, self._piece(chunk))
        except UnspeakableError as error:
            raise ContractError(400, str(error), UNSPEAKABLE) from None
        except EngineFailureError as error:
            if not self._headers_first:
                raise honest_error(error, started=self._started) from error
            await self._start()
            failure = b"data: " + in_stream_error(str(error)) + b"\n\n"
            await finish(self._send, failure + DONE)
            return
        await self._start()
        await finish(self._send, self._last())

    async def _start(self) -> None:
        if not self._started:
            self._started = True
            await start(self._send, EVENT_HEADERS)

    def _piece(self, chunk: bytes) -> bytes:
        """The events of the tokens that passed, the last of them with the audio."""
        events = self._events
        data = b"" if self._role_sent else events.role
        self._role_sent = True
        counted = self._job.ending.tokens
        passed = (len(chunk) // BYTES_PER_TOKEN) if counted is None else counted - self._tokens
        self._tokens += passed
        if self._job.ending.finish_reason == "length" and not self._finish_sent:
            # The tail of the audio comes after this event.
            self._finish_sent = True
            data += events.token * (passed - 1) + events.finish("length")
            return data + (events.audio(chunk) if chunk else b"")
        if not chunk:
            return data + events.token * passed
        return data + events.token * (passed - 1) + events.audio(chunk)

    def _last(self) -> bytes:
        data = b"" if self._role_sent else self._events.role
        if not self._finish_sent:
            data += self._events.finish(self._job.ending.finish_reason)
        if self._include_usage:
            counted = self._job.ending.tokens
            tokens = self._tokens + CHAT_OVERHEAD_TOKENS if counted is None else counted
            data += self._events.usage(self._job.prompt_tokens, tokens)
        return data + DONE


async def whole_chat(
    job: Job, chunks: AsyncGenerator[bytes, None], *, audio_format: str, model_id: str
) -> Response:
    """The answer without a stream.

    Args:
        job: What is generated.
        chunks: Its PCM.
        audio_format: wav, mp3 or flac; opus and pcm16 are refused at the end.
        model_id: Served model name.

    Raises:
        ContractError: 400 as the container's: no audio, unknown format, prompt too long.
    """
    try:
        pcm = b"".join([chunk async for chunk in chunks])
    except UnspeakableError as error:
        raise ContractError(400, str(error), UNSPEAKABLE) from None
    except EngineFailureError as error:
        if error.status == EngineFailureError.status:
            return Response(status_code=error.status)  # the container's 500 has no body
        raise ContractError(error.status, str(error)) from None
    if not pcm:
        raise ContractError(400, "need at least one array to concatenate")
    if audio_format in FORMATS_UNKNOWN_AT_THE_END:
        raise ContractError(400, f"Unknown format: {audio_format}")
    tokens = job.ending.tokens or len(pcm) // BYTES_PER_TOKEN + CHAT_OVERHEAD_TOKENS
    message: dict[str, Any] = {
        "role": "assistant",
        "reasoning_content": None,
        "content": "",
        "tool_calls": [],
        "audio": audio_object(encode(pcm, audio_format)),
    }
    reason = job.ending.finish_reason
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": reason,
        "stop_reason": None,
    }
    return JSONResponse(
        {
            "id": job.request_id,
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model_id,
            "choices": [choice],
            "usage": usage_object(job.prompt_tokens, tokens),
        }
    )
