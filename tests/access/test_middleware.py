"""The door, over real sockets: who is let in to what, and what strangers are told."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from gateway.access.keys import file_line
from gateway.access.policy import SPEECH
from gateway.api.dispatcher import SMALL_BODY_BYTES
from loadtest.processes import answers, free_port
from tests.asking import ADMIN, BODY, KEY, get, speak
from tests.running import Gateway, running_gateway, wait_until

UPLOAD_BYTES = 30_000_000


@pytest.fixture(scope="module")
def gateway_settings() -> dict[str, Any]:
    """A key for alice, and one for the administrator."""
    return {"api_keys": f"alice={KEY}, root={ADMIN} admin"}


@pytest.fixture(scope="module")
def open_gateway(engine: str) -> Iterator[Gateway]:
    """A gateway without keys."""
    with running_gateway(upstreams=engine) as running:
        yield running


def exchange(gateway: Gateway, head: bytes, body: bytes = b"") -> tuple[bytes, float]:
    """Bytes to a socket; the answer until the connection ends, and when its first part came."""
    address = urlsplit(gateway.url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), 30) as peer:
        started = time.monotonic()
        peer.sendall(head)
        answer = peer.recv(65_536) if body else b""
        first = time.monotonic() - started
        peer.sendall(body)
        while data := peer.recv(65_536):
            answer += data
    return answer, first


def head(*lines: bytes, path: bytes = b"/v1/audio/speech", method: bytes = b"POST") -> bytes:
    """A request's head."""
    first = method + b" " + path + b" HTTP/1.1"
    return b"\r\n".join([first, b"Host: gateway", b"Connection: close", *lines, b"", b""])


# Chatterbox clients call these; they answer politely, and an ordinary key opens them.
CHANGE_NOTHING = {
    *("/memory/config", "/memory/reset", "/api/unload"),
    *("/save_settings", "/reset_settings", "/restart_server"),
}


def test_every_changing_route_is_speech_or_named(gateway: Gateway) -> None:
    """A new route that changes something cannot slip in with an ordinary key unseen."""
    for route in gateway.routes:
        speaks = any(word in route.path for word in ("speech", "generate", "tts", "jobs"))
        if route.method == "GET" or route.path.removeprefix("/v1") in CHANGE_NOTHING:
            continue
        assert speaks or route.group != SPEECH, (route.method, route.path)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {KEY}"},
        {"X-API-Key": KEY},
        {"api-key": KEY},
        {"Authorization": "Bearer unused", "api-key": KEY},
        {"Authorization": f"Bearer {ADMIN}"},
    ],
)
def test_a_key_opens_speech(gateway: Gateway, headers: dict[str, str]) -> None:
    """In whatever header a client's library puts it; an administrator may speak, too."""
    assert speak(gateway, **headers).status_code == 200


