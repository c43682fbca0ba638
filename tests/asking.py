"""Ways in which tests ask a gateway for speech, and what they tell and ask the simulated engine."""

from __future__ import annotations

from typing import Any, Self

import httpx

from gateway.upstream.probes import WARM_UP_TEXT
from loadtest.processes import engine_state
from loadtest.prose import prose
from tests.running import Gateway

KEY, ADMIN = "sg-for-alice-0123456789", "sg-for-root-0123456789"
AS_ADMIN = {"api-key": ADMIN}
# Settings of a gateway that has an /admin, and asks for a key there alone.
WITH_ADMIN: dict[str, Any] = {
    "api_keys": f"root={ADMIN} admin",
    "public_routes": "health,metrics,stats,docs,voices,speech",
}
BODY = {"model": "tts-1", "input": "Hello there.", "voice": "alloy", "response_format": "pcm"}
TEXT = "It was a bright cold day in April, and the clocks of the town were striking one."
VOICE = "mabel"
# Half a page, said in one generation of 43 s. Its shortest honest reading takes 7.8 s.
PAGE = " ".join(prose(100).split())
TIMEOUT_SECONDS = 120.0
WHOLE, ABORTED = "whole", "aborted"


def speak(gateway: Gateway, key: str | None = None, **headers: str) -> httpx.Response:
    """Ask for a short text."""
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    return httpx.post(gateway.url + "/v1/audio/speech", json=BODY, headers=headers, timeout=120)


def get(gateway: Gateway, path: str, key: str | None = None, **headers: str) -> httpx.Response:
    """Ask for a page."""
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    return httpx.get(gateway.url + path, headers=headers, timeout=120)


def say(gateway: Gateway, text: str = TEXT, **fields: Any) -> httpx.Response:
    """Ask for raw samples of a preset voice, and read the whole answer.

    Args:
        gateway: Which gateway.
        text: What to say.
        fields: Further fields of the body, or others in place of these.
    """
    body = {"model": "tts-1", "input": text, "voice": VOICE, "response_format": "pcm", **fields}
    url = gateway.url + "/v1/audio/speech"
    return httpx.post(url, json=body, timeout=TIMEOUT_SECONDS)


def listen(gateway: Gateway, text: str = TEXT, **fields: Any) -> tuple[str, bytes]:
    """Read a streamed answer as far as it goes.

    Returns:
        How it ended (WHOLE, ABORTED, or a status that is not 200), and the body's bytes.
    """
    body = {"model": "tts-1", "input": text, "voice": VOICE, "response_format": "pcm", **fields}
    url = gateway.url + "/v1/audio/speech"
    heard = b""
    try:
        with httpx.stream("POST", url, json=body, timeout=TIMEOUT_SECONDS) as answer:
            for data in answer.iter_raw():
                heard += data
    except httpx.RemoteProtocolError:
        return ABORTED, heard
    return WHOLE if answer.status_code == httpx.codes.OK else str(answer.status_code), heard


def plan_faults(engine: str, *faults: str, match: str = " ", **more: Any) -> None:
    """Plan what befalls the next generations of a simulated engine, in order.

    Args:
        engine: Its address.
        faults: Their faults; `slow` is none.
        match: Only texts that hold this meet them; a warm-up's text must not.
        more: Further fields of the plan, such as `always`.
    """
    plan = {"next": faults, "match": match, **more}
    httpx.post(engine + "/simulator/faults", json=plan, timeout=120).raise_for_status()


class Asked:
    """What a simulated engine is asked to say while the block runs, warm-ups aside.

    Attributes:
        bodies: The requests' bodies, in the order in which they came; filled at the block's end.
    """

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self.bodies: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        """Count from here."""
        self._before = engine_state(self._engine)["requests_total"]
        return self

    def __exit__(self, *_: object) -> None:
        """Read what came."""
        now = engine_state(self._engine)
        count = now["requests_total"] - self._before
        assert count <= len(now["requests"]), "the simulator has forgotten some"
        bodies = [seen["body"] for seen in now["requests"][-count:]] if count else []
        self.bodies = [body for body in bodies if said(body) != WARM_UP_TEXT]


def said(body: dict[str, Any]) -> str:
    """The text that a request to an engine asks for."""
    text = body["input"] if "input" in body else body["messages"][-1]["content"]
    assert isinstance(text, str)
    return text
