"""Arguments of `speech-gateway container`, apart from what they do: Docker's SDK loads slowly."""

from __future__ import annotations

import argparse
from pathlib import Path

WAIT_SECONDS = 3600.0  # a first start downloads 12 GB of weights


def add_container_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `speech-gateway container`."""
    parser.add_argument(
        "--env-file", type=Path, help="settings file; default: deploy/vllm.env or vllm.env"
    )
    parser.add_argument("--name", default="higgs-audio", help="the container's name")
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")
    up = actions.add_parser("up", help="start the engine's container and wait until it speaks")
    restart = actions.add_parser("restart", help="restart it and wait until it speaks")
    for action in (up, restart):
        action.add_argument(
            "--wait-seconds", type=float, default=WAIT_SECONDS, help="longest wait; 0: do not wait"
        )
    up.add_argument("--pull", action="store_true", help="look for a newer image first")
    up.add_argument(
        "--skip-gpu-check", action="store_true", help="start although the GPU looks unfit"
    )
    actions.add_parser("status", help="what runs, since when, and whether it speaks")
    logs = actions.add_parser("logs", help="show its log")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as it grows")
    logs.add_argument("-n", "--tail", type=int, default=100, help="lines to begin with")
    actions.add_parser("down", help="stop and remove it; models and voices stay")
    actions.add_parser("gpu", help="memory of the GPU: loaded and in use")
