"""curl, as the READMEs of servers show it: a command line, and the answer that comes."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

DEADLINE_SECONDS = 60
LAST_LINE = "\\n%{http_code} %{content_type}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What curl got.

    Attributes:
        status: The HTTP status.
        content_type: Of the body.
        body: Its bytes, from the file where `--output` named one.
    """

    status: int
    content_type: str
    body: bytes

    @property
    def value(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def curl(command: str, address: str, folder: Path) -> Answer:
    """Run a README's command in a folder, with the gateway's address for the server's.

    Args:
        command: With `$ADDRESS` where the README has its server's.
        address: The gateway's.
        folder: Where files are read and written.
    """
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    arguments = shlex.split(command.replace("\\\n", " ").replace("$ADDRESS", address))
    done = subprocess.run(
        [*arguments, "--silent", "--show-error", "--write-out", LAST_LINE],
        cwd=folder,
        capture_output=True,
        timeout=DEADLINE_SECONDS,
        check=True,
    )
    body, _, line = done.stdout.rpartition(b"\n")
    status, _, content_type = line.decode().partition(" ")
    if "--output" in arguments:
        body = (folder / arguments[arguments.index("--output") + 1]).read_bytes()
    return Answer(int(status), content_type, body)
