"""The tests of other servers, run unchanged against a gateway in their server's place.

Part of `make prove`, which fetches them (`scripts/install-clients prove`). What fails of each is
listed with its reason in docs/evidence/2026-11-25-clients.md.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from loadtest import processes
from tests.clients.scripts import ROOT
from tests.running import running_engine

pytestmark = pytest.mark.prove

TESTS = "api/tests/integration"  # of Kokoro-FastAPI
CLIENTS = ROOT / ".cache" / "clients"
DEADLINE_SECONDS = 900.0
# Without the coverage that their own settings ask for.
OPTIONS = ("-q", "-p", "no:cacheprovider", "-W", "ignore", "-o", "addopts=")
# Stale at the peer, whose own server fails them, but for the last two.
TRAVISVN_FAILS = {
    "test_text_too_long_json",  # wants 400; its server says 422
    "test_parameter_validation_regression",  # wants 1.1 refused; its server allows 2
    "test_memory_reset",  # wants `reset`; its server says `success`
    "test_reset_without_confirmation",  # wants 400 or 422; its server says 200
    "test_manual_cleanup_reduces_memory",  # the gateway holds no model: it cleans nothing
    "test_memory_usage_by_text_length",  # compares the memory of two moments
}
KOKORO_FAILS = {  # what the gateway does not offer
    "test_rate_tag_scales_duration",  # [rate] in the text
    "test_rate_tag_scales_the_alias_base_rate",  # likewise
    "test_ssml_prosody_rate_slows_duration",  # its route /dev/ssml
    "test_alias_rate_alone_slows_duration",  # voices with a rate of their own
}


def checkout(name: str, inner: str = "") -> Path:
    """A peer's folder; the test is skipped where it was not fetched."""
    folder = CLIENTS / name
    if not (folder / ".installed").exists():
        pytest.skip(f"needs the tests of {name}: `scripts/install-clients prove`")
    return folder / inner


@contextmanager
def serving(
    port: int, monkeypatch: pytest.MonkeyPatch, folder: Path, **settings: Any
) -> Iterator[str]:
    """A gateway on the port where a suite expects its server."""
    monkeypatch.setattr(processes, "free_port", lambda: port)
    arguments = ("--voice", "simulated", "--tokens-per-second", "4000")
    with (
        running_engine(*arguments) as engine,
        processes.running_serve(
            upstreams=engine.address, voices_dir=folder, show_texts="true", **settings
        ) as serve,
    ):
        yield serve.url


def run(folder: Path, *arguments: str, **variables: str) -> tuple[set[str], int]:
    """Names of the tests that failed, and how many passed."""
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, *OPTIONS],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    print(ended.stdout[-3000:])
    failed = set(re.findall(r"^(?:FAILED|ERROR) \S*::(\w+)", ended.stdout, re.MULTILINE))
    passed = re.search(r"(\d+) passed", ended.stdout)
    return failed, int(passed[1]) if passed else 0


def test_travisvn_s_suite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All of it, the slow ones too."""
    folder = checkout("travisvn_front_end", "checkout")
    with serving(4123, monkeypatch, tmp_path):
        failed, passed = run(folder, "tests", "--runslow")
    assert failed <= TRAVISVN_FAILS
    assert passed >= 69


def test_kokoro_s_http_tests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those that listen to no words, with aliases for the voices of its tests."""
    folder = checkout("kokoro_tests")
    aliases = "af_bella=belinda,af_heart=mabel"
    with serving(8880, monkeypatch, tmp_path, voice_aliases=aliases) as url:
        tests = [f"{TESTS}/test_{name}.py" for name in ("rate_durations", "voices_endpoint")]
        failed, passed = run(folder, *tests, f"--confcutdir={TESTS}", KOKORO_BASE_URL=url)
    assert failed <= KOKORO_FAILS
    assert passed >= 4
