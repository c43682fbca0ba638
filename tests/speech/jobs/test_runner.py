"""Jobs on disk: taken over, made again, paused, lost and found, with a maker of known audio."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.audio.transcoder import BitRates
from gateway.errors import (
    JobNotFound,
    JobStoreBusy,
    JobStoreFull,
    SegmentLost,
    UpstreamProtocolError,
    WrongJobState,
)
from gateway.settings import load_settings
from gateway.speech.admission import Admission
from gateway.speech.jobs import store as store_module
from gateway.speech.jobs.chapters import split_chapters
from gateway.speech.jobs.files import write_file
from gateway.speech.jobs.job import FINAL, Job, Notes, State
from gateway.speech.jobs.jobs import Jobs
from gateway.speech.jobs.runner import MakeSegment, Runner
from gateway.speech.jobs.store import LeaseLost, Store
from gateway.speech.jobs.store_thread import StoreThread
from gateway.speech.prepare import Context, PreparedSpeech
from gateway.speech.request import SpeechRequest
from gateway.telemetry.metrics import Metrics
from gateway.text.split import Segment, iter_segments
from gateway.text.spoken_text import read_text
from gateway.upstream.dialect import Reference
from tests.running import until

TEXT = "\n\n".join(
    f"Chapter {chapter}\n\n"
    + " ".join(
        f"This is sentence {number} of chapter {chapter}, to be said." for number in range(40)
    )
    for chapter in range(1, 5)
)
REQUEST = SpeechRequest(
    surface="openai",
    text=read_text(TEXT, len(TEXT)),
    voice="mabel",
    voice_label="mabel",
    response_format="wav",
)
LEASE_SECONDS = 0.3


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Watchers see the end of a job soon."""
    monkeypatch.setattr("gateway.speech.jobs.jobs.LOOK_SECONDS", 0.02)


def pcm_of(text: str) -> bytes:
    """A second of audio that depends on the text alone."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    samples = np.random.default_rng(seed).integers(-9000, 9000, 24_000)
    return samples.astype("<i2").tobytes()


class Maker:
    """Makes known audio, and notes what it was asked for."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.references: list[tuple[Reference, ...]] = []
        self.before: Callable[[str], Awaitable[None]] | None = None

    async def __call__(  # noqa: D102  (the maker's one call)
        self, prepared: PreparedSpeech, text: str, references: tuple[Reference, ...]
    ) -> bytes:
        del prepared
        self.texts.append(text)
        self.references.append(references)
        if self.before is not None:
            await self.before(text)
        return pcm_of(text)


class Gateway:
    """One process' share of a folder of jobs."""

    def __init__(self, folder: Path, make: MakeSegment, **options: Any) -> None:
        self.admission = options.pop("admission", None) or Admission(8, 8, 5.0)
        self.metrics = Metrics()
        self.jobs = Jobs(
            folder,
            most_bytes=options.pop("most_bytes", 10**9),
            retention_seconds=options.pop("retention_seconds", 3600.0),
        )
        self._make = make
        self._context = options.pop("context", Context.NONE)
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        await self.jobs.open(self._runner)
        await self.jobs.run()

    def _runner(self, store: StoreThread) -> Runner:
        return Runner(
            store,
            ThreadPoolExecutor(1),
            self._make,
            self.prepare,
            self.admission,
            self.metrics,
            BitRates(),
            most_segments=2,
            lease_seconds=LEASE_SECONDS,
        )

    async def submit(self, text: str = TEXT, **options: Any) -> Job:
        """A new job."""
        await until(lambda: self.jobs._runner is not None)
        request = replace(REQUEST, text=read_text(text, len(text)))
        parts = split_chapters(text, markdown=False)
        return await self.jobs.submit(self.prepare(request), parts, Notes(), **options)

    def prepare(self, request: SpeechRequest) -> PreparedSpeech:
        """Short segments, and the context that the test wants."""
        return _Prepared(request, self._context, 0, 8192, load_settings())

    async def over(self, job: Job) -> Job:
        """The job at its end."""
        async with asyncio.timeout(120):
            async for seen in self.jobs.watch(job):
                job = seen
        return job

    async def stop(self) -> None:
        """End as an orderly process does."""
        self.task.cancel()
        await asyncio.wait([self.task])
        await self.jobs.aclose()

    def kill(self) -> None:
        """End as a killed process does: nothing is given up, no heartbeat follows."""
        runner = self.jobs._runner
        assert runner is not None
        runner.store = _Dead(runner.store)  # type: ignore[assignment]
        self.task.cancel()


