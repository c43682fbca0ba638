"""The OpenAPI document tells the truth: schemathesis asks for everything in it, right and wrong.

It checks status codes, content types, schemas and headers of answers, that wrong data is refused
and right data taken, that unknown methods get 405, and that nothing is a server's error.
"""

from __future__ import annotations

import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.running import Gateway, running_gateway, wait_until

CONFIG = Path(__file__).with_name("schemathesis.toml")
SCHEMATHESIS = Path(sysconfig.get_path("scripts")) / "schemathesis"


@pytest.fixture
def gateway(tmp_path: Path, engine: str) -> Iterator[Gateway]:
    """A gateway with everything that has a route, before an engine that speaks at once."""
    voices = tmp_path / "voices"
    voices.mkdir()
    # Without a model it would answer as a server of Chatterbox, which the document does not say.
    settings: dict[str, Any] = {"voices_dir": voices, "modelless": "openai"}
    with running_gateway(upstreams=engine, **settings) as running:
        yield running


def examine(gateway: Gateway, folder: Path, *arguments: str) -> None:
    """Run all checks; fail with what was found.

    Args:
        gateway: What to ask.
        folder: Where schemathesis may write.
        arguments: How much to ask.
    """
    command = [str(SCHEMATHESIS), "--config-file", str(CONFIG), "--no-color", "run"]
    command += [gateway.url + "/openapi.json", "--checks", "all", "--continue-on-failure"]
    command += ["--request-timeout", "20", *arguments]
    # Chatterbox' routes answer as those servers do, which their schemas do not say; /admin hides
    # itself without an admin key, and jobs have a state that makes right requests wrong.
    command += ["--exclude-tag", "chatterbox", "--exclude-path-regex", "^/(admin|v1/audio/jobs)"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    assert "Tested: " in done.stdout
    assert httpx.get(gateway.url + "/ready").status_code == 200
    wait_until(lambda: not gateway.runtime.admission.in_flight, "nothing is left running", 15)
    assert gateway.runtime.admission.queued == 0


def test_the_document_is_true(gateway: Gateway, tmp_path: Path) -> None:
    """Every boundary of every field, and some examples at random, the same ones each time."""
    examine(
        gateway,
        tmp_path,
        *("--phases", "examples,coverage,fuzzing"),
        *("--max-examples", "10", "--generation-deterministic"),
    )


@pytest.mark.prove
def test_the_document_is_true_however_long_one_asks(gateway: Gateway, tmp_path: Path) -> None:
    """Other examples every time, many more of them, and requests that build on each other."""
    examine(gateway, tmp_path, "--max-examples", "300", "--generation-database", "none")
