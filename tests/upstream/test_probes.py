"""What the probes make of failures: counted once, told once, and never a slot's fault."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gateway.errors import QueueFull
from gateway.speech.admission import Admission
from gateway.upstream import discovery, probes
from gateway.upstream.client import UpstreamClient
from gateway.upstream.pool import Upstream
from gateway.upstream.probes import LISTS_EVERY_PROBES, STEADY_PROBES, Prober
from loadtest.processes import engine_state
from tests.asking import plan_faults
from tests.running import running_engine
from tests.upstream.speech_servers import ENGINES, running_server

pytestmark = pytest.mark.anyio


class Probed:
    """An upstream and its prober.

    Attributes:
        told: Every change of health that was told.
    """

    def __init__(self, address: str, client: UpstreamClient, admission: Admission) -> None:
        self.upstream = Upstream(address)
        self.told: list[bool] = []
        self.prober = Prober(
            self.upstream,
            client,
            model=None,
            admission=admission,
            interval_seconds=5.0,
            aliases={},
            changed=self.told.append,
        )


@contextmanager
def taken(admission: Admission) -> Iterator[None]:
    """All slots are in use."""
    slots = [admission.try_acquire() for _ in range(admission.slots)]
    assert all(slots)
    yield
    assert admission.in_flight == 0
    assert admission.queued == 0


async def settle(admission: Admission, queued: int) -> None:
    """Wait until so many wait in line."""
    async with asyncio.timeout(120):
        while admission.queued != queued:  # noqa: ASYNC110  (it comes over a real socket)
            await asyncio.sleep(0.001)


async def test_what_dies_with_an_upstream_counts_as_one_failure(
    engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Thirty streams break at once: one line in the log, and the first probe comes soon."""
    client = UpstreamClient(None)
    probed = Probed(engine, client, Admission(1, 0, 5.0))
    try:
        await probed.prober.probe()
        assert repr(probed.prober) == f"<Prober {engine} ready, 0 failures>"
        for _ in range(30):
            probed.prober.eject("reset")
        assert repr(probed.prober) == f"<Prober {engine} ejected, 1 failures>"
        assert probed.told == [True, False]
        assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [
            f"upstream {engine} ejected: reset"
        ]
        await probed.prober.probe()
        assert probed.told == [True, False, True]
        assert probed.upstream.state == "ready"
    finally:
        client.close()


async def test_each_failed_trial_counts() -> None:
    """An upstream that stays away is knocked on less and less often."""
    client = UpstreamClient(None)
    probed = Probed("http://no-such-host.invalid:1", client, Admission(1, 0, 5.0))
    try:
        for failures in (1, 2, 3):
            await probed.prober.probe()
            assert probed.upstream.failures == failures
        assert probed.upstream.state == "starting"
        assert not probed.told
    finally:
        client.close()


async def test_a_trial_comes_before_all_who_wait(engine: str) -> None:
    """In an overload it is the one request that brings relief: no full queue may turn it away."""
    client = UpstreamClient(None)
    admission = Admission(slots=1, places=1, timeout_seconds=30.0)
    probed = Probed(engine, client, admission)
    order: list[str] = []

    async def wait_in_line() -> None:
        await admission.acquire()
        order.append("client")
        admission.release()

    async def try_it() -> None:
        await probed.prober.probe()
        order.append("trial")

    try:
        with taken(admission):
            waiting = asyncio.create_task(wait_in_line())
            await settle(admission, 1)
            with pytest.raises(QueueFull):
                await admission.acquire()
            trial = asyncio.create_task(try_it())
            await settle(admission, 2)
            admission.release()
            await asyncio.gather(waiting, trial)
        assert probed.upstream.state == "ready"
        assert order == ["trial", "client"]
    finally:
        client.close()


async def test_a_gateway_that_is_busy_or_ends_blames_no_upstream(engine: str) -> None:
    """No slot for the trial says nothing about the upstream."""
    client = UpstreamClient(None)
    admission = Admission(slots=1, places=1, timeout_seconds=0.01)
    probed = Probed(engine, client, admission)
    try:
        await probed.prober.probe()
        with taken(admission):
            probed.prober.suspect()
            await probed.prober.probe()
            assert probed.upstream.state == "ready"
            admission.close()
            await probed.prober.probe()
            assert probed.upstream.state == "ready"
            admission.release()
        assert probed.told == [True]
        assert probed.upstream.failures == 0
    finally:
        client.close()


