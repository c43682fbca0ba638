"""Hostile requests on every route: refused in the surface's shape, never a 5xx, nothing written."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.api.multipart import MOST_ESCAPES, MOST_FIELDS
from tests.api.chatterbox.conftest import RECORDING
from tests.running import Gateway

SPEECH = ("/audio/speech", "/audio/speech/stream", "/v1/audio/speech/upload", "/tts")
FORMS = ("/voices", "/voices/default", "/upload_reference")
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MULTIPART = {"Content-Type": "multipart/form-data; boundary=x"}
BODIES: tuple[tuple[bytes, dict[str, str]], ...] = (
    (b"", JSON),
    (b"{", JSON),
    (b"null", JSON),
    (b"[]", JSON),
    (b'"text"', JSON),
    (b"17", JSON),
    (b"[" * 100_000, JSON),
    (b'{"input": {"a": 1}, "voice": []}', JSON),
    (b'{"input": NaN}', JSON),
    (b'{"input": "a", "temperature": 1e999}', JSON),
    (b'{"input": "a", "temperature": ' + b"9" * 5000 + b"}", JSON),
    (b'{"input": "\xff"}', JSON),
    (b'{"input": "\\ud800", "text": "\\ud800", "predefined_voice_id": "belinda"}', JSON),
    (b"input=%FF&x=\xff", FORM),
    (b"&".join(b"a%d=1" % number for number in range(MOST_FIELDS + 1)), FORM),
    (b"input=" + b"%41" * (MOST_ESCAPES + 1), FORM),
    (b"--x\r\nContent-Disposition: form-data\r\n\r\n", MULTIPART),
    (b"garbage", MULTIPART),
    (b"garbage", {"Content-Type": "multipart/form-data"}),
    (b"<input/>", {"Content-Type": "application/xml"}),
    (b"\x00\x01", {"Content-Type": "audio/wav"}),
)
NAMES = (
    "../../etc/passwd",
    "..\\..\\evil",
    "/etc/passwd",
    "a\0b",
    "a" * 10_000,
    "b\u043eb",  # with a Cyrillic o
    "con\u202efig",
    "",
    " ",
    ".hidden",
    "config.json/../x",
    "<script>",
    "belinda",  # a preset of the engine
)


def check_refused(answer: httpx.Response) -> None:
    """4xx, and one of the two servers' shapes."""
    place = f"{answer.request.method} {answer.request.url.path[:80]}"
    assert 400 <= answer.status_code < 500, f"{place}: {answer.status_code} {answer.text[:200]}"
    body = answer.json()
    if set(body) == {"detail"}:
        assert body["detail"], place
    else:
        assert set(body) == {"error"}, place
        assert set(body["error"]) == {"message", "type"}, place
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"input": "Hi.",}'),
        ("application/json", b""),
        ("application/json", b"[]"),
        ("text/plain", b'{"input": "Hi."}'),
    ],
)
@pytest.mark.parametrize("path", ["/audio/speech", "/v1/audio/speech/stream", "/tts"])
def test_a_body_that_is_no_object_is_422_as_with_fastapi(
    client: httpx.Client, path: str, content_type: str, body: bytes
) -> None:
    """Broken JSON is told its place."""
    answer = client.post(path, content=body, headers={"Content-Type": content_type})
    assert answer.status_code == 422
    (detail,) = answer.json()["detail"]
    assert detail["loc"] == ["body"]
    assert ("line 1" in detail["msg"]) is body.endswith(b",}")


