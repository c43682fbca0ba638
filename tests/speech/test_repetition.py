"""Repeated words and sentences through the real CPU voice: whole, and never taken for a failure."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.asking import WHOLE, listen
from tests.running import Gateway, running_engine, running_gateway

prove = pytest.mark.prove

# Seconds are the least that a whole answer lasts: half of what was measured (2026-11-25).
REPEATED = [
    ("ha " * 100, 11),
    ("ha " * 200, 22),
    ("la la la, " * 30, 10),
    ("ha \N{FACE WITH TEARS OF JOY} " * 50, 7),
    ("I love you. " * 50, 26),
    ("no, " * 100, 16),
    pytest.param("ha" * 200, 1, marks=prove),
    pytest.param("hahaha hehehe hihihi hohoho " * 20, 18, marks=prove),
    pytest.param("Row, row, row your boat,\ngently down the stream.\n" * 25, 36, marks=prove),
    pytest.param("The train leaves at nine. " * 50, 40, marks=prove),
    pytest.param("n" + "o" * 300 + "!", 1, marks=prove),
    pytest.param("1 " * 100, 11, marks=prove),
    pytest.param("1" * 200, 22, marks=prove),
    pytest.param("A" * 300, 15, marks=prove),
    pytest.param("wait... " * 60, 15, marks=prove),
    pytest.param("tick tock " * 100, 25, marks=prove),
    pytest.param("very " * 100 + "good.", 17, marks=prove),
]


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """A gateway in front of the CPU voice."""
    with running_engine("--voice", "cpu") as engine, running_gateway(upstreams=engine.address) as g:
        yield g


@pytest.mark.parametrize(("text", "seconds"), REPEATED)
def test_repetition_plays_to_its_end(gateway: Gateway, text: str, seconds: int) -> None:
    """As a stream, which a wrong judgement would abort."""
    end, heard = listen(gateway, text, voice="alloy")
    assert end == WHOLE
    assert len(heard) / 48_000 >= seconds


def test_a_whole_answer_is_not_refused_for_its_repetition(gateway: Gateway) -> None:
    """A file is judged before anything of it is sent."""
    end, heard = listen(gateway, "ha " * 100, voice="alloy", stream=False)
    assert end == WHOLE
    assert len(heard) / 48_000 >= 11
