"""An engine that costs next to nothing: ready-made PCM at once, or paced as an engine sends it.

It speaks enough of the engine's HTTP contract for a gateway to take it for one. Run as
`python -m loadtest.peers.stub PORT [--audio-seconds 4] [--chunk-frames 25] [--paced]`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import cast

import uvloop

FRAME_BYTES = 1920  # one audio token: 40 ms, 24 kHz, s16le mono
FRAMES_PER_SECOND = 25
VOICES = ["belinda", "chadwick", "en_man", "en_woman", "mabel", "vex"]
MODEL = {"object": "list", "data": [{"id": "stub", "object": "model", "max_model_len": 8192}]}
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n\r\n"
_END = b"0\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _json(value: object) -> bytes:
    body = json.dumps(value).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


class Stub(asyncio.Protocol):
    """One connection.

    Args:
        chunks: The audio of an answer, each an HTTP chunk.
        seconds: Between two chunks; 0 sends them together.
    """

    def __init__(self, chunks: list[bytes], seconds: float) -> None:
        self._chunks = chunks
        self._seconds = seconds
        self._received = bytearray()
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the answer that is being paced."""
        del exc
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._received[:end]).lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
            if b"transfer-encoding: chunked" in head:
                close = self._received.find(b"0\r\n\r\n", end + 4)
                if close < 0:
                    return
                length = close + 5 - end - 4
            if len(self._received) < end + 4 + length:
                return
            del self._received[: end + 4 + length]
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        path = head.split(b" ", 2)[1]
        if path == b"/v1/audio/speech":
            self._task = asyncio.ensure_future(self._speak())
        elif path == b"/v1/models":
            self._transport.write(_json(MODEL))
        elif path == b"/v1/audio/voices":
            self._transport.write(_json(VOICES))
        else:
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async def _speak(self) -> None:
        """Send chunk by chunk, as every engine does, however fast it is."""
        self._transport.write(_HEAD)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number, chunk in enumerate(self._chunks, 1):
            self._transport.write(chunk)
            await asyncio.sleep(
                began + number * self._seconds - loop.time() if self._seconds else 0
            )
        self._transport.write(_END)


async def serve(port: int, audio_seconds: float, chunk_frames: int, *, paced: bool) -> None:
    """Serve on loopback until ended."""
    frames = round(audio_seconds * FRAMES_PER_SECOND)
    # A sound that never falls silent, as speech does not for long.
    frame = b"\x10\x20\xf0\xdf" * (FRAME_BYTES // 4)
    sizes = [chunk_frames] * (frames // chunk_frames)
    if frames % chunk_frames:
        sizes.append(frames % chunk_frames)
    chunks = [_chunk(frame * size) for size in sizes]
    seconds = chunk_frames / FRAMES_PER_SECOND if paced else 0.0
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Stub(chunks, seconds), "127.0.0.1", port, backlog=8192
    )
    await server.serve_forever()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--audio-seconds", type=float, default=4.0)
    parser.add_argument("--chunk-frames", type=int, default=25)
    parser.add_argument("--paced", action="store_true", help="25 frames a second, as heard")
    asked = parser.parse_args()
    uvloop.run(serve(asked.port, asked.audio_seconds, asked.chunk_frames, paced=asked.paced))


if __name__ == "__main__":
    main()
