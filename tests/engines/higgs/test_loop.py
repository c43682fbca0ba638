"""The generation loop on a CPU: codes as transformers' `generate`, slots, ends and guards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from engines.voice import EngineBusyError, EngineDownError, PromptTooLongError
from tests.engines.higgs.tiny import (
    CONTEXT,
    decoder_of,
    prompt_of,
    transformers_inputs,
    transformers_model,
)

torch = pytest.importorskip("torch", reason="the extra `gpu` is not installed")

from engines.higgs.generation import (  # noqa: E402
    EndReason,
    Generation,
    GenerationRequest,
    Sampling,
)
from engines.higgs.loop import GenerationLoop, LoopOptions  # noqa: E402
from engines.higgs.model import Decoder  # noqa: E402

GREEDY = Sampling(temperature=0, repetition_window=0)
PATIENCE_SECONDS = 60


@pytest.fixture(scope="module")
def model() -> Any:
    """Return transformers' model."""
    return transformers_model()


@pytest.fixture(scope="module")
def decoder(model: Any) -> Decoder:
    """Return our decoder with the same weights."""
    return decoder_of(model)


class Reader:
    """Waits for a generation by its own event."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.notify = self._event.set

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition that the loop's thread makes true."""
        while not condition():
            assert self._event.wait(PATIENCE_SECONDS), "the loop says nothing"
            self._event.clear()


Build = Callable[..., GenerationLoop]


@pytest.fixture
def build(decoder: Decoder) -> Iterator[Build]:
    """Return a factory of started loops."""
    loops = []

    def start(made_of: Decoder = decoder, **options: Any) -> GenerationLoop:
        defaults = {"slots": 4, "context": CONTEXT, "repetition_guard": False}
        loops.append(GenerationLoop(made_of, LoopOptions(**{**defaults, **options})))
        loops[-1].start()
        return loops[-1]

    yield start
    for loop in loops:
        loop.stop()


def finished(loop: GenerationLoop, *requests: GenerationRequest) -> list[Generation]:
    """Run requests at once to their ends."""
    reader = Reader()
    generations = [loop.submit(request, reader.notify) for request in requests]
    reader.until(lambda: all(g.end is not None for g in generations))
    return generations


def codes_of(generation: Generation) -> list[list[int]]:
    """Return the codes that came."""
    return generation.codes[: generation.ready].tolist()


def figures(loop: GenerationLoop) -> dict[str, float]:
    """What a loop has done, by its metrics' names or, where these share one, by their labels."""
    return {metric.labels or metric.name: metric.value for metric in loop.metrics()}


@pytest.mark.parametrize("references", [(), (20,), (9, 14)])
def test_greedy_codes_equal_generate_of_transformers(
    model: Any, decoder: Decoder, build: Build, references: tuple[int, ...]
) -> None:
    """200 frames, or to the end where the model says so: the same rows, the delay undone."""
    prompt = prompt_of(decoder.config, references=references)
    with torch.inference_mode():
        rows = model.generate(**transformers_inputs(prompt), max_new_tokens=208, do_sample=False)
    rows = rows[0, len(prompt.audio_rows) :].numpy()
    (generation,) = finished(build(), GenerationRequest(prompt, 200, GREEDY))
    ended = (rows == 1025).all(-1)
    if ended.any():  # the last frame of transformers may be one whose first code is EOS
        first_end = int(np.flatnonzero(rows[:, 0] == 1025)[0])
        assert generation.end is EndReason.STOP
        assert generation.ready == first_end - 1
    else:
        assert generation.end is EndReason.LENGTH
        assert generation.ready == 200
    padded = np.concatenate((rows, np.full((9, 8), 1025)))
    at = np.arange(generation.ready)[:, None] + 1 + np.arange(8)
    wanted = padded[at, np.arange(8)]
    assert codes_of(generation) == np.minimum(wanted, 1023).tolist()


def test_at_least_one_of_the_prompts_fills_200_frames_and_one_ends_by_itself(
    decoder: Decoder, build: Build
) -> None:
    """So that the comparison above sees both ends."""
    prompts = [prompt_of(decoder.config, references=r) for r in ((), (20,), (9, 14))]
    ends = {g.end for g in finished(build(), *(GenerationRequest(p, 200, GREEDY) for p in prompts))}
    assert ends == {EndReason.LENGTH, EndReason.STOP}


