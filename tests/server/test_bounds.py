"""Nothing a stranger sends is larger, deeper or less clear than the gateway takes.

Everything goes over a real socket, as bytes: no HTTP library would send most of it.
"""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from engines.simulator.waveform import expected_pcm
from gateway.api.multipart import MOST_FIELDS, MOST_FILES
from gateway.api.schemas import MOST_JSON_MARKS
from gateway.server.http_heads import HEAD_BYTES, HEADERS
from gateway.server.http_protocol import FRAMING_BYTES, MOST_PIPELINED
from tests.running import Gateway, running_gateway, wait_until
from tests.sockets import connected, exchange, get, post, read_to_end, read_until, statuses

FAST = ("--voice", "simulated", "--tokens-per-second", "4000")
CLOSE = "Connection: close"
CHUNKED = "Transfer-Encoding: chunked"
SPEECH = {"model": "tts-1", "input": "Hello.", "voice": "mabel", "response_format": "pcm"}
MAX_BODY_BYTES = 1024 * 1024


@pytest.fixture(scope="module")
def gateway_settings() -> dict[str, Any]:
    """Bodies of a mebibyte, and short patience."""
    return {
        "max_body_bytes": MAX_BODY_BYTES,
        "max_held_body_bytes": 4 * MAX_BODY_BYTES,
        "head_timeout_seconds": 2,
        "body_timeout_seconds": 2,
    }


@pytest.fixture(autouse=True)
def alive(gateway: Gateway) -> Iterator[None]:
    """After whatever came, the gateway speaks, and holds nothing."""
    yield
    assert statuses(exchange(gateway.url, post(SPEECH, CLOSE))) == [200]
    wait_until(lambda: not gateway.crowd.waiting, "no connection is left", 15)
    assert gateway.crowd.held_bytes == 0


def chunked(*chunks: bytes, trailer: bytes = b"") -> bytes:
    """A chunked body."""
    framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return framed + b"0\r\n" + trailer + b"\r\n"


@pytest.mark.parametrize(
    "head",
    [
        get("/" + "a" * HEAD_BYTES),
        get("/health", "X-Long: " + "a" * HEAD_BYTES),
        get("/health", *["X-Many: " + "a" * 4000] * 17),
        get("/health", *["X-Many: 1"] * HEADERS),
        b"GET /" + b"a" * (2 * HEAD_BYTES),
        b"GET / HTTP/1.1\r\nX-Endless: " + b"a" * (2 * HEAD_BYTES),
        b"\r\n" * HEAD_BYTES,
    ],
    ids=["target", "header", "sum", "count", "endless target", "endless header", "blank lines"],
)
def test_a_head_that_is_too_large_is_refused_with_431(gateway: Gateway, head: bytes) -> None:
    """Neither its bytes nor its number of headers may grow for ever."""
    assert statuses(exchange(gateway.url, head)) == [431]


def test_the_largest_head_that_is_allowed_is_taken(gateway: Gateway) -> None:
    """Cookies and proxies make long heads."""
    many = ["X-Many: " + "a" * 500] * (HEADERS - 2)
    assert statuses(exchange(gateway.url, get("/health", CLOSE, *many))) == [200]