class _Dead:
    """A store that nothing reaches any more; it can still be closed."""

    def __init__(self, store: StoreThread) -> None:
        self.aclose = store.aclose

    async def __call__(self, *_: Any, **__: Any) -> Any:
        raise sqlite3.ProgrammingError


class _Prepared(PreparedSpeech):
    """A request whose segments are short."""

    __slots__ = ()

    def segments_of(self, written: str) -> Iterator[Segment]:
        return iter_segments(written, likely_seconds_budget=10.0)


def run(
    folder: Path, test: Callable[[Gateway, Maker], Coroutine[Any, Any, None]], **options: Any
) -> None:
    """Run a test against one gateway."""

    async def body() -> None:
        maker = Maker()
        gateway = Gateway(folder, maker, **options)
        try:
            await test(gateway, maker)
        finally:
            await gateway.stop()

    asyncio.run(body())


async def audio_of(gateway: Gateway, job: Job) -> bytes:
    """A complete job's file."""
    return (await gateway.jobs.audio(job)).read_bytes()


def test_a_job_is_the_whole_text_with_its_chapters(tmp_path: Path) -> None:
    """Every segment once, in order; chapters begin where their audio does."""

    async def test(gateway: Gateway, maker: Maker) -> None:
        job = await gateway.over(await gateway.submit())
        assert job.state is State.COMPLETED, job.error
        assert job.segments == len(maker.texts) == len(set(maker.texts))
        assert "".join(maker.texts).count("sentence") == TEXT.count("sentence")
        assert [chapter.title for chapter in job.chapters] == [f"Chapter {n}" for n in range(1, 5)]
        starts = [chapter.start_seconds for chapter in job.chapters]
        assert starts[0] == 0.0
        assert starts == sorted(starts)  # type: ignore[type-var]
        number = job.chapters[1].segment  # a second each, and the pauses between them
        assert starts[1] is not None
        assert number <= starts[1] <= 1.5 * number
        wav = await audio_of(gateway, job)
        assert len(wav) == job.stored_bytes
        assert int.from_bytes(wav[40:44], "little") == len(wav) - 44
        assert gateway.metrics.sums()["gateway_job_segments_total:made"] == job.segments

    run(tmp_path, test)


def test_another_process_goes_on_with_a_killed_ones_job(tmp_path: Path) -> None:
    """With the segment that it had reached; the audio is that of an unbroken run."""

    async def test(gateway: Gateway, maker: Maker) -> None:
        unbroken = await audio_of(gateway, await gateway.over(await gateway.submit()))
        count = len(maker.texts)
        maker.texts.clear()
        stuck = asyncio.Event()

        async def stop_at_the_fifth(text: str) -> None:
            del text
            if len(maker.texts) > 4:
                await stuck.wait()

        maker.before = stop_at_the_fifth
        job = await gateway.submit()
        await until(lambda: len(maker.texts) > 5)
        gateway.kill()
        second_maker = Maker()
        second = Gateway(tmp_path, second_maker)
        try:
            await until(lambda: second.jobs._runner is not None)
            over = await second.over(job)
            assert over.state is State.COMPLETED, over.error
            assert await audio_of(second, over) == unbroken
            assert len(second_maker.texts) <= count - 4
            assert len(set(maker.texts[:4]) & set(second_maker.texts)) == 0
        finally:
            await second.stop()

    run(tmp_path, test)