STRANGERS: dict[str, bytes] = {
    "none": b"X-Nothing: 1",
    "wrong": b"Authorization: Bearer sg-for-mallory",
    "other case": b"Authorization: Bearer " + KEY.upper().encode(),
    "prefix": b"Authorization: Bearer " + KEY[:-1].encode(),
    "longer": b"Authorization: Bearer " + KEY.encode() + b"0",
    "empty": b"Authorization: Bearer ",
    "bare": b"Authorization: " + KEY.encode(),
    "basic": b"Authorization: Basic " + KEY.encode(),
    "twice": b"Authorization: Bearer %b\r\nAuthorization: Bearer %b" % ((KEY.encode(),) * 2),
    "non-ASCII": b"Authorization: Bearer \xff\xfe\xe9" + KEY.encode(),
    "4 KB": b"Authorization: Bearer " + b"k" * 4096,
    "name": b"Authorization: Bearer alice=" + KEY.encode(),
    "cookie": b"Cookie: api-key=" + KEY.encode(),
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_strangers_are_told_401(gateway: Gateway, stranger: str) -> None:
    """Whatever they try, the answer is the same and the gateway lives on."""
    answer, _ = exchange(gateway, head(STRANGERS[stranger], b"Content-Length: 2") + b"{}")
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b'"code":"invalid_api_key"' in answer
    assert KEY.encode() not in answer
    assert speak(gateway, KEY).status_code == 200


def test_a_header_of_100_kb_is_refused_and_harms_nobody(gateway: Gateway) -> None:
    """As no key, or as too large a head before it is looked at."""
    answer, _ = exchange(gateway, head(b"Authorization: Bearer " + b"k" * 100_000))
    assert answer.split()[1] in {b"401", b"431"}
    assert speak(gateway, KEY).status_code == 200


def test_a_key_in_the_address_is_not_taken(gateway: Gateway) -> None:
    """Addresses end up in logs and histories."""
    for name in ("api_key", "api-key", "key", "access_token", "authorization"):
        assert get(gateway, f"/v1/models?{name}={KEY}").status_code == 401


@pytest.mark.parametrize(
    ("path", "stranger", "alice", "root"),
    [
        ("/health", 200, 200, 200),
        ("/ready", 200, 200, 200),
        ("/v1/models", 401, 200, 200),
        ("/v1/audio/voices", 401, 200, 200),
        ("/metrics", 401, 200, 200),
        ("/stats", 401, 200, 200),
        ("/docs", 401, 200, 200),
        ("/nothing", 401, 404, 404),
        ("/admin/nothing", 401, 403, 404),
    ],
)
def test_each_key_opens_what_it_is_for(
    gateway: Gateway, path: str, stranger: int, alice: int, root: int
) -> None:
    """Probes need none; a stranger is not even told which paths there are."""
    answers = [get(gateway, path, key).status_code for key in (None, KEY, ADMIN)]
    assert answers == [stranger, alice, root]


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
def test_voices_are_changed_by_administrators(gateway: Gateway, method: str) -> None:
    """An ordinary key gets 403, none 401."""
    url = gateway.url + "/v1/audio/voices/some"
    for key, status in ((None, 401), (KEY, 403)):
        headers = {"api-key": key} if key else {}
        assert httpx.request(method, url, headers=headers).status_code == status
    assert httpx.request(method, url, headers={"api-key": ADMIN}).status_code not in {401, 403}


def test_without_an_admin_key_nobody_changes_voices_unless_the_operator_says_so(
    engine: str,
) -> None:
    """Nobody becomes an administrator by accident."""
    for changes, status in ((None, 403), ("off", 403), ("open", 404)):
        with running_gateway(upstreams=engine, api_keys=KEY, voice_changes=changes) as running:
            url = running.url + "/v1/audio/voices/some"
            assert httpx.delete(url, headers={"api-key": KEY}).status_code == status
            assert httpx.delete(url).status_code in {401, 403}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/audio/voices"),
        ("DELETE", "/v1/audio/voices/some"),
        ("POST", "/upload_reference"),
        ("POST", "/voices/default"),
        ("GET", "/voices/some/download"),
        ("POST", "/v1/audio/jobs"),
        ("GET", "/v1/audio/jobs"),
        ("POST", "/v1/audio/jobs/some/cancel"),
        ("POST", "/audio/speech/long/bulk"),
    ],
)
def test_without_keys_web_pages_of_other_origins_get_and_change_nothing_that_is_kept(
    open_gateway: Gateway, method: str, path: str
) -> None:
    """By `Origin`, by `Sec-Fetch-Site`, and by a `Host` that is not this machine's."""
    port = open_gateway.url.rpartition(":")[2]
    url = open_gateway.url + path
    own: list[dict[str, str]] = [
        {},
        {"origin": open_gateway.url, "sec-fetch-site": "same-origin"},
        {"host": f"localhost:{port}"},
    ]
    for headers in own:
        assert httpx.request(method, url, headers=headers).status_code not in {401, 403}
    foreign: list[dict[str, str]] = [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:3000"},
        {"sec-fetch-site": "cross-site"},
        {"host": f"evil.example:{port}", "origin": f"http://evil.example:{port}"},
        {"host": f"evil.example:{port}"},
    ]
    for headers in foreign:
        assert httpx.request(method, url, headers=headers).status_code == 403, headers


def test_without_keys_everything_else_is_open(open_gateway: Gateway) -> None:
    """SDKs send some key all the same."""
    assert speak(open_gateway, "unused").status_code == 200
    assert speak(open_gateway, host="behind.a.proxy.example").status_code == 200
    assert get(open_gateway, "/metrics").status_code == 200


def preflight(gateway: Gateway, origin: str, **headers: str) -> httpx.Response:
    """What a browser asks before a page's request with a key."""
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
        **headers,
    }
    return httpx.options(gateway.url + "/v1/audio/speech", headers=asked)


LOCAL_PAGES = [
    "http://localhost:3000",
    "http://127.0.0.1",
    "https://localhost",
    "http://[::1]:5173",
]
FOREIGN_PAGES = ["http://evil.example", "http://localhost.evil.example", "http://127.0.0.1.nip.io",
                 "http://localhost:3000.evil.example", "null", "file://"]  # fmt: skip


