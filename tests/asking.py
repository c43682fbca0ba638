"""What the tests of the door share: two keys, and ways to ask with one."""

from __future__ import annotations

import httpx

from tests.running import Gateway

KEY, ADMIN = "sg-for-alice-0123456789", "sg-for-root-0123456789"
BODY = {"input": "Hello there.", "voice": "alloy", "response_format": "pcm"}


def speak(gateway: Gateway, key: str | None = None, **headers: str) -> httpx.Response:
    """Ask for a short text."""
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    return httpx.post(gateway.url + "/v1/audio/speech", json=BODY, headers=headers, timeout=30)


def get(gateway: Gateway, path: str, key: str | None = None, **headers: str) -> httpx.Response:
    """Ask for a page."""
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    return httpx.get(gateway.url + path, headers=headers, timeout=30)
