"""The engine of Home Assistant's integration `openai_tts`: BASE_URL and its checkout's folder."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from typing import Any

from common import LONG, TEXT, heard, tell
from homeassistant.exceptions import HomeAssistantError


def engine_class(folder: str) -> Any:
    """The class of its one file that speaks; the others need a running Home Assistant."""
    path = Path(folder, "custom_components", "openai_tts", "openaitts_engine.py")
    spec = importlib.util.spec_from_file_location("openaitts_engine", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.OpenAITTSEngine


async def main(base_url: str, folder: str) -> None:
    """Whole, collected from a stream, as a stream of each format; a refusal; leaving."""
    url = base_url + "/audio/speech"
    engine = engine_class(folder)("", "alloy", "tts-1", 1.0, url)
    found = {
        "whole": heard(engine.get_tts(TEXT).content, "mp3"),
        "collected": heard(engine.get_tts(TEXT, stream=True).read_all(), "mp3"),
        "extra": heard(
            engine.get_tts(TEXT, instructions="None", extra_payload='{"seed": 7}').content, "mp3"
        ),
    }
    for response_format in ("opus", "mp3", "wav", "flac"):
        chunks = [
            chunk
            async for chunk in engine.async_get_tts_stream(TEXT, response_format=response_format)
        ]
        found[response_format] = heard(b"".join(chunks), response_format)
    try:
        [_ async for _ in engine.async_get_tts_stream(TEXT, voice="nobody")]
        refused = None
    except HomeAssistantError as error:
        refused = str(error)
    stream = engine.async_get_tts_stream(LONG)
    await anext(stream)
    await stream.aclose()
    tell(heard=found, refused=refused, left=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
