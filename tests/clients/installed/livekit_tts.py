"""LiveKit's plugin, as an agent uses it: `python livekit_tts.py BASE_URL`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from common import LONG, TEXT, heard, tell
from livekit.agents import APIConnectOptions, APIStatusError
from livekit.plugins import openai

ONCE = APIConnectOptions(max_retry=0)


async def said(tts: Any) -> dict[str, str]:
    """All frames of a sentence."""
    audio = bytearray()
    async with tts.synthesize(TEXT) as stream:
        async for event in stream:
            assert (event.frame.sample_rate, event.frame.num_channels) == (24_000, 1)
            audio += bytes(event.frame.data)
    return heard(bytes(audio), "pcm")


async def main(base_url: str) -> None:
    """Defaults (events of MP3), other models and formats, a refusal, and leaving."""

    def tts(**more: Any) -> Any:
        return openai.TTS(base_url=base_url, api_key="unused", **more)

    default = tts()
    default.prewarm()
    found = {"default": await said(default), "tts-1": await said(tts(model="tts-1"))}
    for response_format in ("wav", "opus", "flac", "aac", "pcm"):
        found[response_format] = await said(tts(response_format=response_format))
    try:
        async with tts(voice="nobody").synthesize(TEXT, conn_options=ONCE) as stream:
            async for _ in stream:
                pass
        refused = None
    except APIStatusError as error:
        refused = f"{error.status_code} {error.message}"
    async with default.synthesize(LONG) as stream:
        async for _ in stream:
            break
    tell(heard=found, refused=refused, left=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