AMBIGUOUS = {
    "length and chunked": post(chunked(b"{}"), CHUNKED),
    "two lengths": post(SPEECH, "Content-Length: 3"),
    "the same length twice": post(b"{}", "Content-Length: 2"),
    "a list of lengths": post(b"{}", "Content-Length: 2, 2", length=False),
    "a signed length": post(b"{}", "Content-Length: +2", length=False),
    "a negative length": post(b"{}", "Content-Length: -2", length=False),
    "a hexadecimal length": post(b"{}", "Content-Length: 0x2", length=False),
    "a length beyond 64 bits": post(b"{}", f"Content-Length: {10**30}", length=False),
    "chunked, identity": post(chunked(b"{}"), "Transfer-Encoding: chunked, identity", length=False),
    "identity, chunked": post(chunked(b"{}"), "Transfer-Encoding: identity, chunked", length=False),
    "gzip, chunked": post(chunked(b"{}"), "Transfer-Encoding: gzip, chunked", length=False),
    "an unknown coding": post(chunked(b"{}"), "Transfer-Encoding: xchunked", length=False),
    "chunked twice": post(chunked(b"{}"), CHUNKED, CHUNKED, length=False),
    "a space before the colon": post(chunked(b"{}"), "Transfer-Encoding : chunked", length=False),
    "chunked in HTTP/1.0": post(chunked(b"{}"), CHUNKED, length=False).replace(b"/1.1", b"/1.0"),
    "a chunk that lies": post(b"3\r\nabcd\r\n0\r\n\r\n", CHUNKED, length=False),
    "a chunk beyond 64 bits": post(b"f" * 20 + b"\r\nabc", CHUNKED, length=False),
    "a chunk with bare line feeds": post(b"2\n{}\n0\n\n", CHUNKED, length=False),
    "bare line feeds": get("/health").replace(b"\r\n", b"\n"),
    "bare carriage returns": get("/health").replace(b"\r\n", b"\r"),
    "a folded header": get("/health", "X-A: b\r\n c"),
    "a NUL in a header": get("/health", "X-A: b\0c"),
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "two hosts": get("/health", "Host: other"),
    "a space in the target": get("/health a"),
    "an unknown method": get("/health").replace(b"GET", b"FROB"),
    "HTTP/2.0": get("/health", version="2.0"),
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "CONNECT": b"CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\n\r\n",
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50),
}


@pytest.mark.parametrize("request_bytes", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_what_two_readers_could_read_differently_gets_one_400(
    gateway: Gateway, request_bytes: bytes
) -> None:
    """A second request hidden in the first would pass a proxy unseen: no second answer, ever."""
    answer = exchange(gateway.url, request_bytes + get("/health"))
    assert statuses(answer) == [400]
    assert b"connection: close" in answer.lower()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get("http://elsewhere.example/health", CLOSE), 200),
        (get("/health", version="1.0"), 200),
        (get("/health", CLOSE).replace(b"GET", b"HEAD"), 200),
        (get("*", CLOSE).replace(b"GET", b"OPTIONS"), 404),
        (get("/health", CLOSE).replace(b"GET", b"TRACE"), 405),
        (get("/%00%ff%0d%0aX:y", CLOSE), 404),
        (get("/../../etc/passwd", CLOSE), 404),
        (post(SPEECH, CLOSE, "Expect: 100-continue"), 200),
        (
            post(chunked(b'{"model": "tts-1", "input":', b'"Hi."}'), CLOSE, CHUNKED, length=False),
            200,
        ),
        (post(b'\xef\xbb\xbf{"input": "Hi."}', CLOSE), 200),
    ],
)
def test_rare_but_clear_requests_are_answered(
    gateway: Gateway, request_bytes: bytes, status: int
) -> None:
    """What the standard allows gets a plain answer, and nothing is fetched from elsewhere."""
    assert statuses(exchange(gateway.url, request_bytes)) == [status]


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_an_offer_of_another_protocol_is_declined_by_answering(
    gateway: Gateway, framing: str
) -> None:
    """Some clients offer h2c with every first request: it is read whole, and so is the next."""
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    if framing == "length":
        first = post(SPEECH, *offer)
    else:
        body = chunked(
            b'{"model": "tts-1", "input":"Hello.","voice":"mabel","response_format":"pcm"}'
        )
        first = post(body, CHUNKED, *offer, length=False)
    websocket = get("/health", "Connection: Upgrade", "Upgrade: websocket")
    whole = expected_pcm("Hello.", "mabel")
    for cut in (len(first), len(first) - 3, 20):
        with connected(gateway.url) as connection:
            connection.sendall(first[:cut])
            connection.sendall(first[cut:] + websocket + get("/health", CLOSE))
            answer = read_to_end(connection)
        assert statuses(answer) == [200, 200, 200]
        assert len(answer) > len(whole)


