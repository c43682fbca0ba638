"""The command `say`: there is a whole file or none, and one line that says why."""

from __future__ import annotations

import io
import socket
import stat
import sys
import threading
import wave
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway.commands.main import main
from loadtest.processes import free_port, wait_until

PCM = bytes(range(256)) * 40  # what one request speaks: 5,120 samples
REFUSAL = "The voice 'nobody' does not exist.\nVoices: alloy."


class FakeGateway:
    """The OpenAI speech endpoint on a loopback port: it notes what it is asked, and obeys `input`.

    Attributes:
        url: Its address.
        asked: The JSON of each request, in order.
        keys: Their Authorization headers.
    """

    def __init__(self) -> None:
        self.asked: list[dict[str, object]] = []
        self.keys: list[str | None] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        app = Starlette(routes=[Route("/v1/audio/speech", self.speech, methods=["POST"])])
        config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
        self._uvicorn = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._uvicorn.run, kwargs={"sockets": [self._socket]}, daemon=True
        )

    def start(self) -> None:
        """Serve; connections made before it is up wait in the socket's backlog."""
        self._thread.start()
        wait_until(lambda: self._uvicorn.started, "the fake gateway serves")

    def stop(self) -> None:
        """Stop serving."""
        self._uvicorn.should_exit = True
        self._thread.join(120)
        assert not self._thread.is_alive()

    async def speech(self, request: Request) -> Response:
        """`POST /v1/audio/speech`."""
        body = await request.json()
        self.asked.append(body)
        self.keys.append(request.headers.get("authorization"))
        if body.get("voice") == "nobody":
            return JSONResponse({"error": {"message": REFUSAL, "code": "x"}}, 404)
        if body["input"] == "proxy":
            return PlainTextResponse("<html>Bad Gateway</html>", 502)
        if body["input"] == "nothing":
            return Response(b"")
        if body["input"] == "break off":
            return _BrokenAnswer()
        pieces = (PCM[at : at + 1001] for at in range(0, len(PCM), 1001))
        return StreamingResponse(_asynchronous(pieces))

    @property
    def inputs(self) -> list[str]:
        """The texts it was asked to speak."""
        return [str(body["input"]) for body in self.asked]


