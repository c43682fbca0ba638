"""What the rows of `known_servers` rest on, asked of the servers themselves."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx

from tests.peers.servers import RunningPeer
from tests.peers.stand_ins import FAILING, SILENT
from tests.voices.recordings import tone, wav

RAW: dict[str, Any] = {"stream": True, "stream_format": "audio"}
BROKEN = -1  # in place of a status: headers, and then a connection that is cut


def ask(
    running: RunningPeer, text: str = "Hello there.", path: str = "/v1/audio/speech", **fields: Any
) -> tuple[int, httpx.Headers, bytes]:
    """Status, headers and body of a direct request."""
    with httpx.stream(
        "POST", running.url + path, json={"input": text} | fields, timeout=120
    ) as got:
        try:
            return got.status_code, got.headers, got.read()
        except httpx.RemoteProtocolError:
            return BROKEN, got.headers, b""


def vllm_omni(running: RunningPeer) -> None:
    """vllm_omni 0.30.0."""
    status, headers, body = ask(running, response_format="wav", **RAW)
    assert (status, headers["Content-Type"], body[:4]) == (200, "audio/wav", b"RIFF")
    assert body[40:44] == b"\xff" * 4
    assert ask(running, response_format="pcm", stream=True)[1]["Content-Type"].startswith("text/ev")
    # Headers are sent before the engine is asked: failures and silence are 200, or 4xx when whole.
    assert ask(running, f"Please {FAILING}.", response_format="wav", **RAW)[0] == BROKEN
    assert ask(running, f"Please {SILENT}.", response_format="wav", **RAW)[::2] == (200, b"")
    assert ask(running, f"Please {FAILING}.", response_format="wav")[0] == 500
    assert ask(running, f"Please {SILENT}.", response_format="wav")[0] == 400
    assert ask(running, response_format="mp3", **RAW)[0] == 400
    assert ask(running, response_format="pcm", speed=2.0, **RAW)[0] == 400
    ask(running, response_format="pcm", max_new_tokens=7, **RAW)
    ask(running, response_format="pcm", max_tokens=8, **RAW)
    begun = [line for line in running.log.read_text().splitlines() if "PEER begin" in line]
    assert "max_tokens=7 " in begun[-2]
    assert "max_tokens=1024 " in begun[-1]


def sglang_omni(running: RunningPeer) -> None:
    """sglang_omni 0.1.9."""
    status, headers, _ = ask(running, response_format="pcm", **RAW)
    assert (status, headers["X-Sample-Rate"], headers["Content-Type"]) == (
        200,
        "24000",
        "audio/pcm",
    )
    assert ask(running, response_format="wav", **RAW)[0] == 400
    # The first audio comes before the headers, so failures have a status of their own.
    assert ask(running, f"Please {FAILING}.", response_format="pcm", **RAW)[0] == 500
    assert ask(running, f"Please {SILENT}.", response_format="pcm", **RAW)[0] == 500
    assert ask(running, "a" * 4097, response_format="pcm", **RAW)[0] == 400
    assert ask(running, response_format="pcm", voice="alloy", **RAW)[0] == 400


def kokoro(running: RunningPeer) -> None:
    """remsky/Kokoro-FastAPI 26eec06."""
    known: dict[str, Any] = {"model": "kokoro", "voice": "af_heart", "response_format": "pcm"}
    assert ask(running, **known)[1].get("Transfer-Encoding") == "chunked"  # `stream` is its default
    assert ask(running, **{**known, "model": "higgs"})[0] == 400
    assert ask(running, **{**known, "voice": "marin"})[0] == 400
    assert ask(running, f"Please {FAILING}.", **known)[::2] == (200, b"")


def travisvn(running: RunningPeer) -> None:
    """travisvn/chatterbox-tts-api a5f4661."""
    assert ask(running, response_format="mp3")[2][:4] == b"RIFF"
    path = "/v1/audio/speech/stream"
    assert ask(running, path=path)[2][40:44] == b"\xff" * 4
    assert ask(running, f"Please {FAILING}.", path=path)[0] == BROKEN
    assert ask(running, "a" * 3001)[0] == 422


def devnen(running: RunningPeer) -> None:
    """devnen/Chatterbox-TTS-Server 68213e7."""
    assert httpx.get(running.url + "/v1/models").status_code == 404
    (voice, *_) = httpx.get(running.url + "/v1/audio/voices").json()["voices"]
    known: dict[str, Any] = {"model": "chatterbox", "voice": voice, "response_format": "wav"}
    whole = ask(running, **known)[2]
    assert int.from_bytes(whole[40:44], "little") == len(whole) - 44
    assert ask(running, f"Please {FAILING}.", **known)[0] == 500


def fetches_references(running: RunningPeer) -> bool:
    """Whether a server fetches a recording's address that a client names."""
    asked = threading.Event()

    class Recording(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.set()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(wav(tone(4.0, 24_000)))

    with HTTPServer(("127.0.0.1", 0), Recording) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/me.wav"
        answer = ask(running, response_format="pcm", ref_audio=url, ref_text="This is me.", **RAW)
        print("a recording's address:", answer[0], answer[2][:200] if answer[0] != 200 else "audio")
        server.shutdown()
    data = "data:audio/wav;base64," + base64.b64encode(wav(tone(4.0, 24_000))).decode()
    assert ask(running, response_format="pcm", ref_audio=data, ref_text="Me.", **RAW)[0] == 200
    return asked.is_set()


QUIRKS: Mapping[str, Callable[[RunningPeer], None]] = {
    "vllm-omni": vllm_omni,
    "sglang-omni": sglang_omni,
    "kokoro-fastapi": kokoro,
    "chatterbox-tts-api": travisvn,
    "chatterbox-tts-server": devnen,
}
