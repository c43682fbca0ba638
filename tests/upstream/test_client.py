"""The HTTP client of the upstreams against servers that answer too much, elsewhere, or not."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest

from gateway.errors import GatewayError, UpstreamProtocolError, UpstreamRejected, UpstreamTimeout
from gateway.upstream.client import (
    ANSWER_BODY_BYTES,
    ERROR_BODY_BYTES,
    Timeouts,
    UpstreamClient,
)
from gateway.upstream.dialect import Call
from gateway.upstream.parsers import SpeechParser
from tests.asking import say
from tests.http_server import Reply, Seen, always, answering
from tests.running import running_gateway

pytestmark = pytest.mark.anyio

PATIENT = Timeouts(connect_seconds=600, first_audio_seconds=600, idle_seconds=600)
AUDIO = bytes(range(1, 251)) * 400
TOO_LONG = "The upstream's answer is too long."


@asynccontextmanager
async def client(key: str | None = "k") -> AsyncIterator[UpstreamClient]:
    """A client that is closed."""
    running = UpstreamClient(key)
    try:
        yield running
    finally:
        running.close()


def call() -> Call:
    """A request for speech."""
    return Call("/v1/audio/speech", b"{}", SpeechParser())


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("excess", [0, 1])
async def test_a_list_is_read_up_to_a_bound(excess: int, *, chunked: bool) -> None:
    """Whatever listens at the address must not fill the gateway's memory."""
    size = ANSWER_BODY_BYTES + excess

    def reply(_: Seen) -> Reply:
        if not chunked:
            return Reply(b"x" * size)
        return Reply(
            b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size), headers={"Transfer-Encoding": "chunked"}
        )

    with answering(reply) as server:
        async with client() as running:
            if excess:
                with pytest.raises(UpstreamProtocolError, match=TOO_LONG):
                    await running.get(server.url, "/v1/models", 30)
            else:
                assert len(await running.get(server.url, "/v1/models", 30)) == size


@pytest.mark.parametrize("excess", [0, 1])
async def test_an_error_s_body_is_read_up_to_a_bound(excess: int) -> None:
    """A page of an error is enough to tell what it is."""
    body = json.dumps({"message": "no", "type": "BadRequestError"}).encode()
    body += b" " * (ERROR_BODY_BYTES - len(body) + excess)
    with answering(always(Reply(body, 400))) as server:
        async with client() as running:
            with pytest.raises(GatewayError) as caught:
                await running.open(server.url, call(), PATIENT)
    if excess:
        assert (type(caught.value), caught.value.message) == (UpstreamProtocolError, TOO_LONG)
    else:
        assert type(caught.value) is UpstreamRejected


async def test_a_redirect_is_never_followed() -> None:
    """Neither text nor key may go to an address that no operator has named."""
    with answering(always(Reply(AUDIO))) as elsewhere:
        for status in (301, 302, 303, 307, 308):
            moved = Reply(b"", status, {"Location": elsewhere.url + "/v1/audio/speech"})
            with answering(always(moved)) as server:
                async with client() as running:
                    with pytest.raises(UpstreamProtocolError):
                        await running.open(server.url, call(), PATIENT)
                    with pytest.raises(UpstreamProtocolError):
                        await running.get(server.url, "/v1/models", 30)
        assert elsewhere.seen == []


async def test_requests_have_the_key_and_ids_of_their_own() -> None:
    """The container makes `X-Request-Id` its own id, and two alike collide."""
    with answering(always(Reply(AUDIO))) as server:
        async with client("secret") as running, client("secret") as replica:
            for one in (running, replica, running, replica, running):
                with closing(await one.open(server.url, call(), PATIENT)) as stream:
                    assert await stream.read()
            await running.get(server.url, "/v1/models", 30)
        ids = [request.headers["x-request-id"] for request in server.seen[:-1]]
        assert len(set(ids)) == 5, "also of two gateways before one engine"
        assert all(ids)
        assert {request.headers["authorization"] for request in server.seen} == {"Bearer secret"}


async def test_a_connection_that_is_never_taken_has_its_own_bound() -> None:
    """A host that drops packets costs seconds, not the whole wait for a first audio."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)  # one connection fits; of further ones the kernel drops the first packet
        for one in (first, second):
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        timeouts = Timeouts(connect_seconds=0.2, first_audio_seconds=600, idle_seconds=600)
        async with client() as running, asyncio.timeout(120):
            began = time.monotonic()
            with pytest.raises(UpstreamTimeout):
                await running.open(f"http://127.0.0.1:{full.getsockname()[1]}", call(), timeouts)
            assert time.monotonic() - began >= 0.2


async def test_headers_without_audio_are_waited_for_no_longer_than_the_first_audio() -> None:
    """Bytes that are no audio must not keep a stream alive."""
    reply = Reply(b"", headers={"Content-Length": "1000"})  # headers at once, and then nothing
    timeouts = Timeouts(connect_seconds=600, first_audio_seconds=0.2, idle_seconds=600)
    with answering(always(reply)) as server:
        async with client() as running, asyncio.timeout(120):
            stream = await running.open(server.url, call(), timeouts)
            with pytest.raises(UpstreamTimeout):
                await stream.read()
            stream.close()


async def test_an_idle_connection_is_used_again_for_less_than_the_container_keeps_it() -> None:
    """It closes one after 5.0 s: a request that is sent at that moment would be reset."""
    with answering(always(Reply(b"{}"))) as server:
        async with client() as running:
            for pause_seconds in (0.0, 0.0, 4.5):
                await asyncio.sleep(pause_seconds)
                await running.get(server.url, "/v1/models", 30)
        first, second, late = [request.port for request in server.seen]
        assert first == second != late


def test_the_model_of_the_settings_is_asked_for() -> None:
    """GATEWAY_UPSTREAM_MODEL goes before what the engine lists first, in warm-ups too."""
    lists = {
        "/v1/models": {"data": [{"id": "listed-first"}, {"id": "configured"}]},
        "/v1/audio/voices": ["mabel"],
        "/health": {},
    }

    def reply(request: Seen) -> Reply:
        known = lists.get(request.path)
        return Reply(AUDIO if known is None else json.dumps(known).encode())

    with answering(reply) as server:
        for configured, asked_for in (("configured", "configured"), (None, "listed-first")):
            server.seen.clear()
            with running_gateway(upstreams=server.url, upstream_model=configured) as gateway:
                assert say(gateway, "Hello.").content == AUDIO
            asked = [json.loads(r.body)["model"] for r in server.seen if r.method == "POST"]
            assert asked == [asked_for] * 2, "the warm-up, and the request"