def test_without_keys_only_pages_of_this_machine_may_read_answers(open_gateway: Gateway) -> None:
    """Otherwise any page that the user visits could fetch what this machine speaks."""
    private = {"Access-Control-Request-Private-Network": "true"}
    for origin in LOCAL_PAGES:
        assert get(open_gateway, "/v1/models", origin=origin).headers[
            "access-control-allow-origin"
        ] in {origin, "*"}
        for more in ({}, private):
            answer = preflight(open_gateway, origin, **more)
            assert answer.status_code == 200, (origin, answer.text)
            assert answer.headers["access-control-allow-origin"] == origin
            assert "authorization" in answer.headers["access-control-allow-headers"]
        assert answer.headers["access-control-allow-private-network"] == "true"
    for origin in FOREIGN_PAGES:
        answer = get(open_gateway, "/v1/models", origin=origin)
        assert "access-control-allow-origin" not in answer.headers
        assert "access-control-allow-origin" not in preflight(open_gateway, origin).headers


def test_the_operator_names_the_origins(engine: str) -> None:
    """Any, some or none, with keys or without."""
    for allowed, origin, answered in (
        ("*", "http://page.example", "*"),
        ("http://page.example", "http://page.example", "http://page.example"),
        ("http://page.example", "http://localhost:3000", None),
        ("", "http://localhost:3000", None),
    ):
        with running_gateway(ready=False, upstreams=engine, cors_origins=allowed) as running:
            answer = get(running, "/health", origin=origin)
            assert answer.headers.get("access-control-allow-origin") == answered


def test_the_operator_opens_routes(engine: str) -> None:
    """Prometheus without a key."""
    with running_gateway(
        upstreams=engine, api_keys=KEY, public_routes="health,metrics,voices"
    ) as running:
        assert get(running, "/metrics").status_code == 200
        # Open WebUI fills its menus from these without its key.
        for path in ("/v1/models", "/v1/audio/voices", "/v1/audio/models"):
            assert get(running, path, "wrong").status_code == 200
        assert get(running, "/docs").status_code == 401
        assert speak(running).status_code == 401


def test_refusals_have_an_id_and_cors_headers(gateway: Gateway) -> None:
    """A web page may read why it was refused, and a user may tell which request it was."""
    refused = speak(gateway, origin="http://page.example", **{"x-request-id": "mine-1"})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "*"
    assert refused.headers["x-request-id"] == "mine-1"
    assert refused.headers["www-authenticate"] == "Bearer"


def test_a_browsers_preflight_needs_no_key(gateway: Gateway) -> None:
    """Browsers send none with it, and want to hear that the header is allowed."""
    answer = httpx.options(
        gateway.url + "/v1/audio/speech",
        headers={
            "Origin": "http://page.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,x-api-key",
        },
    )
    assert answer.status_code == 200
    assert "authorization" in answer.headers["access-control-allow-headers"]


@pytest.mark.parametrize(
    ("path", "nothing", "detail"),
    [("/v1/audio/speech", "/v1/nothing", False), ("/generate", "/generate/nothing", True)],
)
def test_refusals_have_the_shape_of_their_surface(
    gateway: Gateway,
    path: str,
    nothing: str,
    detail: bool,  # noqa: FBT001
) -> None:
    """401, 403, 404 and 405 alike."""
    url, key = gateway.url + path, {"api-key": KEY}
    answers = [
        httpx.post(url, json=BODY),
        httpx.get(url, headers=key),
        httpx.get(gateway.url + nothing, headers=key),
    ]
    assert [answer.status_code for answer in answers] == [401, 405, 404]
    for answer in answers:
        if detail:
            assert isinstance(answer.json()["detail"], str)
        else:
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answers[1].headers["allow"] == "POST"


