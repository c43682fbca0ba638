"""Tests of the voice around a loop and codec that a test scripts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from engines.higgs.codec import Codec
from engines.higgs.codec_worker import BatchDecoder, CodecWorker
from engines.higgs.config import random_config
from engines.higgs.generation import (
    EndReason,
    Generation,
    GenerationRequest,
)
from engines.higgs.prompt import PromptBuilder, RandomTokenizer
from engines.higgs.references import ReferenceEncoder
from engines.higgs.voice import EXIT_FAILED, HiggsVoice
from engines.voice import (
    EngineBusyError,
    EngineDownError,
    EngineFailureError,
    Job,
    PromptTooLongError,
    UnspeakableError,
)
from gateway.commands.main import main
from loadtest.processes import wait_until
from tests.voices.recordings import tone, wav


class ScriptedLoop:
    """Answers each request at once with frames and an end, or raises."""

    slots = running = 1
    waiting = 0
    capacity = 3
    context_positions = 1000

    def __init__(self) -> None:
        self.frames = 40
        self.end: EndReason | None = EndReason.STOP
        self.error: Exception | None = None
        self.living = True
        self.generations: list[Generation] = []

    def submit(self, request: GenerationRequest, notify: Callable[[], None]) -> Generation:
        """All frames at once."""
        if self.error is not None:
            raise self.error
        generation = Generation(request, 0, np.zeros(16, np.int32), notify)
        self.generations.append(generation)
        count = min(self.frames, request.max_frames)
        generation.codes[:count] = np.random.default_rng(0).integers(0, 1024, (count, 8))
        generation.ready = count
        if self.end is not None:
            generation.finish(self.end, "the logits are not finite")
        else:
            notify()
        return generation

    def alive(self) -> bool:
        """As a test says."""
        return self.living

    def stop(self) -> None:
        """Nothing runs."""


class Setup:
    """A voice on a scripted loop."""

    def __init__(self) -> None:
        self.loop = ScriptedLoop()
        self.codec = Codec.random(tiny=True)
        self.worker = CodecWorker(BatchDecoder(self.codec))
        self.worker.start()
        builder = PromptBuilder(RandomTokenizer(), random_config(tiny=True))
        encoder = ReferenceEncoder(self.codec, 20)
        loop: Any = self.loop
        self.voice = HiggsVoice("m", loop, self.worker, builder, encoder, facts={})

    def say(self, **fields: Any) -> tuple[bytes, Job]:
        """PCM of a job, and the job."""
        defaults = {"text": "Hello there.", "preset": None, "system_prompt": None}
        job = Job(**{"references": (), "max_tokens": 400, **defaults, **fields})

        async def run() -> bytes:
            await self.voice.start()
            try:
                return b"".join([chunk async for chunk in self.voice.generate(job)])
            finally:
                await self.voice.stop()

        return asyncio.run(run()), job


def test_random_weights_do_not_give_the_golden_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """The comparison runs, and says no."""
    assert main(["doctor", "--golden", "random-tiny", "--device", "cpu"]) == 1
    assert capsys.readouterr().out.startswith("0% of the codes")


@pytest.fixture(name="setup")
def setup_fixture() -> Setup:
    """A new one; saying something ends its threads."""
    return Setup()


@pytest.mark.parametrize(
    ("end", "reason"), [(EndReason.STOP, "stop"), (EndReason.LENGTH, "length")]
)
def test_an_answer_carries_all_frames_and_its_reason(
    setup: Setup, end: EndReason, reason: str
) -> None:
    """Every frame is 960 samples."""
    setup.loop.end = end
    pcm, job = setup.say()
    assert len(pcm) == 40 * 1920
    assert job.ending.finish_reason == reason
    assert setup.voice.running == 0


def test_a_failed_generation_is_an_error_not_an_end(setup: Setup) -> None:
    """With the loop's sentence."""
    setup.loop.end = EndReason.FAILED
    with pytest.raises(EngineFailureError, match="not finite"):
        setup.say()


def test_a_codec_that_fails_is_an_error_and_frees_the_slot(setup: Setup) -> None:
    """The generation would run on without a listener."""
    setup.loop.end = None
    setup.codec.offset = torch.full_like(setup.codec.offset, torch.nan)
    with pytest.raises(EngineFailureError, match="codec"):
        setup.say()
    assert setup.loop.generations[0].wanted_end is EndReason.CANCELLED


