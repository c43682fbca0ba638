"""Counts the instructions that the gateway runs for a request, under valgrind's callgrind.

    python -m loadtest.instructions [--requests 200] [--profile FILE]

Times depend on what else a machine does; instructions hardly do. The engine and the client are
those of `loadtest.peers`; the requests come one after another, with a key.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

import uvloop

from loadtest.peers.load import KEY, load
from loadtest.peers.proxies import PEERS, start_stub
from loadtest.processes import free_port, running_serve

WARM_UP_REQUESTS = 20
START_SECONDS = 300.0  # everything is some thirty times slower


def missing() -> str | None:
    """Why nothing can be counted here, or None."""
    if shutil.which("valgrind") and shutil.which("callgrind_control"):
        return None
    return "valgrind is not installed (apt-get install valgrind)"


def instructions_of_a_request(requests: int, profile: Path) -> float:
    """Run requests for streamed WAV, and count.

    Args:
        requests: So many, after a few that are not counted.
        profile: Where callgrind's output is written, for `callgrind_annotate`.

    Returns:
        Instructions of the gateway's process for one request.
    """
    peer = next(peer for peer in PEERS if peer.name == "gateway, wav")
    command = ["env", "PYTHONHASHSEED=0", "valgrind", "--tool=callgrind", "--instr-atstart=no"]
    with ExitStack() as stack:
        engine = free_port()
        start_stub(engine)(stack)
        log = stack.enter_context(tempfile.TemporaryFile())
        serve = stack.enter_context(
            running_serve(
                stderr=log,
                before=(*command, f"--callgrind-out-file={profile}"),
                deadline_seconds=START_SECONDS,
                upstreams=f"http://127.0.0.1:{engine}",
                api_keys=f"load={KEY}",
                first_audio_timeout_seconds=60,
            )
        )
        port = int(serve.url.rpartition(":")[2])

        def ask(count: int) -> None:
            failed = uvloop.run(load(port, peer.body(), 1, count)).failed
            if failed:
                raise RuntimeError(f"{failed} of {count} requests failed")

        def count_instructions(switch: str) -> None:
            control = ["callgrind_control", f"--instr={switch}", str(serve.process.pid)]
            subprocess.run(control, check=True, capture_output=True)

        ask(WARM_UP_REQUESTS)
        count_instructions("on")
        ask(requests)
        count_instructions("off")
    found = re.search(r"^totals: (\d+)", profile.read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError("callgrind has counted nothing")
    return int(found[1]) / requests


def main() -> None:
    """Read the command line, count, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--profile", type=Path, help="keep callgrind's output in this file")
    asked = parser.parse_args()
    if reason := missing():
        parser.exit(2, f"{reason}\n")
    with tempfile.TemporaryDirectory(prefix="instructions-") as folder:
        profile = asked.profile or Path(folder, "callgrind.out")
        count = instructions_of_a_request(asked.requests, profile)
    print(f"{count / 1e6:.3f} million instructions a request")


if __name__ == "__main__":
    main()
