"""`docs/compatibility.md` tells the figures that the code has, and names files that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.api.chatterbox.devnen.web_ui import MOST_FILES
from gateway.api.chatterbox.travisvn.about import LANGUAGES
from gateway.api.chatterbox.travisvn.long_text_schemas import LONGEST_CHARACTERS
from gateway.api.chatterbox.travisvn.speech import HIGHEST_TEMPERATURE, MOST_CHARACTERS
from gateway.settings import Settings
from gateway.speech.activity import MOST_REMEMBERED
from gateway.speech.jobs.jobs import MOST_OPEN
from gateway.speech.prepare import COLD_LENGTH_FACTOR
from gateway.text.expression import (
    CALM_TO,
    FAST_FROM,
    FORM_TEMPERATURE,
    LIVELY_FROM,
    LIVELY_TEMPERATURE,
    SLOW_TO,
)
from gateway.voices.name_rules import MOST_ALIASES

ROOT = Path(__file__).resolve().parent.parent
PAGE = " ".join((ROOT / "docs" / "compatibility.md").read_text("utf-8").split())
NUMBERS = {3: "three", 1.5: "one and a half"}


@pytest.mark.parametrize(
    "claim",
    [
        f"| `alias`; 201, 404, 409 | At most {MOST_ALIASES}. |",
        f"At most {NUMBERS[MOST_FILES]} files of 10 MiB at once.",
        f"429 where {MOST_OPEN} jobs are not over",
        f"The last {MOST_REMEMBERED} requests are remembered.",
        f"Long texts ({MOST_CHARACTERS + 1:,} to {LONGEST_CHARACTERS:,} characters)",
        f"at most {HIGHEST_TEMPERATURE:g}: above, the model no longer speaks",
        f"exactly {FORM_TEMPERATURE:g} means",
        f"bounded by {NUMBERS[COLD_LENGTH_FACTOR]} times its likely length",
        f'`exaggeration` from {LIVELY_FROM:g} | "expressive, energetic" | {LIVELY_TEMPERATURE:g} |',
        f"`exaggeration` up to {CALM_TO:g} |",
        f"`cfg_weight` from {FAST_FROM:g} |",
        f"`cfg_weight` up to {SLOW_TO:g} |",
        f"The model's own: {', '.join(LANGUAGES.values())}.",
    ],
)
def test_a_figure_of_the_page_is_the_codes(claim: str) -> None:
    """A bound that moves takes its sentence along."""
    assert claim in PAGE


def test_the_surfaces_that_the_page_names_are_those_that_there_are() -> None:
    """All on by default."""
    [sentence] = re.findall(r"`GATEWAY_SURFACES` chooses what is offered: (.*? by default)", PAGE)
    default = Settings.model_fields["surfaces"].get_default(call_default_factory=True)
    assert set(re.findall(r"`(\w+)`", sentence)) == set(default)
    assert "all four by default" in sentence


def test_every_file_that_the_page_names_exists() -> None:
    """Tests and evidence."""
    files = re.findall(r"`(tests/[\w/*.]+)`|\]\(([\w./-]+\.md)\)", PAGE)
    assert files
    for test, page in files:
        pattern, folder = (test, ROOT) if test else (page, ROOT / "docs")
        assert list(folder.glob(pattern)), pattern
