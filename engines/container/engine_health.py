"""Health check of the engine's container, which also ends an engine that hangs: `engine_health.py`.

Docker runs it inside the engine's container. When the engine core is killed from outside (out of
memory), the API server lives on: `/health` says 200, every request hangs, and Docker restarts no
unhealthy container (docs/contract.md section 1). So this check kills the API server itself; the
container exits, and its restart policy starts it again.

Alive is an engine that made tokens since the last check, or that answers a request for one token
in time. Only an engine that has been alive since it started is ever killed: loading may take hours.
"""

import http.client
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

PORT = int(os.environ.get("HIGGS_PORT", "8000"))
ANSWER_SECONDS = float(os.environ.get("ENGINE_HEALTH_ANSWER_SECONDS", "20"))
FAILURES = int(os.environ.get("ENGINE_HEALTH_FAILURES", "3"))
STATE = Path(os.environ.get("ENGINE_HEALTH_STATE", "/tmp/engine-health.json"))  # noqa: S108
METRICS_SECONDS = 5.0
TOKENS = "vllm:generation_tokens_total"
INITS = {"docker-init", "tini", "catatonit"}
OK = 200


def ask(method: str, path: str, seconds: float, body: bytes = b"") -> tuple[int, str] | None:
    """Status and text of one answer, read to its end, or None where none came in time."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=seconds)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        # The status of a stream comes at once, whether or not its audio ever does.
        return answer.status, answer.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def tokens_made() -> float | None:
    """Tokens that the engine has made since it started, or None where it does not say."""
    answer = ask("GET", "/metrics", METRICS_SECONDS)
    lines = answer[1].splitlines() if answer else []
    counts = [line.rpartition(" ")[2] for line in lines if line.startswith(TOKENS)]
    return sum(map(float, counts)) if counts else None


def speech_status() -> int | None:
    """Status of a request for one token of speech, or None where no answer came in time."""
    body = {
        "model": os.environ.get("HIGGS_SERVED_MODEL_NAME", ""),
        "voice": "belinda",
        "input": "Hi.",
        "response_format": "pcm",
        "max_tokens": 1,
    }
    answer = ask("POST", "/v1/audio/speech", ANSWER_SECONDS, json.dumps(body).encode())
    return answer[0] if answer else None


def server_process() -> list[int] | None:
    """Process id and start time of the API server: the first process that the init started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        parent, began = int(fields[1]), int(fields[19])  # proc(5): ppid, starttime
        if parent == 1:
            found.append((began, int(folder.name)))
    if not found or Path("/proc/1/comm").read_text().strip() not in INITS:
        return None
    began, pid = min(found)
    return [pid, began]


def read_state(process: list[int]) -> dict[str, Any]:
    """What the last check left about this process; a new process has a clean slate."""
    try:
        state: dict[str, Any] = json.loads(STATE.read_text())
        if state["process"] == process:
            return state
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return {"process": process, "tokens": None, "failures": 0, "has_been_alive": False}


def say(text: str) -> None:
    """Print for `docker inspect`, and into the container's log."""
    print(text)
    try:
        with Path("/proc/1/fd/2").open("a") as log:
            log.write(f"engine-health: {text}\n")
    except OSError:
        pass


def check() -> int:
    """Look once; the exit status."""
    process = server_process()
    if process is None:
        print("no process to watch: the container needs `init: true`")
        return 1
    state = read_state(process)
    tokens, before = tokens_made(), state["tokens"]
    alive = tokens is not None and before is not None and tokens != before
    state["has_been_alive"] |= alive
    if not alive:
        status = speech_status()
        alive = status is not None
        state["has_been_alive"] |= status == OK
        tokens = tokens_made()  # this request's own token is no sign of life at the next check
    state["tokens"] = tokens
    state["failures"] = 0 if alive else state["failures"] + 1
    STATE.write_text(json.dumps(state))
    if state["has_been_alive"] and state["failures"] >= FAILURES:
        say(f"no answer {state['failures']} times in a row: killing process {process[0]}")
        os.kill(process[0], signal.SIGKILL)
    return 0 if alive else 1


if __name__ == "__main__":
    sys.exit(check())