async def _asynchronous(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


class _BrokenAnswer(Response):
    """Some audio, then a dropped connection: the body's last chunk never comes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": PCM, "more_body": True})


@pytest.fixture(scope="module")
def serving() -> Iterator[FakeGateway]:
    """One fake gateway for the module."""
    gateway = FakeGateway()
    gateway.start()
    yield gateway
    gateway.stop()


@pytest.fixture
def fake(serving: FakeGateway) -> FakeGateway:
    """The fake gateway, with nothing noted yet."""
    serving.asked.clear()
    serving.keys.clear()
    return serving


def _files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_wav_file_has_the_sizes_that_strict_players_want(
    fake: FakeGateway, tmp_path: Path
) -> None:
    """`say -o x.wav` writes a file that Python's own wave module reads with the right length."""
    assert main(["say", "Hello.", "-o", str(tmp_path / "x.wav"), "--url", fake.url]) == 0
    with wave.open(str(tmp_path / "x.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 24_000)
        assert file.getnframes() == len(PCM) // 2
        assert file.readframes(file.getnframes()) == PCM
    assert (tmp_path / "x.wav").stat().st_size == 44 + len(PCM)
    assert _files(tmp_path) == {"x.wav"}


def test_what_is_given_reaches_the_gateway(fake: FakeGateway, tmp_path: Path) -> None:
    """Voice, speed, key and the format of the suffix are sent; the rest is the gateway's choice."""
    arguments = ["say", "Hi.", "-o", str(tmp_path / "x.mp3"), "--url", fake.url + "/v1/"]
    arguments += ["--voice", "nova", "--speed", "1.5", "--api-key", "secret"]
    assert main(arguments) == 0
    assert fake.asked == [
        {"model": "tts-1", "input": "Hi.", "response_format": "mp3", "voice": "nova", "speed": 1.5}
    ]
    assert fake.keys == ["Bearer secret"]
    assert (tmp_path / "x.mp3").read_bytes() == PCM


@pytest.mark.parametrize("arguments", [["-"], []])
def test_the_text_comes_from_a_pipe(
    fake: FakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """`echo text | speech-gateway say` works with a dash and without."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("Grüße.\n".encode())))
    output = str(tmp_path / "x.pcm")
    assert main(["say", *arguments, "-o", output, "--url", fake.url]) == 0
    assert fake.inputs == ["Grüße."]


def test_the_text_comes_from_a_file(fake: FakeGateway, tmp_path: Path) -> None:
    """`--file` reads UTF-8."""
    (tmp_path / "in.txt").write_text("From a file.", "utf-8")
    arguments = ["--file", str(tmp_path / "in.txt"), "-o", str(tmp_path / "x.wav")]
    assert main(["say", *arguments, "--url", fake.url]) == 0
    assert fake.inputs == ["From a file."]


def test_a_long_text_is_one_request(fake: FakeGateway, tmp_path: Path) -> None:
    """The gateway splits and joins."""
    text = " ".join(f"This is sentence number {number}." for number in range(500))
    (tmp_path / "in.txt").write_text(text)
    arguments = ["say", "--file", str(tmp_path / "in.txt"), "-o", str(tmp_path / "x.flac")]
    assert main([*arguments, "--url", fake.url]) == 0
    assert fake.inputs == [text]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x", "--voice", "nobody"], "The voice 'nobody' does not exist. Voices: alloy."),
        (["proxy"], "status 502"),
        (["nothing"], "without any audio"),
        (["break off"], "broke off"),
    ],
)
def test_a_failure_is_one_line_and_leaves_no_half_file(
    fake: FakeGateway,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    """The gateway's own message is shown; a file that stood there before is not touched."""
    output = tmp_path / "x.wav"
    output.write_bytes(b"earlier")
    assert main(["say", *arguments, "-o", str(output), "--url", fake.url]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert said in error
    assert output.read_bytes() == b"earlier"
    assert _files(tmp_path) == {"x.wav"}


def test_an_address_where_nothing_listens_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what to do about it."""
    url = f"http://127.0.0.1:{free_port()}"
    assert main(["say", "x", "-o", str(tmp_path / "x.wav"), "--url", url]) == 1
    told = capsys.readouterr().err
    assert url in told
    assert "speech-gateway serve" in told
    assert _files(tmp_path) == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["x", "-o", "x.doc"],
        ["x", "-o", "nosuffix"],
        [" \n", "-o", "x.wav"],
        ["x", "--file", "also.txt", "-o", "x.wav"],
        ["--file", "missing.txt", "-o", "x.wav"],
        ["--file", "latin1.txt", "-o", "x.wav"],
    ],
)
def test_a_wrong_command_line_is_status_2(
    fake: FakeGateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    """One line, and nothing was spoken or written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin1.txt").write_bytes("Grüße".encode("latin-1"))
    assert main(["say", *arguments, "--url", fake.url]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert fake.asked == []
    assert _files(tmp_path) == {"latin1.txt"}


def test_a_folder_that_cannot_be_written_to_is_known_before_anything_is_spoken(
    fake: FakeGateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody waits for a minute of speech to hear that there is no such folder."""
    output = tmp_path / "missing" / "x.wav"
    assert main(["say", "x", "-o", str(output), "--url", fake.url]) == 1
    assert str(output) in capsys.readouterr().err
    assert fake.asked == []


def _player(folder: Path, script: str) -> None:
    path = folder / "aplay"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_without_a_file_the_speech_is_played(
    fake: FakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The player that is installed gets every sample, raw, with their rate."""
    _player(tmp_path, f'echo "$@" >{tmp_path}/options; exec /bin/cat >{tmp_path}/heard')
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["say", "Hello.", "--url", fake.url]) == 0
    assert (tmp_path / "heard").read_bytes() == PCM
    assert "-f S16_LE -c 1 -r 24000" in (tmp_path / "options").read_text()


def test_a_player_that_fails_is_a_failure(
    fake: FakeGateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A machine without a sound card: status 1, not silence and success."""
    _player(tmp_path, "/bin/cat >/dev/null; exit 3")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["say", "Hello.", "--url", fake.url]) == 1
    assert "aplay" in capsys.readouterr().err


def test_without_a_player_the_message_says_what_to_do(
    fake: FakeGateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Headless machines have none."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["say", "Hello.", "--url", fake.url]) == 1
    assert "-o" in capsys.readouterr().err
    assert fake.asked == []