@pytest.mark.parametrize("path", [*SPEECH, *FORMS])
def test_a_body_that_makes_no_sense_is_refused(client: httpx.Client, path: str) -> None:
    """Whatever it says it is."""
    for body, headers in BODIES:
        check_refused(client.post(path, content=body, headers=headers))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_no_voice_may_have_is_refused(
    client: httpx.Client, gateway: Gateway, bob: str, name: str
) -> None:
    """On upload, rename, alias and default; and nothing appears outside of the folder."""
    folder = gateway.runtime.settings.voices_dir
    assert folder is not None
    before = {path.name for path in Path(folder).parent.iterdir()}
    files = {"voice_file": ("a.wav", RECORDING)}
    check_refused(client.post("/voices", data={"voice_name": name}, files=files))
    check_refused(client.put(f"/voices/{bob}", data={"new_name": name}))
    check_refused(client.post(f"/voices/{bob}/aliases", data={"alias": name}))
    check_refused(client.post("/voices/default", data={"voice_name": name}))
    assert {path.name for path in Path(folder).parent.iterdir()} == before
    assert [v["name"] for v in client.get("/voices").json()["voices"]] == [bob]


@pytest.mark.parametrize(
    "name", ["..%2f..%2fetc%2fpasswd", "%00", "a" * 8000, "%ff", "%F0%9F%92%A9", "none"]
)
def test_a_path_that_names_no_voice_is_404(client: httpx.Client, bob: str, name: str) -> None:
    """On every route of a voice."""
    calls: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("GET", f"/voices/{name}", {}),
        ("GET", f"/voices/{name}/download", {}),
        ("GET", f"/voices/{name}/aliases", {}),
        ("PUT", f"/voices/{name}", {"data": {"new_name": "x"}}),
        ("DELETE", f"/v1/voices/{name}", {}),
        ("POST", f"/voices/{name}/aliases", {"data": {"alias": "x"}}),
        ("DELETE", f"/voices/{bob}/aliases/{name}", {}),
    )
    for method, path, request in calls:
        answer = client.request(method, path, **request)
        assert answer.status_code == 404, path
        check_refused(answer)


def test_files_that_are_no_recordings_are_refused(client: httpx.Client) -> None:
    """Pictures, archives, scripts, half a file, silence, and nothing; each with its reason."""
    files = {
        "empty.wav": b"",
        "picture.wav": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "archive.mp3": b"PK\x03\x04" + bytes(10_000),
        "polyglot.wav": b"GIF89a" + RECORDING,
        "list.mp3": b"#EXTM3U\nhttp://127.0.0.1/secret\n",
        "half.wav": RECORDING[:60],
        "silence.wav": RECORDING[:44] + bytes(len(RECORDING) - 44),
    }
    for name, data in files.items():
        form = {"voice_name": "carol"}
        check_refused(client.post("/voices", data=form, files={"voice_file": (name, data)}))
        upload = client.post("/upload_reference", files={"files": (name, data)})
        assert upload.status_code == 400
        assert upload.json()["errors"][0]["filename"] == name
        said = {"input": "Hello."}
        check_refused(
            client.post("/audio/speech/upload", data=said, files={"voice_file": (name, data)})
        )
    assert client.get("/voices").json()["count"] == 0


def test_a_file_that_is_too_large_is_refused(client: httpx.Client) -> None:
    """Over 10 MiB, before it is decoded."""
    huge = RECORDING + bytes(11 * 1024 * 1024)
    form = {"voice_name": "carol"}
    answer = client.post("/voices", data=form, files={"voice_file": ("a.wav", huge)})
    assert answer.status_code == 413
    check_refused(answer)


def test_a_wrong_method_or_path_is_refused_in_the_same_shape(client: httpx.Client) -> None:
    """Also where no route is reached."""
    for method, path in (
        ("GET", "/tts"),
        ("DELETE", "/audio/speech"),
        ("PUT", "/voices"),
        ("GET", "/audio/speech/nothing"),
        ("POST", "/v1/status"),
        ("GET", "/tts/nothing/at/all"),
    ):
        check_refused(client.request(method, path))


@pytest.mark.parametrize("path", ["/voices", "/upload_reference", "/audio/speech/long", "/tts"])
def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error(
    gateway: Gateway, client: httpx.Client, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is told anything, and the log has no traceback."""
    address = httpx.URL(gateway.url)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
    )
    with socket.create_connection((address.host, address.port or 80)) as connection:
        connection.sendall(head.encode())
    assert client.get("/ping").status_code == 200
    assert not [record for record in caplog.records if record.exc_info]
