"""Formatted text, and text without a sound, on every surface: what the engine is asked to say."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from loadtest.processes import engine_state
from tests.running import Gateway, running_gateway

# path, the text's field, and what else the surface needs
SURFACES = [
    ("/v1/audio/speech", "input", {"model": "tts-1", "response_format": "pcm"}),
    ("/generate", "text", {}),
    ("/audio/speech", "input", {}),
    ("/tts", "text", {"voice_mode": "predefined", "predefined_voice_id": "mabel"}),
]
MARKED = "## News\n\nThe **weekly** report."


def said(gateway: Gateway, engine: str, path: str, **body: Any) -> list[str]:
    """What the engine was asked to say for a request."""
    before = engine_state(engine)["requests_total"]
    httpx.post(gateway.url + path, json=body, timeout=120).raise_for_status()
    state = engine_state(engine)
    count = state["requests_total"] - before
    return [request["text"] for request in state["requests"][-count:]] if count else []


@pytest.mark.parametrize(("path", "field", "more"), SURFACES)
def test_a_page_is_read_on_every_surface(
    gateway: Gateway, engine: str, path: str, field: str, more: dict[str, Any]
) -> None:
    """The engine gets words; with `normalize: false` in either spelling, the text as it is."""
    assert said(gateway, engine, path, **{field: MARKED}, **more) == ["News.\n\nThe weekly report."]
    for no in ({"normalize": False}, {"normalization_options": {"normalize": False}}):
        assert said(gateway, engine, path, **{field: MARKED}, **more, **no) == [MARKED]
    for yes in ({"normalize": None}, {"normalization_options": {"normalize": True}}):
        assert said(gateway, engine, path, **{field: "*So*"}, **more, **yes) == ["So."]


@pytest.mark.parametrize(
    "text", ["🎉", "★★★★★", "$$", "→", "==========", "<think>hm</think>", "**"]
)
@pytest.mark.parametrize(("path", "field", "more"), SURFACES)
def test_nothing_to_pronounce_is_a_short_silence_on_every_surface(
    gateway: Gateway, engine: str, path: str, field: str, more: dict[str, Any], text: str
) -> None:
    """200 with audio, and no engine is asked: it would babble."""
    assert said(gateway, engine, path, **{field: text}, **more) == []


def test_decoration_behind_a_sentence_reaches_no_engine(gateway: Gateway, engine: str) -> None:
    """A thousand emoji are no segment of their own."""
    texts = said(gateway, engine, *("/v1/audio/speech",), input="Well done. " + "🎉" * 1000)
    assert [text for text in texts if "🎉" in text and "Well" not in text] == []
    assert "Well done." in texts[0]


def test_the_setting_leaves_all_text_alone(engine: str) -> None:
    """`GATEWAY_NORMALISE_TEXT=false`."""
    with running_gateway(upstreams=engine, normalise_text=False) as gateway:
        assert said(gateway, engine, "/v1/audio/speech", input=MARKED) == [MARKED]