async def test_an_engine_in_doubt_is_sure_again_once_it_has_spoken(engine: str) -> None:
    """One request's hang is not held against it for longer than a trial takes."""
    client = UpstreamClient(None)
    probed = Probed(engine, client, Admission(1, 0, 5.0))
    try:
        await probed.prober.probe()
        probed.prober.suspect()
        assert probed.upstream.suspect
        await probed.prober.probe()
        assert not probed.upstream.suspect
        assert probed.told == [True]
    finally:
        client.close()


async def probed_often(probed: Probed, times: int) -> None:
    """Ask so many times, one after the other."""
    for _ in range(times):
        await probed.prober.probe()


async def test_lists_are_read_again_every_few_probes(engine: str) -> None:
    """A voice that the operator adds works without a restart; one list in six probes is enough."""
    client = UpstreamClient(None)
    probed = Probed(engine, client, Admission(1, 0, 5.0))
    try:
        await probed.prober.probe()
        before = probed.upstream.voices
        assert "newcomer" not in before
        plan_faults(engine, voices=["belinda", "newcomer"])
        listed = engine_state(engine)["voice_lists"]
        await probed_often(probed, LISTS_EVERY_PROBES - 1)
        assert probed.upstream.voices == before
        assert engine_state(engine)["voice_lists"] == listed
        await probed.prober.probe()
        assert probed.upstream.voices == ("belinda", "newcomer")
        assert engine_state(engine)["voice_lists"] == listed + 1
        await probed_often(probed, LISTS_EVERY_PROBES)
        assert engine_state(engine)["voice_lists"] == listed + 2
    finally:
        plan_faults(engine, voices=None)
        client.close()


async def test_failures_are_forgotten_after_good_probes_in_a_row(engine: str) -> None:
    """Not before: an upstream that comes and goes is knocked on less and less often."""
    client = UpstreamClient(None)
    probed = Probed(engine, client, Admission(1, 0, 5.0))
    try:
        await probed.prober.probe()
        for failures in (1, 2):
            probed.prober.eject("reset")
            await probed_often(probed, 1 + STEADY_PROBES - 1)
            assert probed.upstream.failures == failures
        await probed.prober.probe()
        assert probed.upstream.failures == 0
    finally:
        client.close()


async def test_an_ejected_upstream_is_shown_half_open_while_it_is_tried(engine: str) -> None:
    """An operator sees that one request decides; ejected before, ready after."""
    client = UpstreamClient(None)
    admission = Admission(slots=1, places=0, timeout_seconds=30.0)
    probed = Probed(engine, client, admission)
    try:
        await probed.prober.probe()
        probed.prober.eject("reset")
        assert probed.upstream.state == "ejected"
        assert admission.try_acquire()
        trial = asyncio.create_task(probed.prober.probe())
        await settle(admission, 1)
        assert probed.upstream.state == "half_open"
        admission.release()
        await trial
        assert probed.upstream.state == "ready"
        probed.prober.eject("reset")
        assert probed.upstream.state == "ejected"
    finally:
        client.close()


async def test_a_probe_that_fails_ejects_and_a_silent_engine_is_no_engine(engine: str) -> None:
    """`/health` must answer; a warm-up must make audio."""
    client = UpstreamClient(None)
    with running_engine("--voice", "simulated") as dying:
        probed = Probed(dying.address, client, Admission(1, 0, 5.0))
        await probed.prober.probe()
        assert probed.upstream.healthy
    silent = Probed(engine, client, Admission(1, 0, 5.0))
    try:
        await probed.prober.probe()
        assert not probed.upstream.healthy
        assert probed.told == [True, False]
        plan_faults(engine, always="empty")
        await silent.prober.probe()
        assert (silent.upstream.spoken, silent.upstream.failures) == (False, 1)
    finally:
        plan_faults(engine)
        client.close()


