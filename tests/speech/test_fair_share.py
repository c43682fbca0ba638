"""A long text among short ones, in turns: in each turn every generation that runs is spoken."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from gateway.audio.join import Joiner
from gateway.audio.pcm import silence
from gateway.settings import load_settings
from gateway.speech.admission import Admission
from gateway.speech.generation import WatchedGeneration
from gateway.speech.long_text import LookAhead, SegmentedSource
from gateway.speech.prepare import Context, GenerationPlan, prepare
from gateway.speech.request import SpeechRequest
from gateway.text.boundary import Boundary
from gateway.text.split import Segment
from gateway.text.spoken_text import read_text

pytestmark = pytest.mark.anyio

SLOTS, SEGMENTS, SHORT_REQUESTS = 4, 100, 20
TEXT = read_text("x", 10, normalised=False)
REQUEST = SpeechRequest("openai", TEXT, "pcm", "mabel", "mabel")


async def settle() -> None:
    """Let every task do what it can."""
    for _ in range(50):
        await asyncio.sleep(0)


class Spoken(WatchedGeneration):
    """A generation that is over when its turn is."""

    def __init__(self, engine: Engine) -> None:
        self.received_bytes = 0
        self._engine = engine
        self._over = asyncio.Event()
        engine.running.append(self._over)

    async def read(self) -> bytes:
        """All of its audio at once, then the end."""
        if self.received_bytes:
            return b""
        await self._over.wait()
        pcm = silence(0.1)
        self.received_bytes = len(pcm)
        return pcm

    def close(self) -> None:
        """Leave the engine."""
        if self._over in self._engine.running:
            self._engine.running.remove(self._over)


class Engine:
    """Speaks whatever runs on it in one turn."""

    def __init__(self) -> None:
        self.running: list[asyncio.Event] = []
        self.turns = 0
        self.said: list[str] = []
        self.went_on: list[bool] = []

    async def start(self, plan: GenerationPlan) -> WatchedGeneration:
        """A segment's generation."""
        self.said.append(plan.generation.text)
        self.went_on.append(plan.generation.goes_on)
        return Spoken(self)

    async def turn(self) -> None:
        """One turn."""
        self.turns += 1
        for over in list(self.running):
            over.set()
        await settle()


@dataclass
class Short:
    """A request of one generation."""

    came: int
    waited: int | None = None

    async def ask(self, admission: Admission, engine: Engine) -> None:
        """Wait for a slot, speak, and give it back."""
        await admission.acquire()
        self.waited = engine.turns - self.came
        spoken = Spoken(engine)
        await spoken.read()
        spoken.close()
        admission.release()


class Long:
    """A request of a hundred segments whose client listens as fast as it comes."""

    def __init__(self, admission: Admission, engine: Engine) -> None:
        prepared = prepare(REQUEST, load_settings(normalise_text=False))
        assert prepared.context is Context.NONE
        self.source = SegmentedSource(
            prepared,
            (Segment(str(number), Boundary.SENTENCE) for number in range(SEGMENTS)),
            engine.start,
            lambda _: False,
            admission,
            Joiner(),
            LookAhead(),
        )
        self._admission = admission

    async def listen(self) -> None:
        """From its slot to its end."""
        await self._admission.acquire()
        while await self.source.read():
            pass
        self.source.close()
        self._admission.release()


async def test_a_hundred_segments_hold_nobody_up_for_longer_than_one() -> None:
    """Who comes while the long text has every slot gets one in the next turn."""
    admission, engine = Admission(SLOTS, 256, 60.0), Engine()
    long = asyncio.create_task(Long(admission, engine).listen())
    await settle()
    tasks, shorts = [], []
    for _ in range(SHORT_REQUESTS):
        await engine.turn()
        assert len(engine.running) == SLOTS, "a slot is idle"
        shorts.append(Short(engine.turns))
        tasks.append(asyncio.create_task(shorts[-1].ask(admission, engine)))
        await settle()
    while not long.done():
        await engine.turn()
    await asyncio.gather(long, *tasks)
    assert {short.waited for short in shorts} == {1}
    assert engine.said == [str(number) for number in range(SEGMENTS)]
    # Only the answer that has begun may use an upstream that is being drained.
    assert engine.went_on == [False] + [True] * (SEGMENTS - 1)
    assert engine.turns == -(-(SEGMENTS + SHORT_REQUESTS) // SLOTS)
    assert repr(admission) == "<Admission 0/4 in flight, 0/256 queued>"


async def test_a_crowd_of_short_ones_has_all_slots_but_the_long_ones_own() -> None:
    """Twenty at once: the long text goes on with one slot, and they share the others."""
    admission, engine = Admission(SLOTS, 256, 60.0), Engine()
    long = asyncio.create_task(Long(admission, engine).listen())
    await settle()
    await engine.turn()
    shorts = [Short(engine.turns) for _ in range(SHORT_REQUESTS)]
    tasks = [asyncio.create_task(short.ask(admission, engine)) for short in shorts]
    await settle()
    before = len(engine.said)
    while not all(task.done() for task in tasks):
        await engine.turn()
    assert [short.waited for short in shorts] == [
        1 + place // (SLOTS - 1) for place in range(SHORT_REQUESTS)
    ]
    spoken_meanwhile = len(engine.said) - before
    assert spoken_meanwhile >= SHORT_REQUESTS // (SLOTS - 1), "the long one stood still"
    while not long.done():
        await engine.turn()
    await asyncio.gather(long, *tasks)
    assert repr(admission) == "<Admission 0/4 in flight, 0/256 queued>"
