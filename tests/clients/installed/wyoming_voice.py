"""A Wyoming client, such as Home Assistant, of wyoming-openai: `python wyoming_voice.py PORT`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from common import LONG, TEXT, heard, tell
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.info import Describe, Info
from wyoming.tts import Synthesize, SynthesizeVoice


async def connected(port: int) -> AsyncTcpClient:
    """A connection, once the server listens."""
    while True:
        client = AsyncTcpClient("127.0.0.1", port)
        try:
            await client.connect()
            return client
        except OSError:
            await asyncio.sleep(0.1)


async def said(client: AsyncTcpClient, text: str, voice: str | None) -> dict[str, str] | str:
    """The audio of a text, or what its error tells."""
    named = SynthesizeVoice(name=voice) if voice else None
    await client.write_event(Synthesize(text=text, voice=named).event())
    audio = bytearray()
    while event := await client.read_event():
        if Error.is_type(event.type):
            return Error.from_event(event).text
        if AudioStart.is_type(event.type):
            start = AudioStart.from_event(event)
            assert (start.rate, start.width, start.channels) == (24_000, 2, 1)
        if AudioChunk.is_type(event.type):
            audio += AudioChunk.from_event(event).audio
        if AudioStop.is_type(event.type):
            break
    return heard(bytes(audio), "pcm")


async def main(port: int) -> None:
    """The list of its voices, the usual one, the one by name, one that is not there; leaving."""
    client = await connected(port)
    await client.write_event(Describe().event())
    event = await client.read_event()
    assert event
    voices = [voice.name for program in Info.from_event(event).tts for voice in program.voices]
    found: dict[str, Any] = {
        "usual": await said(client, TEXT, None),
        "named": await said(client, TEXT, "default"),
    }
    refused = await said(client, TEXT, "nobody")
    await client.disconnect()
    client = await connected(port)
    await client.write_event(Synthesize(text=LONG).event())
    while (event := await client.read_event()) and not AudioChunk.is_type(event.type):
        pass
    await client.disconnect()
    tell(heard=found, voices=voices, refused=str(refused), left=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