async def test_a_first_warm_up_has_more_time_than_a_later_one(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The container's first generation compiles for up to a minute; later ones do not."""
    monkeypatch.setattr(probes, "RECHECK_SECONDS", 0.2)
    client = UpstreamClient(None)
    probed = Probed(engine, client, Admission(1, 0, 5.0))
    try:
        plan_faults(engine, always="slow-600")
        await probed.prober.probe()
        assert probed.upstream.state == "ready"
        probed.prober.suspect()
        await probed.prober.probe()
        assert probed.upstream.state == "ejected"
    finally:
        plan_faults(engine)
        client.close()


async def test_a_warm_up_is_heard_to_its_end() -> None:
    """One that is broken off counts on the engine as a client that left."""
    client = UpstreamClient(None)
    slow = ("--voice", "simulated", "--tokens-per-second", "100", "--fault", "runaway")
    try:
        with running_engine(*slow) as engine:  # half a second between its first chunk and its last
            await Probed(engine.address, client, Admission(1, 0, 5.0)).prober.probe()
            after = engine_state(engine.address)
            assert (after["finished"], after["aborted"]) == (1, 0)
    finally:
        client.close()


@pytest.mark.parametrize("kind", ENGINES)
async def test_a_question_without_an_answer_leaves_an_upstream_unidentified(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is taken for nothing else meanwhile, and for what it is once it answers."""
    monkeypatch.setattr(discovery, "PROBE_SECONDS", 0.2)
    client = UpstreamClient(None)
    lists = ("/v1/models", "/v1/audio/voices")
    asked = (*lists, "/capabilities", "/", "/health/liveliness")
    ways = itertools.product(asked, ("late", "503", "429"))
    try:
        with running_server(kind) as (address, server):
            for server.failing in (*ways, *itertools.product(lists, ("500",))):
                probed = Probed(address, client, Admission(1, 0, 5.0))
                await probed.prober.probe()
                assert not probed.upstream.spoken, server.failing
                assert (probed.upstream.models, server.asked) == ((), []), server.failing
            # A page that is broken for good says nothing: devnen's `/` is with a newer Starlette.
            server.failing = None if kind == "litellm" else ("/", "500")
            monkeypatch.setattr(discovery, "PROBE_SECONDS", 5.0)
            await probed.prober.probe()
            assert probed.upstream.capabilities.engine == ENGINES[kind]
            assert probed.upstream.models
    finally:
        client.close()


@pytest.mark.parametrize("path", ["/", "/capabilities", "/health/liveliness"])
async def test_what_the_settings_name_needs_no_other_answer(path: str) -> None:
    """A proxy may answer 503 for good to whatever is not speech."""
    client = UpstreamClient(None)
    try:
        with running_server("vllm-omni") as (address, server):
            server.failing = (path, "503")
            probed = Probed(address, client, Admission(1, 0, 5.0))
            probed.upstream.named = "openai"
            await probed.prober.probe()
            assert probed.upstream.models
            assert probed.upstream.capabilities.engine == ENGINES["vllm-omni"]
    finally:
        client.close()


@pytest.mark.parametrize("path", ["/v1/models", "/v1/audio/voices"])
async def test_a_list_that_is_no_json_is_no_answer(path: str) -> None:
    """A page of a proxy in its place says nothing of the engine behind it."""
    client = UpstreamClient(None)
    try:
        for kind in ("higgs", "vllm-omni", "devnen"):
            with running_server(kind, failing=(path, "page")) as (address, server):
                probed = Probed(address, client, Admission(1, 0, 5.0))
                await probed.prober.probe()
                assert (probed.upstream.models, server.asked) == ((), []), kind
    finally:
        client.close()


async def test_a_late_answer_is_forgiven_while_the_upstream_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kokoro's and devnen's servers answer nothing else while they make audio (docs/evidence).

    Only lateness is, only while a generation runs, and only where none has hung: a server that
    stands still would stay in the pool for as long as clients come.
    """
    client = UpstreamClient(None)
    try:
        with running_server("kokoro") as (address, server):
            probed = Probed(address, client, Admission(1, 0, 5.0))
            upstream, states = probed.upstream, []
            for how, in_flight, suspect in (
                ("late", 1, False),
                ("503", 1, False),
                ("late", 0, False),
                ("late", 1, True),
            ):
                server.failing = None
                monkeypatch.setattr(discovery, "PROBE_SECONDS", 5.0)
                await probed.prober.probe()
                assert upstream.healthy
                server.failing = ("/v1/models", how)
                monkeypatch.setattr(discovery, "PROBE_SECONDS", 0.2)
                upstream.in_flight, upstream.suspect = in_flight, suspect
                await probed.prober.probe()
                states.append(upstream.state)
            assert states == ["ready", "ejected", "ejected", "ejected"]
    finally:
        client.close()
