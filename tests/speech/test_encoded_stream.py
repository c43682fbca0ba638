"""An answer that is closed while a thread encodes for it."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from engines.simulator.waveform import expected_pcm
from gateway.audio.transcoder import Transcoder
from gateway.errors import EncodingError
from gateway.speech.activity import Activity
from gateway.speech.encoded_stream import EncodedStream
from gateway.speech.generation import CompleteAudio
from gateway.speech.request import SpeechRequest
from gateway.telemetry.metrics import Metrics
from gateway.text.spoken_text import read_text
from gateway.upstream.wait_limit import WaitLimit

PCM = expected_pcm("Hello there.", "mabel")


class Held(Transcoder):
    """A codec whose work goes on when a test says so.

    Attributes:
        begun: A thread works with it.
        go_on: Lets the work go on.
        made: What the work gave, or why it failed.
    """

    def __init__(self, response_format: str) -> None:
        super().__init__(response_format)
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.made: bytes | EncodingError = b""

    def feed(self, pcm: bytes) -> bytes:
        """Encode, in the middle of it waiting for the test."""
        first = super().feed(pcm[:4800])
        self.begun.set()
        assert self.go_on.wait(120)
        try:
            self.made = first + super().feed(pcm[4800:])
        except EncodingError as error:
            self.made = error
            raise
        return self.made


@pytest.mark.anyio
@pytest.mark.parametrize("response_format", ["mp3", "opus", "aac", "flac"])
async def test_a_codec_is_freed_when_its_thread_has_done_with_it(response_format: str) -> None:
    """Freed before, the thread would work in memory that is somebody else's."""
    request = SpeechRequest("openai", read_text("Hello.", 10), response_format, "mabel", "mabel")
    transcoder = Held(response_format)
    given_back: list[str] = []
    with ThreadPoolExecutor(1) as executor:
        answer = EncodedStream(
            request,
            float,
            Activity().note(request),
            transcoder,
            WaitLimit(asyncio.get_running_loop().time() + 600),
            executor,
            Metrics(),
            time.monotonic(),
            CompleteAudio(PCM),
            partial(given_back.append, "slot"),
        )
        reading = asyncio.create_task(answer.read())
        assert await asyncio.to_thread(transcoder.begun.wait, 30)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        answer.close()
        assert given_back == ["slot"], "the slot waits for no codec"
        transcoder.go_on.set()
    assert isinstance(transcoder.made, bytes)
    assert transcoder.made
    with pytest.raises(EncodingError):
        Transcoder.feed(transcoder, PCM)
    answer.close()
    assert given_back == ["slot"]