def test_a_trailer_is_not_a_header(gateway: Gateway) -> None:
    """What stands behind the body has passed no proxy's check."""
    body = chunked(
        b'{"model": "tts-1", "input": "Hi."}',
        trailer=b"X-Request-Id: mine\r\nContent-Type: a/b\r\n",
    )
    answer = exchange(gateway.url, post(body, CLOSE, CHUNKED, length=False))
    assert statuses(answer) == [200]
    assert b"mine" not in answer


@pytest.mark.parametrize(
    "body",
    [
        b"1;" + b"a" * (2 * FRAMING_BYTES),
        b"1\r\na\r\n" * (FRAMING_BYTES // 2),
        b"0\r\nX-Endless: " + b"a" * (2 * FRAMING_BYTES),
    ],
    ids=["extension", "tiny chunks", "trailer"],
)
def test_a_body_that_is_mostly_framing_is_refused(gateway: Gateway, body: bytes) -> None:
    """Chunk sizes, extensions and trailers cost work, but are no part of the body's size."""
    assert statuses(exchange(gateway.url, post(body, CHUNKED, length=False))) in ([400], [431])


@pytest.mark.parametrize("framing", ["length", "chunked", "lie"])
def test_a_body_that_is_too_large_is_refused_with_413(gateway: Gateway, framing: str) -> None:
    """However its size is told."""
    text = b'{"model": "tts-1", "input": "' + b"a" * MAX_BODY_BYTES + b'"}'
    if framing == "length":
        data = post(text, CLOSE)
    elif framing == "chunked":
        data = post(chunked(text[:1000], text[1000:]), CLOSE, CHUNKED, length=False)
    else:
        data = post(b"{}", CLOSE, f"Content-Length: {10**15}", length=False) + text
    with connected(gateway.url) as connection:
        connection.sendall(data)
        if framing == "lie":
            connection.shutdown(socket.SHUT_WR)  # nothing more comes: it may go
            read_to_end(connection)
        else:
            assert statuses(read_to_end(connection)) == [413]


def test_large_bodies_of_all_requests_together_are_bounded(gateway: Gateway) -> None:
    """Many uploads at once must not fill the memory: above the bound, one is told 503."""
    body = b'{"model": "tts-1", "input": "' + b"a" * (MAX_BODY_BYTES - 1000)
    head = post(body, f"Content-Length: {MAX_BODY_BYTES}", length=False)
    answers: list[bytes] = []

    def upload() -> None:
        answers.append(exchange(gateway.url, head))

    threads = [threading.Thread(target=upload) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = [status for answer in answers for status in statuses(answer)]
    assert 503 in told
    assert set(told) <= {503, 408}


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 500_000,
        b'{"a":' * 100_000,
        b'{"model": "tts-1", "input": "Hi.", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"model": "tts-1", "input": "Hi.", "x": [0' + b",0" * MOST_JSON_MARKS + b"]}",
        b'{"model": "tts-1", "input": "Hi.", "speed": NaN}',
        b'{"model": "tts-1", "input": "Hi.", "speed": -Infinity}',
        b'{"model": "tts-1", "input": "Hi.", "speed": 1e999}',
        b'{"model": "tts-1", "input": "Hi.", "seed": ' + b"9" * 4000 + b"}",
        b'{"model": "tts-1", "input": "Hi.", "seed": ' + b"9" * 10_000 + b"}",
        b'{"model": "tts-1", "input": "Hi.", "top_k": ' + b"9" * 4000 + b"}",
        b'{"model": "tts-1", "input": "a\\ud800b"}',
        b'{"model": "tts-1", "input": "Hi.", "voice": "\\ud800"}',
        b'{"model": "tts-1", "input": "Hi.", "model": "\\ud800"}',
        b'{"model": "tts-1", "input": "Hi.", "instructions": "\\ud800"}',
        b'{"model": "tts-1", "input": "\xff"}',
        '{"model": "tts-1", "input": "Hi."}'.encode("utf-16"),
        b'{"model": "tts-1", "input": ["Hi."]}',
        b"null",
        b"1",
        b'"text"',
        b"{} {}",
    ],
)
@pytest.mark.parametrize("path", ["/v1/audio/speech", "/generate"])
def test_json_bombs_and_odd_numbers_get_a_400(gateway: Gateway, path: str, body: bytes) -> None:
    """Too deep, too many, too large, or no JSON at all: the client's fault, told as such."""
    if path == "/generate":
        body = body.replace(b'"model": "tts-1", "input"', b'"text"')
    for status in statuses(exchange(gateway.url, post(body, CLOSE, path=path))):
        # The legacy API ignores fields that it has not, whatever they hold.
        ignored = path == "/generate" and any(
            name in body for name in (b"speed", b"seed", b"model", b"instructions")
        )
        assert status in ({200, 400} if ignored else {400, 422})


