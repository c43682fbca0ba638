"""One streamed request as a listener sees it, for load tests of a gateway or of a bare engine.

Raw PCM is asked for, so that every byte is worth a known time of audio and nothing is decoded in
the process that measures.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from loadtest.listening import Listener

OK = 200


@dataclass(frozen=True, slots=True)
class Heard:
    """One request.

    Attributes:
        began: When it was sent, `time.monotonic()`.
        ended: When its answer had ended.
        status: HTTP status; 0 where there was none.
        error: Why it failed; empty where it did not.
        first_audio_seconds: To the first audio byte; 0 where there was none.
        audio_seconds: Received.
        underrun_seconds: What a player that started at the first chunk would have starved.
        longest_gap_seconds: Between two reads.
        counted_bytes: Of the audio, those that came in the stretch of time that is measured.
    """

    began: float
    ended: float
    status: int = 0
    error: str = ""
    first_audio_seconds: float = 0.0
    audio_seconds: float = 0.0
    underrun_seconds: float = 0.0
    longest_gap_seconds: float = 0.0
    counted_bytes: int = 0

    @property
    def refused(self) -> bool:
        """Whether it was turned away with a request to come again."""
        return self.status in {429, 503}

    @property
    def complete(self) -> bool:
        """Whether it is a whole answer with audio."""
        return self.status == OK and not self.error and self.audio_seconds > 0


class SpeechClient:
    """Asks one address for speech.

    Args:
        session: The connections.
        address: Base address of a gateway or an engine.
        model: The model's name, as an engine wants it.
        voice: A preset.
        api_key: Bearer key, or None.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        address: str,
        *,
        model: str,
        voice: str = "belinda",
        api_key: str | None = None,
    ) -> None:
        self._session = session
        self._url = address.rstrip("/") + "/v1/audio/speech"
        self._fields = {"model": model, "voice": voice, "response_format": "pcm"}
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    async def ask(self, text: str, received: Callable[[int], int]) -> Heard:
        """Ask for one text and hear it to its end.

        Args:
            text: What to say.
            received: Called with the size of everything that comes; tells how much of it counts.
        """
        began = time.monotonic()
        found: dict[str, Any] = {}
        listener, counted = Listener("pcm", began), 0
        try:
            async with self._session.post(
                self._url,
                json={**self._fields, "input": text},
                headers=self._headers,
            ) as answer:
                found["status"] = answer.status
                async for data in answer.content.iter_any():
                    if answer.status != OK:
                        continue
                    listener.hear(data, time.monotonic())
                    counted += received(len(data))
        except (aiohttp.ClientError, TimeoutError) as error:
            found["error"] = type(error).__name__
        return Heard(
            began,
            time.monotonic(),
            first_audio_seconds=listener.first_audio_seconds or 0.0,
            audio_seconds=listener.audio_seconds,
            underrun_seconds=listener.underrun_seconds,
            longest_gap_seconds=listener.longest_gap_seconds,
            counted_bytes=counted,
            **found,
        )


async def served_model(session: aiohttp.ClientSession, address: str, api_key: str | None) -> str:
    """The name of the first model that an address lists."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    async with session.get(address.rstrip("/") + "/v1/models", headers=headers) as answer:
        answer.raise_for_status()
        return str((await answer.json())["data"][0]["id"])
