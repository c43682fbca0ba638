"""The transcoder's manners: errors, threads, memory, silence on the terminal, purity."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import av
import psutil
import pytest

from gateway.audio.encoders import ENCODERS, RESPONSE_FORMATS
from gateway.audio.encoders.base import Encoder
from gateway.audio.transcoder import Transcoder
from gateway.errors import EncodingError
from tests.audio.hearing import (
    BLOCK_SAMPLES,
    blocks,
    encode,
    hear,
    speechlike,
    without_ogg_serial,
)

SPEECH = speechlike(0.5)
CODED = ("mp3", "opus", "aac", "flac")


def test_only_real_work_asks_for_a_thread() -> None:
    """WAV and PCM as the engine made them are passed on where they arrive."""
    assert [name for name in ENCODERS if not Transcoder(name).needs_thread] == ["wav", "pcm"]
    assert Transcoder("pcm", speed=1.5).needs_thread
    assert Transcoder("wav", sample_rate_hz=16_000).needs_thread


@pytest.mark.parametrize(
    "arguments",
    [
        {"response_format": "ogg"},
        {"response_format": "wav", "speed": 0.2},
        {"response_format": "wav", "speed": 4.1},
        {"response_format": "wav", "speed": float("nan")},
        {"response_format": "wav", "sample_rate_hz": 11_025},
    ],
)
def test_what_the_api_does_not_have_is_refused_at_once(arguments: dict[str, object]) -> None:
    """A wrong format, speed or rate fails before any audio, not in the middle."""
    with pytest.raises(ValueError, match=r"no such|outside"):
        Transcoder(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("buffered", [False, True])
@pytest.mark.parametrize("response_format", RESPONSE_FORMATS)
def test_no_audio_at_all_is_no_failure(response_format: str, *, buffered: bool) -> None:
    """An empty answer ends cleanly; WAV still has its header."""
    transcoder = Transcoder(response_format, speed=2.0, sample_rate_hz=16_000, buffered=buffered)
    assert transcoder.feed(b"") == b""
    data = transcoder.finish()
    assert len(data) == 44 if response_format == "wav" else len(data) < 200
    assert transcoder.output_seconds == 0
    transcoder.close()


@pytest.mark.parametrize("response_format", RESPONSE_FORMATS)
def test_a_single_sample_is_encoded(response_format: str) -> None:
    """The shortest audio is audio."""
    transcoder = Transcoder(response_format)
    data = encode(transcoder, [b"\x01\x02"])
    assert transcoder.output_seconds * transcoder.sample_rate_hz == 1
    assert hear(data, response_format).samples.size >= 1


@pytest.mark.parametrize("response_format", CODED)
def test_a_codec_s_failure_is_told_in_the_gateway_s_words(response_format: str) -> None:
    """What a codec raises becomes an EncodingError with its cause; closing works afterwards."""
    transcoder = Transcoder(response_format)
    encode(transcoder, blocks(SPEECH))
    with pytest.raises(EncodingError) as caught:
        transcoder.feed(SPEECH)  # the codec was flushed: it takes no more
    assert caught.value.__cause__ is not None
    assert caught.value.status == 500
    transcoder.close()
    transcoder.close()


def test_an_error_of_ffmpeg_while_opening_is_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A codec that this FFmpeg lacks is an EncodingError too, and close stays safe."""
    monkeypatch.setattr(ENCODERS["opus"], "codec", "no-such-codec")
    transcoder = Transcoder("opus")
    with pytest.raises(EncodingError) as caught:
        transcoder.feed(SPEECH)
    assert isinstance(caught.value.__cause__, av.FFmpegError | ValueError)
    transcoder.close()


@pytest.mark.parametrize("response_format", RESPONSE_FORMATS)
def test_a_closed_transcoder_refuses_audio(response_format: str) -> None:
    """Closing is final, whether or not anything was fed before."""
    for fed in (b"", SPEECH):
        transcoder = Transcoder(response_format)
        transcoder.feed(fed)
        transcoder.close()
        transcoder.close()
        with pytest.raises(EncodingError):
            transcoder.feed(SPEECH)
        with pytest.raises(EncodingError):
            transcoder.finish()