def test_of_a_key_that_comes_twice_the_last_value_holds(gateway: Gateway) -> None:
    """One reading, the usual one."""
    body = (
        b'{"model": "tts-1", "input": "First.", "input": "Hello.", "voice": "mabel", '
        b'"response_format": "pcm"}'
    )
    answer = httpx.post(
        gateway.url + "/v1/audio/speech",
        content=body,
        headers={"content-type": "application/json"},
    )
    assert answer.content == expected_pcm("Hello.", "mabel")


def form(*parts: bytes, boundary: bytes = b"b") -> bytes:
    """A multipart body."""
    framed = b"".join(b"--%s\r\n%s\r\n" % (boundary, part) for part in parts)
    return framed + b"--%s--\r\n" % boundary


def field(name: bytes, value: bytes, more: bytes = b"") -> bytes:
    """A part of a multipart body."""
    return b'Content-Disposition: form-data; name="%s"%s\r\n\r\n%s' % (name, more, value)


INPUT = field(b"input", b"Hi.")
FILE = field(b"file", b"RIFF", b'; filename="a.wav"')
FORMS = {
    "too many fields": (form(INPUT, *[field(b"x", b"1")] * MOST_FIELDS), "boundary=b"),
    "too many files": (form(INPUT, *[FILE] * (MOST_FILES + 1)), "boundary=b"),
    "no boundary": (form(INPUT), ""),
    "an empty boundary": (form(INPUT, boundary=b""), "boundary="),
    "an endless boundary": (form(INPUT, boundary=b"b" * 5000), "boundary=" + "b" * 5000),
    "another boundary": (form(INPUT), "boundary=c"),
    "no name": (form(b"Content-Disposition: form-data\r\n\r\nHi."), "boundary=b"),
    "no disposition": (form(b"Content-Type: text/plain\r\n\r\nHi."), "boundary=b"),
    "a part's endless headers": (
        form(b"X: " + b"a" * 100_000 + b"\r\n" + INPUT),
        "boundary=b",
    ),
    "a part's many headers": (form(b"X: a\r\n" * 20_000 + INPUT), "boundary=b"),
    "an unknown charset": (form(INPUT), "boundary=b; charset=none-such"),
    "nested": (
        form(
            b'Content-Disposition: form-data; name="input"\r\n'
            b"Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\nHi.\r\n--c--"
        ),
        "boundary=b",
    ),
    "a field that is no text": (form(field(b"input", b"\xff\xfe")), "boundary=b"),
    "a name that is no text": (form(INPUT, field(b"\xff", b"1")), "boundary=b"),
    "deep JSON": (form(INPUT, field(b"references", b"[" * 100_000)), "boundary=b"),
    "many in JSON": (form(INPUT, field(b"references", b"[" + b"[]," * 150_000)), "boundary=b"),
    "cut off": (form(INPUT)[:-10], "boundary=b"),
}