def test_silence_without_end_stops_the_generation(setup: Setup) -> None:
    """A second of it is heard, not the rest."""
    setup.loop.end = None
    setup.loop.frames = 250
    setup.codec.acoustic_decoder.conv2.weight[:] = 0
    setup.codec.acoustic_decoder.conv2.bias[:] = 0
    pcm, job = setup.say(max_tokens=300, text="Hello there. " * 9)
    assert setup.loop.generations[0].wanted_end is EndReason.REPETITION
    assert len(pcm) == 48_000
    assert job.ending.finish_reason == "length"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (EngineBusyError("full"), 429),
        (EngineDownError("it died"), 503),
        (PromptTooLongError("9 of 8"), 400),
    ],
)
def test_what_the_loop_refuses_has_a_status(
    setup: Setup, error: EngineFailureError, status: int
) -> None:
    """The HTTP side shows it."""
    setup.loop.error = error
    with pytest.raises(type(error)) as caught:
        setup.say()
    assert caught.value.status == status


def test_a_text_bounds_its_answer(setup: Setup) -> None:
    """A model that misses its end must not fill the context."""
    setup.say(max_tokens=900)
    assert 25 < setup.loop.generations[0].request.max_frames < 400


def test_a_text_is_counted_no_further_than_its_context(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A megabyte in one word would hold up all streams."""
    counted: list[str] = []
    count = PromptBuilder.count

    def counting(builder: PromptBuilder, text: str) -> int:
        counted.append(text)
        return count(builder, text)

    monkeypatch.setattr(PromptBuilder, "count", counting)
    assert setup.voice.count_tokens("word" * 300) == 300
    assert setup.voice.count_tokens("") == 0
    assert 1000 < setup.voice.count_tokens("a" * 1_000_000) < 10_000
    assert len("".join(counted)) < 20_000
    setup.worker.stop()


def test_a_prompt_over_the_context_is_refused_with_its_length(setup: Setup) -> None:
    """Counted by the model's own tokenizer."""
    with pytest.raises(PromptTooLongError, match="maximum model length of 1000"):
        setup.say(text="word " * 1200)


def test_a_recording_is_encoded_once_and_kept_by_its_content(setup: Setup) -> None:
    """Whatever it is called."""
    recording = wav(tone(1.0, 24_000), 24_000)
    encoder = ReferenceEncoder(setup.codec, 20)
    known = encoder.codes(recording).result()
    assert encoder.codes(bytes(bytearray(recording))).result() is known
    assert known.shape == (8, 25)
    assert np.array_equal(encoder.codes(recording + b"LIST").result(), known)
    assert encoder.codes(wav(tone(1.0, 44_100), 44_100)).result().shape == (8, 25)
    for bad in (
        b"",
        b"RIFF no sound",
        wav(tone(21, 8_000), 8_000),
        wav(tone(0.05, 24_000), 24_000),
    ):
        with pytest.raises(UnspeakableError):
            encoder.codes(bad).result()
    encoder.stop()
    setup.worker.stop()


def test_recordings_that_wait_are_encoded_together_whatever_becomes_of_one(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of one length at once; without the memory for that, one by one."""
    encoder = ReferenceEncoder(setup.codec, 20, batch_seconds=5)
    first_runs, may_run = threading.Event(), threading.Event()
    encode, batches = setup.codec.encode, []

    def watched(recordings: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        batches.append([len(each) // 24_000 for each in recordings])
        first_runs.set()
        assert may_run.wait(30)
        if len(recordings) == 4:
            raise torch.OutOfMemoryError
        return encode(recordings)

    monkeypatch.setattr(setup.codec, "encode", watched)
    sounds = [wav(tone(seconds, 24_000), 24_000) for seconds in (2.0, 1.0, 3.0)]
    first = encoder.codes(sounds[0])
    assert first_runs.wait(30)
    others = [encoder.codes(sounds[1] + bytes(n)) for n in range(1, 7)]
    wait_until(lambda: encoder.waiting == 6, "they are read")
    longer, left = encoder.codes(sounds[2]), encoder.codes(wav(tone(4.0, 24_000), 24_000))
    again = encoder.codes(sounds[2])
    wait_until(lambda: encoder.waiting == 8, "these are, too")
    assert left.cancel()  # its client left: it is not encoded
    assert longer.cancel()  # another waits for the same recording
    may_run.set()
    assert [each.result().shape[1] for each in (first, *others, again)] == [50, *[25] * 6, 75]
    encoder.stop()
    assert batches == [[2], [1, 1, 1, 1], *[[1]] * 4, [1, 1], [3]]
    setup.worker.stop()


def test_the_process_ends_when_its_loop_is_dead(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who supervises it starts it again."""
    setup.loop.living = False
    codes: list[int] = []
    monkeypatch.setattr("engines.higgs.voice.os._exit", codes.append)
    setup.say()
    assert codes == [EXIT_FAILED]
    assert setup.voice.failure() is not None