def request(decoder: Decoder, seed: int, *, frames: int = 40, **fields: Any) -> GenerationRequest:
    """Return a request that samples, with a reference of its own length."""
    prompt = prompt_of(decoder.config, references=(9 + seed % 5,), seed=seed)
    return GenerationRequest(prompt, frames, Sampling(seed=seed, **fields))


def test_in_a_fixed_batch_codes_do_not_depend_on_the_neighbours(
    decoder: Decoder, build: Build
) -> None:
    """Alone, in another slot, and beside others that come, go and are cancelled: the same bits."""
    (alone,) = finished(build(deterministic=True), request(decoder, 1))
    loop = build(deterministic=True, prefix_positions=0)
    reader = Reader()
    others = [loop.submit(request(decoder, n, frames=n * 7), reader.notify) for n in (2, 3)]
    beside = loop.submit(request(decoder, 1), reader.notify)
    others.append(loop.submit(request(decoder, 5, frames=200), reader.notify))
    reader.until(lambda: beside.ready > 3)
    others[-1].cancel()
    others.append(loop.submit(request(decoder, 6), reader.notify))
    reader.until(lambda: beside.end is not None)
    assert codes_of(beside) == codes_of(alone)
    assert alone.ready > 20


def test_many_at_once_give_what_they_give_alone(decoder: Decoder, build: Build) -> None:
    """From 16 rows on, steps are read several at a time; answers end between and within them."""
    requests = [request(decoder, n, frames=2 + n % 7) for n in range(16)]
    loop = build(slots=16, deterministic=True)
    together = finished(loop, *requests)
    for asked, generation in list(zip(requests, together, strict=True))[5:7]:
        (alone,) = finished(loop, asked)
        assert codes_of(generation) == codes_of(alone)
        assert (generation.end, generation.ready) == (alone.end, alone.ready)
    assert {generation.end for generation in together} >= {EndReason.LENGTH}


def test_a_seed_repeats_and_another_does_not(decoder: Decoder, build: Build) -> None:
    """The seed that the loop draws is told, and repeats too."""
    loop = build(deterministic=True)
    prompt = prompt_of(decoder.config)
    drawn, other = finished(loop, *[GenerationRequest(prompt, 30, Sampling())] * 2)
    (again,) = finished(loop, GenerationRequest(prompt, 30, Sampling(seed=drawn.seed)))
    assert codes_of(again) == codes_of(drawn)
    assert codes_of(other) != codes_of(drawn)


def test_a_shared_prefix_is_computed_once_and_changes_nothing(
    decoder: Decoder, build: Build
) -> None:
    """Two at once and one later: the codes of a loop that keeps no prefix."""
    requests = [request(decoder, 7), request(decoder, 7), request(decoder, 7)]
    (wanted,) = finished(build(deterministic=True, prefix_positions=0), requests[0])
    for deterministic in (True, False):
        loop = build(deterministic=deterministic)
        got = [*finished(loop, *requests[:2]), *finished(loop, requests[2])]
        assert [codes_of(generation) for generation in got] == [codes_of(wanted)] * 3
        stats = figures(loop)
        shared = requests[0].prompt.shared_positions
        assert stats["vllm:gpu_prefix_cache_queries_total"] == 3
        assert stats["vllm:gpu_prefix_cache_hits_total"] == 2
        rest = len(requests[0].prompt.token_ids) - shared
        assert stats["vllm:prompt_tokens_total"] == shared + 3 * rest


def test_prefixes_beyond_their_room_go_and_come_back(decoder: Decoder, build: Build) -> None:
    """Room for one voice: two in turn are computed each time."""
    loop = build(prefix_positions=40)
    for seed in (1, 2, 1):
        finished(loop, request(decoder, seed, frames=3))
    assert figures(loop)["vllm:gpu_prefix_cache_queries_total"] == 3
    assert figures(loop)["vllm:gpu_prefix_cache_hits_total"] == 0


def test_a_long_prompt_in_small_chunks_gives_the_same_codes(decoder: Decoder, build: Build) -> None:
    """Chunks of 16 positions against one."""
    prompt = prompt_of(decoder.config, references=(30, 25), texts=40)
    asked = GenerationRequest(prompt, 30, GREEDY)
    (one,) = finished(build(), asked)
    many = finished(build(chunk_positions=16), *[asked] * 3)
    assert [codes_of(generation) for generation in many] == [codes_of(one)] * 3