def test_a_process_that_ends_in_order_gives_its_jobs_up_at_once(tmp_path: Path) -> None:
    """Its row has no holder; the next start goes on."""

    async def test(gateway: Gateway, maker: Maker) -> None:
        async def hang(text: str) -> None:
            del text
            await asyncio.Event().wait()

        maker.before = hang
        job = await gateway.submit()
        await until(lambda: maker.texts)
        gateway.task.cancel()
        await asyncio.wait([gateway.task])
        found = await gateway.jobs._store(Store.get, job.id)
        assert (found.state, found.holder) == (State.PROCESSING, None)

    run(tmp_path, test)


def test_a_job_that_the_end_of_its_process_meets_before_a_segment_has_not_failed(
    tmp_path: Path,
) -> None:
    """No slot is given any more: another process goes on with it."""

    async def test(gateway: Gateway, maker: Maker) -> None:
        refused = asyncio.Event()
        prepare = gateway.prepare
        taken: list[PreparedSpeech] = []

        def noted(request: SpeechRequest) -> PreparedSpeech:
            gateway.admission.close()
            refused.set()
            taken.append(prepare(request))
            return taken[-1]

        await until(lambda: gateway.jobs._runner is not None)
        runner = gateway.jobs._runner
        assert runner is not None
        runner.prepare = noted
        job = await gateway.submit()
        async with asyncio.timeout(120):
            await refused.wait()
        work = next(iter(runner._tasks.values()))
        await asyncio.wait([work], timeout=120)
        assert (await gateway.jobs.get(job.id)).state is State.PROCESSING
        assert not maker.texts
        # The process drains its requests for a while: its jobs are not its own any more.
        other = Gateway(tmp_path, maker)
        try:
            await until(lambda: other.jobs._runner is not None)
            assert (await other.over(job)).state is State.COMPLETED
            assert not runner._tasks
            assert len(taken) == 1
        finally:
            await other.stop()
            await gateway.stop()

    async def body() -> None:
        await test(Gateway(tmp_path, maker := Maker()), maker)

    asyncio.run(body())


def test_two_processes_never_work_on_one_job(tmp_path: Path) -> None:
    """A live holder's heartbeat keeps the other away, however slow a segment is."""

    async def test(gateway: Gateway, maker: Maker) -> None:
        other_maker = Maker()
        other = Gateway(tmp_path, other_maker)
        try:
            release = asyncio.Event()

            async def wait(text: str) -> None:
                del text
                await release.wait()

            maker.before = other_maker.before = wait
            job = await gateway.submit()
            await until(lambda: maker.texts or other_maker.texts)
            await asyncio.sleep(LEASE_SECONDS * 4)
            assert not (maker.texts and other_maker.texts)
            release.set()
            assert (await gateway.over(job)).state is State.COMPLETED
            assert len(maker.texts) + len(other_maker.texts) == job.segments
        finally:
            await other.stop()

    run(tmp_path, test)


def test_a_holder_that_was_stopped_for_long_changes_nothing(tmp_path: Path) -> None:
    """What it writes after another has taken the job over is refused, and leaves no file."""
    store = Store(tmp_path, 10**9)
    job = _added(store)
    assert store.take(job, "first")
    taken = store.get(job.id)
    assert store.take(taken, "second")
    assert not store.take(taken, "third"), "the row has changed since it was read"
    read = store.get(job.id)
    assert store.beat("second") == {job.id}
    assert not store.take(read, "third"), "its holder has shown that it lives since it was read"
    with pytest.raises(LeaseLost):
        store.keep_segment(job.id, "first", 0, b"\0\0", seconds=0.1)
    assert list(store.folder_of(job.id).iterdir()) == []
    store.keep_segment(job.id, "second", 0, b"\0\0", seconds=0.1)
    store.fail(job.id, "late", holder="first")
    assert store.get(job.id).state is State.PROCESSING
    store.close()