def test_openais_sdk_raises_its_own_errors(engine: str) -> None:
    """AuthenticationError, PermissionDeniedError and RateLimitError, with their codes."""
    with running_gateway(
        upstreams=engine, api_keys=f"{KEY},{ADMIN} admin", requests_per_minute=1
    ) as running:

        def client(key: str) -> openai.OpenAI:
            return openai.OpenAI(base_url=running.url + "/v1", api_key=key, max_retries=0)

        def say(sdk: openai.OpenAI) -> Any:
            return sdk.audio.speech.create(model="tts-1", voice="alloy", input="Hello.")

        with client("wrong") as sdk, pytest.raises(openai.AuthenticationError) as unknown:
            say(sdk)
        with client(KEY) as sdk:
            assert say(sdk).content
            with pytest.raises(openai.RateLimitError) as limited:
                say(sdk)
            with pytest.raises(openai.PermissionDeniedError) as denied:
                sdk.delete("/audio/voices/some", cast_to=object)
        assert (unknown.value.code, unknown.value.type) == (
            "invalid_api_key",
            "invalid_request_error",
        )
        assert denied.value.code == "insufficient_permissions"
        assert limited.value.code == "rate_limit_exceeded"
        headers = limited.value.response.headers
        assert 0 < int(headers["retry-after"]) <= 60
        assert 0 < int(headers["retry-after-ms"]) <= 60_000
        assert headers["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.parametrize("framing", [b"Content-Length: %d" % UPLOAD_BYTES, b"chunked"])
def test_a_refused_upload_is_answered_before_it_is_sent_and_ends_cleanly(
    gateway: Gateway, framing: bytes
) -> None:
    """The client hears 401 after the head alone; what it still sends does not reset it."""
    lines = [framing]
    body = b"x" * UPLOAD_BYTES
    if framing == b"chunked":
        lines = [b"Transfer-Encoding: chunked"]
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (UPLOAD_BYTES, body)
    # The answer is read before the first byte of the body leaves: else this would never end.
    answer, _ = exchange(gateway, head(*lines).replace(b"Connection: close\r\n", b""), body)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close" in answer
    assert answer.count(b"HTTP/1.1") == 1
    assert answer.endswith(b"}")


def test_a_refused_upload_that_expects_to_be_asked_is_not_asked_for(gateway: Gateway) -> None:
    """`Expect: 100-continue` saves the upload: the final answer comes instead."""
    lines = [b"Expect: 100-continue", b"Content-Length: %d" % UPLOAD_BYTES]
    address = urlsplit(gateway.url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), 30) as peer:
        peer.sendall(head(*lines))
        assert peer.recv(65_536).startswith(b"HTTP/1.1 401 ")
        peer.shutdown(socket.SHUT_WR)
        assert b"100" not in peer.recv(65_536)


def test_a_small_refused_request_keeps_its_connection(gateway: Gateway) -> None:
    """A client with a wrong key need not connect anew to correct it."""
    body = b"x" * SMALL_BODY_BYTES
    first = head(b"Content-Length: %d" % len(body)).replace(b"Connection: close\r\n", b"")
    second = head(method=b"GET", path=b"/health")
    answer, _ = exchange(gateway, first + body + second)
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"401", b"200"]


def test_keys_come_and_go_with_the_file_while_the_gateway_runs(engine: str, tmp_path: Path) -> None:
    """No restart; an administrator in the file counts, too."""
    path = tmp_path / "keys"
    path.write_text(file_line("alice", KEY) + "\n")
    with running_gateway(upstreams=engine, api_keys_file=str(path)) as running:
        assert speak(running, KEY).status_code == 200
        assert get(running, "/admin/nothing", ADMIN).status_code == 401
        path.write_text(file_line("root", ADMIN, admin=True) + "\n")
        wait_until(lambda: get(running, "/admin/nothing", ADMIN).status_code == 404, "root is in")
        assert speak(running, KEY).status_code == 401
        assert "alice" not in running.runtime.access.callers._callers


def test_refusals_are_counted_and_no_key_is_in_metrics_or_logs(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """Names stand for keys, and only those that are configured."""
    labels = {"surface": "openai", "outcome": "unauthorised"}
    before = gateway.metric("gateway_requests_total", **labels)
    with caplog.at_level(logging.DEBUG):
        speak(gateway, "sg-for-mallory")
        speak(gateway, KEY, **{"x-api-key": "sg-for-mallory"})
        speak(gateway)
    assert gateway.metric("gateway_requests_total", **labels) == before + 2
    told = "\n".join(
        record.getMessage() for record in caplog.records if record.name.startswith(("gat", "uvi"))
    )
    shown = get(gateway, "/metrics", KEY).text + told
    assert 'key="alice"' in shown
    for secret in (KEY, ADMIN, "mallory"):
        assert secret not in shown


def test_serve_refuses_to_start_open_to_other_machines_and_logs_no_key() -> None:
    """One line, status 2, nothing listens."""
    port = free_port()
    command = [sys.executable, "-m", "gateway", "serve", "--host", "0.0.0.0", "--port", str(port)]
    environment = {"GATEWAY_UPSTREAMS": "http://127.0.0.1:1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2
    assert "GATEWAY_ALLOW_ANONYMOUS" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    with subprocess.Popen(
        command,
        env={**environment, "GATEWAY_API_KEYS": f"root={ADMIN}"},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"), "it is live")
            process.terminate()
            told = process.communicate(timeout=120)[1]
        finally:
            process.kill()
    assert process.returncode == 0
    assert ADMIN not in told