@pytest.mark.parametrize("response_format", RESPONSE_FORMATS)
def test_each_chunk_may_be_encoded_by_another_thread(response_format: str) -> None:
    """A pool's threads take turns with an answer; its bytes are the same as from one thread."""
    alone = encode(Transcoder(response_format, speed=1.5), blocks(SPEECH))
    expected = without_ogg_serial(alone)
    transcoder = Transcoder(response_format, speed=1.5)
    data, used = [], set()

    def in_new_thread(step: object, *arguments: bytes) -> None:
        def run() -> None:
            used.add(threading.get_ident())
            data.append(step(*arguments))  # type: ignore[operator]

        with ThreadPoolExecutor(1) as pool:
            pool.submit(run).result()

    keep = [ThreadPoolExecutor(1) for _ in range(2)]  # so that idents are not given out again
    for pool in keep:
        pool.submit(threading.get_ident).result()
    for block in blocks(SPEECH, 4 * BLOCK_SAMPLES):
        in_new_thread(transcoder.feed, block)
    in_new_thread(transcoder.finish)
    for pool in keep:
        pool.shutdown()
    assert without_ogg_serial(b"".join(data)) == expected


def test_many_answers_at_a_time_do_not_mix() -> None:
    """Four threads encode different answers at once; each is what it is alone."""
    speeches = [speechlike(0.5, seed) for seed in range(12)]

    def run(index: int) -> bytes:
        transcoder = Transcoder(CODED[index % 4], speed=1.2)
        return without_ogg_serial(encode(transcoder, blocks(speeches[index])))

    alone = [run(index) for index in range(12)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(12))) == alone


def test_encoders_start_no_threads_of_their_own() -> None:
    """FFmpeg's thread pools would make thousands of threads of a few hundred streams."""
    before = psutil.Process().num_threads()
    running = [Transcoder(name, speed=1.5, sample_rate_hz=16_000) for name in CODED]
    for transcoder in running:
        transcoder.feed(SPEECH)
    assert psutil.Process().num_threads() <= before
    for transcoder in running:
        transcoder.close()


@pytest.mark.parametrize("finished", [True, False])
def test_a_thousand_answers_leave_no_memory_behind(*, finished: bool) -> None:
    """Closing frees codecs at once, without the garbage collector, ended or broken off."""

    def run(count: int) -> None:
        for index in range(count):
            transcoder = Transcoder(
                RESPONSE_FORMATS[index % 6],
                speed=1.0 if index % 4 else 1.5,
                buffered=index % 7 == 0,
            )
            transcoder.feed(SPEECH[:4800])
            if finished:
                transcoder.finish()
            transcoder.close()

    process = psutil.Process()
    run(120)
    gc.collect()
    gc.disable()
    try:
        before = process.memory_info().rss
        run(1000)
        assert process.memory_info().rss - before < 8 * 1024 * 1024
    finally:
        gc.enable()


def test_ffmpeg_writes_nothing_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    """Libraries' warnings (an encoder broken off, garbage decoded) are not the operator's logs."""
    for name in CODED:
        transcoder = Transcoder(name, sample_rate_hz=8000)
        transcoder.feed(SPEECH)
        transcoder.close()
    hear(b"garbage" * 50, "flac")
    assert capfd.readouterr() == ("", "")


def test_audio_text_and_wire_need_no_event_loop_and_no_http() -> None:
    """The pure rooms stay pure: importing all of them loads no asyncio, HTTP or ASGI library."""
    program = """
import importlib, pkgutil, sys
import gateway.audio, gateway.text
for room in (gateway.audio, gateway.text):
    for module in pkgutil.walk_packages(room.__path__, room.__name__ + "."):
        importlib.import_module(module.name)
importlib.import_module("gateway.upstream.parsers")
assert "gateway.audio.encoders.mp3" in sys.modules
foreign = {"asyncio", "anyio", "httpx", "starlette", "httptools", "uvicorn"} & set(sys.modules)
assert not foreign, foreign
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_encoder_is_an_encoder() -> None:
    """All files have one shape."""
    assert all(issubclass(encoder, Encoder) for encoder in ENCODERS.values())