def test_work_on_a_job_that_is_another_s_ends_at_once(tmp_path: Path) -> None:
    """Its generations would hold slots for audio that nobody may store."""

    async def test(gateway: Gateway, maker: Maker) -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def wait(_: str) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        maker.before = wait
        job = await gateway.submit()
        async with asyncio.timeout(120):
            await begun.wait()
            assert not ended.is_set()
            store = Store(tmp_path, 10**9)
            while not store.take(store.get(job.id), "second"):
                pass  # a heartbeat came between
            store.close()
            await ended.wait()

    run(tmp_path, test)


def _folders(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.is_dir()]


def _added(store: Store, **changes: Any) -> Job:
    from gateway.speech.jobs.chapters import plan_segments  # noqa: PLC0415

    segments, chapters = plan_segments(
        split_chapters(TEXT, markdown=False),
        iter_segments,
        every_paragraph=False,
    )
    new = store_module.NewJob(
        owner=None,
        request=REQUEST,
        notes=Notes(),
        segments=segments,
        chapters=chapters,
        likely_seconds=changes.get("likely_seconds", 10.0),
        paragraph_pause_seconds=0.5,
        chapter_pause_seconds=1.5,
    )
    return store.add(new, most_open=64)


def test_a_paused_job_keeps_what_it_made(tmp_path: Path) -> None:
    """Its generations end at once; resumed, it goes on behind the last stored segment."""

    async def test(gateway: Gateway, maker: Maker) -> None:
        release = asyncio.Event()
        cancelled: list[str] = []

        async def stop_at_the_fourth(text: str) -> None:
            if len(maker.texts) > 3 and not release.is_set():
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    cancelled.append(text)
                    raise

        maker.before = stop_at_the_fourth
        job = await gateway.submit()
        await until(lambda: len(maker.texts) > 4)
        paused = await gateway.jobs.pause(await gateway.jobs.get(job.id))
        assert paused.state is State.PAUSED
        await until(lambda: len(cancelled) == 2)
        assert gateway.admission.in_flight == 0
        with pytest.raises(WrongJobState):
            await gateway.jobs.pause(paused)
        release.set()
        made = set(maker.texts) - set(cancelled)
        maker.texts.clear()
        over = await gateway.over(await gateway.jobs.resume(paused))
        assert over.state is State.COMPLETED
        assert not made & set(maker.texts)

    run(tmp_path, test)


def test_a_segment_that_fails_is_made_again_and_the_job_tells_why_it_gave_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three tries; retry goes on with the segment that failed."""
    monkeypatch.setattr("gateway.speech.jobs.runner.RETRY_SECONDS", 0.01)

    async def test(gateway: Gateway, maker: Maker) -> None:
        broken = True

        class Broken(UpstreamProtocolError):
            retryable = True

        async def fail(text: str) -> None:
            if broken and text == maker.texts[0]:
                raise Broken("The upstream answered without audio.")

        maker.before = fail
        failed = await gateway.over(await gateway.submit())
        assert failed.state is State.FAILED
        assert failed.error == "The upstream answered without audio."
        assert maker.texts.count(maker.texts[0]) == 3
        store = Store(tmp_path, 10**9)
        assert store.segments(failed.id)[0].tries == 3, "another process goes on counting"
        store.close()
        broken = False
        over = await gateway.over(await gateway.jobs.retry(failed))
        assert over.state is State.COMPLETED
        assert over.error is None

    run(tmp_path, test)


def test_a_file_removed_by_hand_is_told_and_made_again(tmp_path: Path) -> None:
    """Of a segment while the job works, and of the audio afterwards."""

    async def test(gateway: Gateway, maker: Maker) -> None:
        job = await gateway.over(await gateway.submit())
        folder = tmp_path / job.id
        first = await audio_of(gateway, job)
        for path in [*folder.glob("segment-1-*"), *folder.glob("audio-*")]:
            path.unlink()
        with pytest.raises(SegmentLost):
            await gateway.jobs.audio(job)
        failed = await gateway.jobs.get(job.id)
        assert (failed.state, failed.error) == (
            State.FAILED,
            "The stored audio is gone; retry makes it again.",
        )
        maker.texts.clear()
        over = await gateway.over(await gateway.jobs.retry(failed))
        assert over.state is State.COMPLETED, over.error
        assert len(maker.texts) == 1
        assert await audio_of(gateway, over) == first

    run(tmp_path, test)


def test_a_full_disk_fails_the_job_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, leaves no part of a file, and goes on when there is room."""
    full = True
    write = write_file

    def refuse(path: Path, data: bytes) -> None:
        if full and "segment-2-" in path.name:
            raise OSError(28, "No space left on device")
        write(path, data)

    monkeypatch.setattr(store_module, "write_file", refuse)

    async def test(gateway: Gateway, maker: Maker) -> None:
        nonlocal full
        failed = await gateway.over(await gateway.submit())
        assert failed.state is State.FAILED
        assert failed.error == "The audio cannot be stored: No space left on device."
        assert not list((tmp_path / failed.id).glob("*.part"))
        assert gateway.admission.in_flight == 0
        full = False
        maker.texts.clear()
        assert (await gateway.over(await gateway.jobs.retry(failed))).state is State.COMPLETED

    run(tmp_path, test)