@pytest.mark.parametrize("case", FORMS.values(), ids=FORMS.keys())
def test_hostile_forms_get_a_clear_answer(gateway: Gateway, case: tuple[bytes, str]) -> None:
    """Parts, headers of parts, files, boundaries: whatever is wrong is told, or harmless."""
    body, parameter = case
    kind = f"Content-Type: multipart/form-data; {parameter}"
    [status] = statuses(exchange(gateway.url, post(body, CLOSE, kind)))
    assert status in {200, 400, 422}


def test_a_voice_sample_is_bounded_before_it_is_decoded(engine: str) -> None:
    """Thirty megabytes of base64 are refused by their length alone."""
    with running_gateway(upstreams=engine) as roomy:
        sample = base64.b64encode(bytes(22 * 1024 * 1024)).decode()
        body = {**SPEECH, "reference_audio_base64": sample}
        answer = httpx.post(roomy.url + "/v1/audio/speech", json=body, timeout=120)
        assert answer.status_code == 413


def test_requests_in_a_row_are_answered_in_a_row(gateway: Gateway) -> None:
    """Nobody waits between them: the answers come in order, whole."""
    other = {**SPEECH, "model": "tts-1", "input": "Another one."}
    answer = exchange(gateway.url, post(SPEECH) + get("/health") + post(other, CLOSE))
    assert statuses(answer) == [200, 200, 200]
    bodies = answer.split(b"HTTP/1.1 ")[1:]
    assert len(bodies[2]) > len(bodies[0])


def test_a_flood_of_requests_in_a_row_ends_after_the_first_ones(gateway: Gateway) -> None:
    """Each holds memory: after some, the connection closes, and the client sends the rest again."""
    answer = exchange(gateway.url, get("/health") * 2000)
    assert set(statuses(answer)) == {200}
    assert 1 <= len(statuses(answer)) <= MOST_PIPELINED + 1


def test_garbage_behind_a_request_never_gets_into_its_answer(gateway: Gateway) -> None:
    """The audio is whole to the last byte, and then the connection closes."""
    for garbage in (b"\0\1\2 garbage\r\n\r\n", b"GET / HT", get("/" + "a" * HEAD_BYTES)):
        with connected(gateway.url) as connection:
            connection.sendall(post({**SPEECH, "stream": False}) + garbage)
            answer = read_until(connection, b"\r\n\r\n")
            answer += read_to_end(connection)
        sound, _, after = answer.partition(b"\r\n\r\n")[2].partition(b"HTTP/1.1 ")
        assert sound == expected_pcm("Hello.", "mabel")
        assert after[:3] in {b"", b"400", b"408", b"431"}


def test_a_client_that_goes_is_noticed_whatever_else_it_has_sent(gateway: Gateway) -> None:
    """A second request behind the first must not hide that nobody listens to either."""
    long = {
        **SPEECH,
        "model": "tts-1",
        "input": "This is a sentence of some length. " * 2500,
        "stream": False,
    }
    with connected(gateway.url) as connection:
        connection.sendall(post(long) + post(long))
        wait_until(lambda: gateway.runtime.admission.in_flight, "it runs", 15)
        wait_until(lambda: gateway.runtime.service.look_ahead.segments, "it is long", 15)
    wait_until(lambda: not gateway.runtime.admission.in_flight, "it has ended", 15)


def test_a_client_that_ends_its_side_counts_as_gone_unless_the_answer_is_cheap(
    gateway: Gateway,
) -> None:
    """A close and a half-close look the same; a generation must not run for nobody."""
    with connected(gateway.url) as connection:
        connection.sendall(get("/health"))
        connection.shutdown(socket.SHUT_WR)
        assert statuses(read_to_end(connection)) == [200]
    with connected(gateway.url) as connection:
        connection.sendall(post(SPEECH))
        connection.shutdown(socket.SHUT_WR)
        assert read_to_end(connection) == b""
