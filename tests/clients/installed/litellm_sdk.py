"""LiteLLM's SDK, which reads whole answers: `python litellm_sdk.py BASE_URL`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import litellm
import openai
from common import TEXT, heard, tell


async def main(base_url: str) -> None:
    """Without a format, in every format, with both clients; a refusal."""
    fields: dict[str, Any] = {
        "model": "openai/tts-1",
        "voice": "alloy",
        "input": TEXT,
        "api_base": base_url,
        "api_key": "unused",
        "max_retries": 0,
    }
    found = {"default": heard(litellm.speech(**fields).content, "mp3")}
    for response_format in ("mp3", "opus", "aac", "flac", "wav", "pcm"):
        answer = await litellm.aspeech(**fields, response_format=response_format, speed=1.0)
        found[response_format] = heard(answer.content, response_format)
    found["instructed"] = heard(litellm.speech(**fields, instructions="Calmly.").content, "mp3")
    try:
        litellm.speech(**{**fields, "voice": "nobody"})
        refused = None
    except openai.NotFoundError as error:
        refused = f"{error.status_code} {error.message}"
    tell(heard=found, refused=refused, left=False)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
