"""pipecat's service in a pipeline: `python pipecat_tts.py BASE_URL`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from common import LONG, TEXT, heard, tell
from pipecat.frames.frames import ErrorFrame, InterruptionFrame, TTSAudioRawFrame, TTSSpeakFrame
from pipecat.services.openai.tts import OpenAITTSService
from pipecat.tests.utils import SleepFrame, run_test


async def through(service: Any, *frames: Any) -> tuple[bytes, list[str]]:
    """The audio of a pipeline, and its errors."""
    down, up = await run_test(service, frames_to_send=frames, start_timeout=60)
    audio = [frame for frame in down if isinstance(frame, TTSAudioRawFrame)]
    assert {frame.sample_rate for frame in audio} <= {24_000}
    errors = [str(frame.error) for frame in up if isinstance(frame, ErrorFrame)]
    return b"".join(frame.audio for frame in audio), errors


async def main(base_url: str) -> None:
    """Defaults, every setting, a refusal, and an interruption in the middle."""

    def service(**settings: Any) -> Any:
        return OpenAITTSService(
            base_url=base_url,
            api_key="unused",
            settings=OpenAITTSService.Settings(**settings),
        )

    default, _ = await through(service(), TTSSpeakFrame(TEXT))
    told, _ = await through(
        service(voice="cedar", model="tts-1", instructions="Speak calmly.", speed=1.0),
        TTSSpeakFrame(TEXT),
    )
    _, errors = await through(service(model="whisper-9"), TTSSpeakFrame(TEXT))
    await through(service(), TTSSpeakFrame(LONG), SleepFrame(8.0), InterruptionFrame())
    tell(
        heard={"default": heard(default, "pcm"), "settings": heard(told, "pcm")},
        refused=" ".join(errors),
        left=True,
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
