"""How faults are named and drawn."""

from __future__ import annotations

import pytest

from engines.server.contract import in_stream_error
from engines.simulator.faults import Fault, FaultPlan, Kind, marked_fault, parse_fault
from engines.simulator.voice import failure_message


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("hang", Fault(Kind.HANG)),
        ("cut-48000", Fault(Kind.CUT, 48_000)),
        ("cut:48000", Fault(Kind.CUT, 48_000)),
    ],
)
def test_a_fault_has_a_name_and_perhaps_a_number(text: str, fault: Fault) -> None:
    """As flag and in a plan."""
    assert parse_fault(text) == fault
    assert parse_fault(str(fault)) == fault


@pytest.mark.parametrize("text", ["", "burn", "cut-", "cut-x", "cut-1-2"])
def test_an_unknown_fault_is_refused_with_the_list(text: str) -> None:
    """A typing mistake must not make a test pass."""
    with pytest.raises(ValueError, match="there are hang, slow"):
        parse_fault(text)


def test_a_text_carries_its_fault_through_a_gateway() -> None:
    """A word in it; other words are none."""
    assert marked_fault("Say fault-stall-48000 and more.") == Fault(Kind.STALL, 48_000)
    assert marked_fault("It was a fault-burn. default-cut") is None


def test_planned_faults_come_in_order_and_spare_other_texts() -> None:
    """A text's own fault first, then the plan for texts that match, then what is always."""
    plan = FaultPlan(always=parse_fault("slow-5"))
    plan.plan(upcoming=[parse_fault("raise"), parse_fault("empty")], match="fox")
    drawn = [plan.draw(text) for text in ("a fox", "a dog", "fault-cut-1 fox", "a fox", "a fox")]
    assert [fault.kind.value for fault in drawn if fault] == [
        *("raise", "slow", "cut", "empty", "slow")
    ]
    assert plan.met == {"raise": 1, "slow": 2, "cut": 1, "empty": 1}


def test_chance_repeats_with_its_seed() -> None:
    """A proof that fails can be run again."""

    def draw(seed: int) -> list[Fault | None]:
        plan = FaultPlan()
        plan.plan(rate=0.2, kinds=[parse_fault("cut"), parse_fault("hang")], seed=seed)
        return [plan.draw("text") for _ in range(500)]

    assert draw(1) == draw(1) != draw(2)
    assert 60 < sum(fault is not None for fault in draw(1)) < 140


@pytest.mark.parametrize("odd", [True, False])
def test_error_text_has_the_parity_that_was_asked_for(*, odd: bool) -> None:
    """An odd length shifts all samples behind it."""
    assert len(in_stream_error(failure_message(odd=odd))) % 2 == int(odd)