def test_a_new_job_must_be_likely_to_fit(tmp_path: Path) -> None:
    """What runs counts with what it will probably take; deleted jobs make room."""
    store = Store(tmp_path, 4_000_000)
    first = _added(store, likely_seconds=60.0)
    with pytest.raises(JobStoreFull, match="GATEWAY_JOBS_MAX_BYTES"):
        _added(store, likely_seconds=60.0)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [first.id]
    store.delete(first.id)
    _added(store, likely_seconds=60.0)
    store.close()


def test_a_locked_database_is_told_and_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client hears that the store is busy; a segment that was made is not lost."""
    monkeypatch.setattr(store_module, "BUSY_SECONDS", 0.05)
    monkeypatch.setattr("gateway.speech.jobs.runner.RETRY_SECONDS", 0.05)

    async def test(gateway: Gateway, maker: Maker) -> None:
        locked = sqlite3.connect(tmp_path / "jobs.sqlite3", isolation_level=None)
        release = asyncio.Event()

        async def lock(text: str) -> None:
            if text == maker.texts[0]:
                locked.execute("BEGIN IMMEDIATE")
                release.set()

        maker.before = lock
        job = await gateway.submit()
        await release.wait()
        with pytest.raises(JobStoreBusy):
            await gateway.jobs.pause(job)
        with pytest.raises(JobStoreBusy):
            await gateway.submit()
        assert _folders(tmp_path) == [job.id], "a job that could not be stored leaves no files"
        locked.execute("ROLLBACK")
        locked.close()
        assert (await gateway.over(job)).state is State.COMPLETED
        assert maker.texts.count(maker.texts[0]) == 1

    run(tmp_path, test)


def test_a_clock_that_is_set_back_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leases compare no clocks; ages and retention are never negative."""

    async def test(gateway: Gateway, maker: Maker) -> None:
        started = time.time()
        monkeypatch.setattr(time, "time", lambda: started - 86_400)
        over = await gateway.over(await gateway.submit())
        assert over.state is State.COMPLETED
        assert len(maker.texts) == over.segments
        assert gateway.metrics.oldest_job._value.get() >= 0

    run(tmp_path, test)


