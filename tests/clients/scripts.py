"""Client programs of this folder, run as processes: each SDK in its own interpreter.

Two releases of one package cannot live in one process, and a crash of a client is a result too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NODE = Path(__file__).with_name("node")
# 2.54.0, the last release before 3.0.0, which replaced httpx by httpx2.
HTTPX_SDK = ROOT / ".cache" / "openai-2.54.0"
SILLYTAVERN = ROOT / ".cache" / "sillytavern-1.19.0"
DEADLINE_SECONDS = 300.0


def missing(sdk: str) -> str | None:
    """What a client needs and does not find here, or None.

    Args:
        sdk: `current`, `httpx`, `node` or `sillytavern`.
    """
    if sdk == "sillytavern" and not (SILLYTAVERN / ".installed").exists():
        return "needs SillyTavern's providers: `scripts/install-clients`"
    if sdk == "httpx" and not (HTTPX_SDK / ".installed").exists():
        return "needs the older SDK: `scripts/install-clients`"
    if sdk in {"node", "sillytavern"} and shutil.which("node") is None:
        return "needs Node"
    packages = [NODE / "node_modules" / name for name in ("openai", "ai")]
    if sdk == "node" and not all(package.exists() for package in packages):
        return "needs the npm packages: `scripts/install test`"
    return None


def require(sdk: str) -> None:
    """Skip where an SDK cannot run."""
    reason = missing(sdk)
    if reason is not None:
        pytest.skip(reason)


def chromium() -> str:
    """The path of Chromium; skips where it, or Node that drives it, is missing."""
    require("node")
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("needs Chromium")
    return found


def require_fetched(folder: Path) -> None:
    """Skip where another project's page is not there."""
    if not (folder / ".installed").exists():
        pytest.skip(f"needs {folder.name}: `scripts/install-clients prove`")


@contextmanager
def started(
    command: list[str], folder: Path = ROOT, **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """A client program; it is gone when the block ends."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def started_sdk(
    sdk: str, base_url: str, scenario: str
) -> AbstractContextManager[subprocess.Popen[str]]:
    """A scenario with one of OpenAI's SDKs.

    Args:
        sdk: `current` or `httpx` (Python), or `node`.
        base_url: The gateway's address, with `/v1`.
        scenario: `all` or `retry`.
    """
    require(sdk)
    if sdk == "node":
        return started(["node", "scenario.mjs", base_url, scenario], NODE)
    script = str(Path(__file__).with_name("openai_scenario.py"))
    command = [sys.executable, script, base_url, scenario]
    if sdk == "current":
        return started(command)
    return started(command, PYTHONPATH=str(HTTPX_SDK))


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a script printed."""
    output, _ = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0
    value = json.loads(output)
    assert isinstance(value, dict)
    return value
