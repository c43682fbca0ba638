"""Every fault of the simulator, once and for good, met by a stream, a whole answer and a long text.

Whatever happens, the client gets all of the right audio, an honest status, or a broken connection
after a true beginning; and the gateway holds nothing afterwards. `-s` prints the table.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from loadtest.prose import prose
from tests.running import Gateway, wait_until

SHORT = "It was a bright cold day in April, and the clocks of the town were striking one."
LONG = prose(330)
FAULTS = (
    *("hang", "slow-200", "stall-48000", "cut-48000", "reset-48000", "raise", "raiselate-48000"),
    *("raiseeven-48000", "empty", "error", "truncate", "runaway", "quiet"),
)
# These last longer, or sound otherwise, than they should; the guard ends them cleanly.
ENDED_BY_THE_GUARD = {"runaway", "quiet"}
SLOW_CASES = {"hang", "runaway", "quiet", "empty"}
KINDS = ("streamed", "buffered", "long")


@pytest.fixture(scope="module")
def gateway_settings() -> dict[str, Any]:
    """Short patience."""
    return {
        "first_audio_timeout_seconds": 2,
        "idle_timeout_seconds": 2,
        "slowest_tokens_per_second": 1000,
        "quiet_limit_seconds": 2,
    }


def ask(gateway: Gateway, kind: str) -> tuple[str, bytes]:
    """One request; how it ended, and the audio."""
    body = {
        "model": "tts-1",
        "input": LONG if kind == "long" else SHORT,
        "voice": "mabel",
        "response_format": "pcm",
        "stream": kind != "buffered",
    }
    heard = b""
    try:
        with httpx.stream(
            "POST", gateway.url + "/v1/audio/speech", json=body, timeout=120
        ) as answer:
            if answer.status_code != 200:
                answer.read()
                assert answer.json()["error"]["message"]
                return str(answer.status_code), b""
            for data in answer.iter_raw():
                heard += data
    except httpx.RemoteProtocolError:
        return "aborted", heard
    return "whole", heard


@pytest.fixture(scope="module")
def right(gateway: Gateway) -> dict[str, bytes]:
    """What is heard without any fault."""
    return {kind: ask(gateway, kind)[1] for kind in KINDS}


def meet(engine: str, fault: str | None, *, always: bool) -> None:
    """Have a fault befall the next generation that is not a warm-up, or all from now on."""
    plan: dict[str, object] = {}
    if fault is not None:
        plan = {"always": fault} if always else {"next": [fault], "match": " "}
    httpx.post(engine + "/simulator/faults", json=plan, timeout=120).raise_for_status()


def tasks(gateway: Gateway) -> int:
    """Tasks of the gateway's event loop."""
    assert gateway.loop is not None
    return len(asyncio.all_tasks(gateway.loop))


def settle(gateway: Gateway, most: int) -> None:
    """Wait until the gateway has no more tasks than that."""
    wait_until(lambda: tasks(gateway) <= most, "no task is left")


CASES = [
    *((fault, "once") for fault in FAULTS),
    *(
        # Timeouts and bounds make these long.
        pytest.param(fault, "always", marks=[pytest.mark.prove] * (fault in SLOW_CASES))
        for fault in FAULTS
    ),
]


@pytest.mark.parametrize(("fault", "times"), CASES)
def test_the_client_gets_the_truth(
    gateway: Gateway, engine: str, right: dict[str, bytes], fault: str, times: str
) -> None:
    """Never other audio, never a clean end of half of it, never a wait without end."""
    name, always = fault.partition("-")[0], times == "always"
    for kind in KINDS:
        wait_until(lambda: ask(gateway, "streamed")[0] == "whole", "all is well before")
        idle = tasks(gateway)
        meet(engine, fault, always=always)
        try:
            ending, heard = ask(gateway, kind)
        finally:
            meet(engine, None, always=False)
        print(f"{fault:>16} {times:>6} {kind:>8}: {ending}")
        if ending == "whole":
            assert heard == right[kind] or name in ENDED_BY_THE_GUARD
        elif ending == "aborted":
            assert right[kind].startswith(heard) or name in ENDED_BY_THE_GUARD
        else:
            assert ending in {"502", "503", "504"}
        if kind == "buffered":
            assert ending != "aborted"
        if not always and kind == "buffered" and name not in ENDED_BY_THE_GUARD:
            assert ending == "whole", "what nobody has heard yet is made again"
        wait_until(lambda: gateway.runtime.service.in_flight == 0, "no slot is held")
        settle(gateway, idle + 2)  # connections that are kept alive