def test_jobs_that_are_over_for_long_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With their files."""
    monkeypatch.setattr("gateway.speech.jobs.jobs.CLEAN_SECONDS", 0.05)

    async def test(gateway: Gateway, maker: Maker) -> None:
        del maker
        job = await gateway.submit()
        with contextlib.suppress(JobNotFound):
            await gateway.over(job)
        await until(lambda: not (tmp_path / job.id).exists())

    run(tmp_path, test, retention_seconds=0.0)


@pytest.mark.parametrize(
    ("context", "expected"),
    [(Context.FIRST, ((), (0,), (0,), (0,))), (Context.DIALOGUE, ((), (0,), (0, 1), (0, 2)))],
)
def test_earlier_segments_go_along_as_references(
    tmp_path: Path, context: Context, expected: tuple[tuple[int, ...], ...]
) -> None:
    """The stored audio of exactly the segments that fix the voice."""

    async def test(gateway: Gateway, maker: Maker) -> None:
        job = await gateway.over(await gateway.submit())
        assert job.state is State.COMPLETED
        segments = await gateway.jobs._store(Store.segments, job.id)
        by_text = {pcm_of(each.text): each.number for each in segments}
        number_of = {each.text: each.number for each in segments}
        seen = {
            number_of[text]: tuple(by_text[reference.wav[44:]] for reference in references)
            for text, references in zip(maker.texts, maker.references, strict=True)
        }
        assert tuple(seen[number] for number in range(4)) == expected

    run(tmp_path, test, context=context)


def test_a_segment_gives_way_to_a_request_and_is_made_again(tmp_path: Path) -> None:
    """With one slot: the request waits for nothing but the end of the segment's call."""

    async def test(gateway: Gateway, maker: Maker) -> None:
        first = asyncio.Event()

        async def hang_once(text: str) -> None:
            if not first.is_set() and text == maker.texts[0]:
                first.set()
                await asyncio.Event().wait()

        maker.before = hang_once
        job = await gateway.submit()
        await first.wait()
        async with asyncio.timeout(120):
            await gateway.admission.acquire()
        gateway.admission.release()
        over = await gateway.over(job)
        assert over.state is State.COMPLETED
        assert maker.texts.count(maker.texts[0]) == 2
        assert gateway.metrics.sums()["gateway_job_segments_total:gave_way"] == 1

    run(tmp_path, test, admission=Admission(1, 8, 5.0))


def test_a_job_is_not_starved_by_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a line of requests that never ends, each segment has its turn after its patience."""
    monkeypatch.setattr("gateway.speech.jobs.runner.PATIENCE_SECONDS", 0.1)

    async def test(gateway: Gateway, maker: Maker) -> None:
        async def request() -> None:
            while True:
                await gateway.admission.acquire()
                try:
                    await asyncio.sleep(0.01)
                finally:
                    gateway.admission.release()

        async with asyncio.TaskGroup() as group:
            crowd = [group.create_task(request()) for _ in range(4)]
            job = await gateway.submit(TEXT[: len(TEXT) // 4])
            over = await gateway.over(job)
            assert over.state is State.COMPLETED, over.error
            for task in crowd:
                task.cancel()
        assert maker.texts

    run(tmp_path, test, admission=Admission(1, 8, 20.0))


def test_every_paragraph_pauses_as_long_as_the_job_says(tmp_path: Path) -> None:
    """Longer pauses make longer audio, by as much as there are paragraphs."""

    async def test(gateway: Gateway, maker: Maker) -> None:
        del maker
        text = "One paragraph here.\n\nAnother one there.\n\nAnd a third one."
        short = await gateway.over(await gateway.submit(text, paragraph_pause_seconds=0.2))
        long = await gateway.over(await gateway.submit(text, paragraph_pause_seconds=2.2))
        assert short.segments == long.segments == 3
        assert long.made_seconds - short.made_seconds == pytest.approx(4.0, abs=0.1)

    run(tmp_path, test)


def test_a_repeated_job_says_the_same_anew(tmp_path: Path) -> None:
    """A new id, the same segments, chapters and audio; one that runs cannot be repeated."""

    async def test(gateway: Gateway, maker: Maker) -> None:
        del maker
        submitted = await gateway.submit()
        with pytest.raises(WrongJobState):
            await gateway.jobs.repeat(submitted)
        first = await gateway.over(submitted)
        second = await gateway.over(await gateway.jobs.repeat(first))
        assert second.notes.original_id == first.id
        assert second.notes.retries == 1
        assert second.chapters == first.chapters
        assert await audio_of(gateway, first) == await audio_of(gateway, second)
        assert {job.id for job in await gateway.jobs.owned()} == {first.id, second.id}
        await gateway.jobs.delete(first)
        assert not (tmp_path / first.id).exists()
        assert all(job.state in FINAL for job in await gateway.jobs.owned())

    run(tmp_path, test)
