"""One minute of load against a simulated A100: the gateway, its engine and locust's users.

    python -m loadtest.demonstration [--seconds 60] [--users 40] [--out build/load]
It writes locust's HTML report and CSV files and prints the gateway's own counters beside them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import httpx

from loadtest.benchmark import simulated_gpu
from loadtest.processes import running_engine, running_serve

A100_TOKENS_PER_SECOND = 1500.0  # 60 s of audio a second, the container's published figure
LOCUSTFILE = Path(__file__).with_name("locustfile.py")
SHOWN = (
    "gateway_requests_total",
    "gateway_audio_seconds_total",
    "gateway_response_bytes_total",
    "gateway_rejections_total",
)


def main() -> int:
    """Run it; locust's status (1 where a request failed)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--users", type=int, default=40)
    parser.add_argument("--think-seconds", type=float, default=2.0)
    parser.add_argument("--out", type=Path, default=Path("build/load"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (
        running_engine(*simulated_gpu(A100_TOKENS_PER_SECOND)) as engine,
        running_serve(upstreams=engine.address) as serve,
    ):
        locust = [
            *(sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--host", serve.url),
            *("--headless", "--users", str(arguments.users), "--spawn-rate", "8"),
            *("--run-time", f"{arguments.seconds}s", "--stop-timeout", "20", "--only-summary"),
            *("--think-seconds", str(arguments.think_seconds)),
            *("--html", str(arguments.out / "report.html")),
            *("--csv", str(arguments.out / "load")),
        ]
        status = subprocess.run(locust, check=False).returncode
        exposition = httpx.get(serve.url + "/metrics", timeout=10).text
    print("\nThe gateway's own counters:")
    print("\n".join(line for line in exposition.splitlines() if line.startswith(SHOWN)))
    print(f"\nReport: {arguments.out / 'report.html'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
