"""Is the engine ready? Only audio counts: its /health answers while it hangs.

While the model loads, the container's log is the only sign of progress, so its last line is told.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import httpx

from engines.container.docker_engine import translated
from engines.container.plan import ContainerError, ContainerPlan

POLL_SECONDS = 1.0
HEALTH_TIMEOUT_SECONDS = 5.0
# The first request compiles for 2 to 56 s and holds up everything (docs/contract.md section 6).
WARM_UP_TIMEOUT_SECONDS = 120.0
WARM_UP_TOKENS = 64
LOG_LINES = 20
STOPPED = {"exited", "dead", "removing"}
CONTROL = re.compile(r"[\x00-\x1f\x7f]|\x1b\[[0-9;]*[A-Za-z]")


def last_line(container: Any) -> str:
    """The newest line of the container's log, harmless for a terminal."""
    text = container.logs(tail=1).decode(errors="replace")
    return CONTROL.sub(" ", text).strip()[:200]


def speaks(address: str) -> bool:
    """Whether the engine turns a short text into audio now."""
    try:
        with httpx.Client(base_url=address, timeout=HEALTH_TIMEOUT_SECONDS) as client:
            if client.get("/health").status_code != httpx.codes.OK:
                return False
            model = client.get("/v1/models").json()["data"][0]["id"]
            voice = client.get("/v1/audio/voices").json()[0]
            answer = client.post(
                "/v1/audio/speech",
                json={
                    "model": model,
                    "voice": voice,
                    "input": "Ready.",
                    "response_format": "pcm",
                    "max_tokens": WARM_UP_TOKENS,
                },
                timeout=WARM_UP_TIMEOUT_SECONDS,
            )
    except (httpx.HTTPError, json.JSONDecodeError, LookupError, TypeError):
        return False
    # An error comes with status 200 and JSON in the audio's place (docs/contract.md section 3).
    pcm = answer.content
    return answer.status_code == httpx.codes.OK and bool(pcm) and not pcm.startswith(b'{"error"')


def wait_ready(
    container: Any, plan: ContainerPlan, seconds: float, tell: Callable[[float, str], None]
) -> float:
    """Wait until the engine speaks.

    Args:
        container: The running container.
        plan: What it runs.
        seconds: Longest wait.
        tell: Called about once a second with the seconds so far and the log's last line.

    Returns:
        Seconds that it took.

    Raises:
        ContainerError: The container ended, restarts again and again, or the time is up.
    """
    began = time.monotonic()
    with translated(plan):
        container.reload()
        restarts_before = container.attrs["RestartCount"]
        while True:
            container.reload()
            restarts = container.attrs["RestartCount"] - restarts_before
            if container.status in STOPPED or restarts:
                raise ContainerError(
                    f"The engine ended while it started (status "
                    f"{container.attrs['State']['ExitCode']}); its last words:\n{tail(container)}"
                )
            if speaks(plan.address):
                return time.monotonic() - began
            elapsed = time.monotonic() - began
            if elapsed >= seconds:
                raise ContainerError(
                    f"The engine has not spoken within {seconds:g} s, its last line is: "
                    f"{last_line(container)}"
                )
            tell(elapsed, last_line(container))
            time.sleep(min(POLL_SECONDS, seconds - elapsed))


def tail(container: Any, lines: int = LOG_LINES) -> str:
    """The end of the container's log."""
    text = container.logs(tail=lines).decode(errors="replace")
    return "\n".join(f"  {CONTROL.sub(' ', line).rstrip()}" for line in text.splitlines())