def test_cancel_frees_the_slot_for_who_waits(decoder: Decoder, build: Build) -> None:
    """One slot: the second request runs once the first is cancelled, and gives its own codes."""
    loop = build(slots=1)
    reader = Reader()
    first = loop.submit(request(decoder, 1, frames=230), reader.notify)
    second = loop.submit(request(decoder, 2), reader.notify)
    third = loop.submit(request(decoder, 3), reader.notify)
    third.cancel()
    reader.until(lambda: first.ready > 0)
    first.cancel()
    reader.until(lambda: second.end is not None and third.end is not None)
    assert first.end is EndReason.CANCELLED
    assert third.end is EndReason.CANCELLED
    assert third.ready == 0
    (alone,) = finished(build(slots=1), request(decoder, 2))
    assert codes_of(second) == codes_of(alone)
    ended = {name: count for name, count in figures(loop).items() if "reason" in name and count}
    assert ended == {f'reason="{second.end}"': 1, 'reason="cancelled"': 2}
    assert loop.running == 0


def test_requests_that_cannot_be_taken_are_refused(decoder: Decoder, build: Build) -> None:
    """Too long for a slot; more than slots and queue hold; after the end."""
    loop = build(slots=1, queue_size=1)
    with pytest.raises(PromptTooLongError, match=f"needs 3.. positions and a slot has {CONTEXT}"):
        loop.submit(request(decoder, 1, frames=CONTEXT), print)
    reader = Reader()
    running = loop.submit(request(decoder, 1, frames=230), reader.notify)
    reader.until(lambda: running.ready > 0)
    loop.submit(request(decoder, 2), reader.notify)
    with pytest.raises(EngineBusyError):
        loop.submit(request(decoder, 3), reader.notify)
    loop.stop()
    assert running.end is EndReason.FAILED
    assert not loop.alive()
    with pytest.raises(EngineDownError):
        loop.submit(request(decoder, 3), reader.notify)


def test_random_weights_run_to_the_cap(decoder: Decoder, build: Build) -> None:
    """EOS is masked for them, so lengths of a measurement are known."""
    loop = build(never_stop=True)
    generations = finished(loop, *(request(decoder, n, frames=200) for n in range(4)))
    assert {(g.end, g.ready) for g in generations} == {(EndReason.LENGTH, 200)}


def test_output_that_is_not_a_number_ends_its_own_request_alone(build: Build) -> None:
    """A text embedding that is NaN breaks who says it; the neighbour goes on."""
    decoder = decoder_of(transformers_model())
    decoder.weights.text_embedding[77] = torch.nan
    loop = build(decoder)
    good = request(decoder, 1)
    prompt = prompt_of(decoder.config)
    prompt.token_ids[3] = 77
    reader = Reader()
    beside = loop.submit(good, reader.notify)
    broken = loop.submit(GenerationRequest(prompt, 40), reader.notify)
    reader.until(lambda: broken.end is not None and beside.end is not None)
    assert broken.end is EndReason.FAILED
    assert broken.error is not None
    assert broken.ready == 0
    assert beside.end is not EndReason.FAILED
    (later,) = finished(loop, good)
    assert later.end is beside.end


def test_a_generation_that_repeats_itself_is_ended(build: Build) -> None:
    """A head that always prefers one code, drawn greedily."""
    decoder = decoder_of(transformers_model())
    decoder.weights.audio_head.zero_()
    loop = build(decoder, repetition_guard=True)
    (generation,) = finished(loop, GenerationRequest(prompt_of(decoder.config), 250, GREEDY))
    assert generation.end is EndReason.REPETITION
    assert generation.ready == 100


def test_a_loop_that_breaks_ends_everybody_and_says_so(build: Build) -> None:
    """The error's text reaches the generation; nothing is taken afterwards."""
    decoder = decoder_of(transformers_model())
    loop = build(decoder)
    decoder.weights.layers[0].qkv = None  # type: ignore[assignment]
    (generation,) = finished(loop, GenerationRequest(prompt_of(decoder.config), 20, GREEDY))
    assert generation.end is EndReason.FAILED
    assert generation.error is not None
    assert not loop.alive()
    with pytest.raises(EngineDownError):
        loop.submit(request(decoder, 1), print)
