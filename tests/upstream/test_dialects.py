"""The table of dialects: a further one is a row."""

from __future__ import annotations

import pytest

from gateway.settings import load_settings
from gateway.upstream import dialects
from gateway.upstream.capabilities import Capabilities
from gateway.upstream.detection import Answers, Found
from gateway.upstream.dialect import Call, Generation
from gateway.upstream.dialects import identify
from gateway.upstream.parsers import SpeechParser
from gateway.upstream.pool import Pool


class Telegraph:
    """A dialect of this test alone."""

    def call(self, generation: Generation, model: str) -> Call:
        """Send the text as it is."""
        del model
        return Call("/telegraph", generation.text.encode(), SpeechParser())


def recognise_telegraph(address: str, answers: Answers, *, named: bool) -> Found | None:
    """By its index page."""
    del address
    return (
        Found(Telegraph(), Capabilities("telegraph"), "its index page")
        if named or answers.index == "STOP"
        else None
    )


def test_a_new_dialect_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings name it, addresses are recognised by it, and the others are what they were."""
    rows = {**dialects.DIALECTS, "telegraph": recognise_telegraph}
    monkeypatch.setattr(dialects, "DIALECTS", rows)
    settings = load_settings(upstreams="telegraph+http://a:1/v1,http://b:2")
    assert settings.upstreams == ("telegraph+http://a:1", "http://b:2")
    first, second = Pool(settings.upstreams).upstreams
    for upstream, answers in ((first, Answers()), (second, Answers(index="STOP"))):
        found = identify(upstream.address, upstream.named, answers)
        assert found is not None
        assert isinstance(found.dialect, Telegraph)
    other = identify("http://b:2", None, Answers(index="STOP", voices=["belinda"]))
    assert other is not None
    assert other.capabilities.engine == "higgs-audio-vllm"
