"""`docs/security.md` names tests, not hopes."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_test_that_the_security_notes_name_exists() -> None:
    """Whoever reads of a defence can run what shows it."""
    notes = (ROOT / "docs" / "security.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", notes)
    missing = [
        f"{file}::{name}" for file, name in named if f"def {name}(" not in (ROOT / file).read_text()
    ]
    assert len(named) > 40
    assert missing == []


def test_every_threat_has_a_test() -> None:
    """A row without a test is a claim."""
    lines = (ROOT / "docs" / "security.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| threat")]
    assert [row for row in rows if "::test_" not in row] == []
