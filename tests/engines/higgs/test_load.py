"""Tests of the sizing of slots, of the published model's shape; no card is needed."""

from __future__ import annotations

import argparse

import pytest
import torch

from engines.higgs.command import add_higgs_arguments
from engines.higgs.config import random_config
from engines.higgs.load import MOST_SLOTS, NotEnoughMemoryError, free_bytes, slots_that_fit
from engines.higgs.weights import weight_bytes

GIB = 2**30
CONFIG = random_config(tiny=False)


def fitting(free_gib: float, precision: str, slots: int | None = None, context: int = 2048) -> int:
    """Slots beside the weights and 0.3 GiB of codec."""
    used = weight_bytes(CONFIG, precision, torch.device("cuda")) + int(0.3 * GIB)
    return slots_that_fit(
        CONFIG, int(free_gib * GIB), slots=slots, context=context, used_bytes=used
    )


@pytest.mark.parametrize(("precision", "gib"), [("bf16", 11.75), ("int8", 6.25), ("int4", 5.25)])
def test_four_streams_fit_what_the_documentation_says(precision: str, gib: float) -> None:
    """What `--memory` 12.5, 7 and 6 leave to PyTorch."""
    assert fitting(gib, precision, slots=4) == 4
    assert fitting(gib, precision) >= 4


def test_slots_fill_the_memory_up_to_a_bound() -> None:
    """More memory, more slots; a longer context, fewer."""
    counts = [fitting(gib, "bf16") for gib in (12, 16, 24, 80)]
    assert counts == sorted(counts)
    assert counts[0] < counts[1] < counts[2]
    assert counts[-1] == MOST_SLOTS
    assert fitting(24, "bf16", context=4096) < counts[2]


def test_what_does_not_fit_is_refused_with_what_it_needs_and_what_there_is() -> None:
    """For the slots that were asked for, or for one."""
    with pytest.raises(NotEnoughMemoryError, match=r"4 slots .* need 11\.\d GiB .* and 9\.0 GiB"):
        fitting(9, "bf16", slots=4)
    with pytest.raises(NotEnoughMemoryError, match="1 slots of 2048"):
        fitting(3, "int4")


def test_a_cpu_counts_nothing() -> None:
    """Four slots, or as many as are asked for."""
    assert free_bytes(torch.device("cpu"), 5) is None
    assert slots_that_fit(CONFIG, None, slots=None, context=9, used_bytes=9) == 4
    assert slots_that_fit(CONFIG, None, slots=7, context=9, used_bytes=9) == 7


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "much"])
def test_a_bound_of_memory_that_is_none_is_refused(
    given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one sentence."""
    parser = argparse.ArgumentParser()
    add_higgs_arguments(parser)
    assert parser.parse_args(["--memory", "12.5"]).memory == 12.5 * GIB
    with pytest.raises(SystemExit):
        parser.parse_args([f"--memory={given}"])
    assert "--memory" in capsys.readouterr().err
