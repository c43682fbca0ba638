"""Chromium as a client: it plays the streaming endpoint, and decodes what it fetched itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from engines.simulator.waveform import expected_pcm
from tests.clients.openai_scenario import TEXT
from tests.clients.scripts import NODE, chromium, result, started
from tests.running import running_engine, running_gateway

# Chromium wants some five seconds of audio before it starts: this is twice as much, made at two
# and a half times the speed at which it plays.
LONGER = f"{TEXT} {TEXT}"
TOKENS_PER_SECOND = 60
SECONDS = len(expected_pcm(LONGER, "en_woman")) / 48_000

pytestmark = [pytest.mark.node, pytest.mark.browser]


@pytest.fixture(scope="module")
def played() -> Iterator[dict[str, Any]]:
    """What became of each format, all played at once."""
    browser = chromium()
    with (
        running_engine(
            "--voice", "simulated", "--tokens-per-second", str(TOKENS_PER_SECOND)
        ) as engine,
        running_gateway(upstreams=engine.address) as gateway,
        started(["node", "play.mjs", gateway.url + "/v1", browser, LONGER], NODE) as process,
    ):
        yield result(process)


FORMATS = ("mp3", "opus", "aac", "flac", "wav")


@pytest.mark.parametrize("response_format", FORMATS)
def test_it_plays_to_the_end(played: dict[str, Any], response_format: str) -> None:
    """The whole text, at its own length, up to the `ended` event."""
    found = played[response_format]
    assert found["ended"], found
    assert found["seconds"] == pytest.approx(SECONDS, abs=0.15)


@pytest.mark.parametrize("response_format", FORMATS)
def test_it_plays_before_the_answer_is_complete(
    played: dict[str, Any], response_format: str
) -> None:
    """A stream is heard while the engine still speaks."""
    assert played[response_format]["lead_seconds"] > 0.3


@pytest.mark.parametrize("response_format", FORMATS)
def test_a_page_of_another_origin_fetches_and_decodes(
    played: dict[str, Any], response_format: str
) -> None:
    """A web page needs nothing in between: its own POST is allowed, and all of it decodes."""
    assert played[response_format]["decoded_seconds"] == pytest.approx(SECONDS, abs=0.1)
