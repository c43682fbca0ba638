"""Chapters of text and Markdown files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.speech.jobs.chapters import split_chapters

BOOK = """The Time Machine

by H. G. Wells

CHAPTER I. Introduction

The Time Traveller was expounding a matter to us.

Part of it was clear.

Chapter Two

Another day.

Epilogue

One cannot choose but wonder.
"""
MARKDOWN = """Preface words.

# One #

Text.

```
# no heading
```

### Deeper

## Two

More.
"""


def test_lines_that_name_a_chapter_begin_one() -> None:
    """Alone between blank lines only: prose that begins with such a word does not."""
    parts = split_chapters(BOOK, markdown=False)
    assert [part.title for part in parts] == [
        None,
        "CHAPTER I. Introduction",
        "Chapter Two",
        "Epilogue",
    ]
    assert "Part of it was clear." in parts[1].text
    assert parts[1].text.startswith("CHAPTER I")


def test_headings_of_two_levels_begin_a_chapter_of_markdown() -> None:
    """Not those in fenced code, and not deeper ones."""
    parts = split_chapters(MARKDOWN, markdown=True)
    assert [part.title for part in parts] == [None, "One", "Two"]
    assert "# no heading" in parts[1].text
    assert "### Deeper" in parts[1].text


@pytest.mark.parametrize("text", ["", "   \n\n", "Just a sentence.", "chapter one is good"])
def test_text_without_headings_is_one_part(text: str) -> None:
    """Blank text is none."""
    parts = split_chapters(text, markdown=False)
    assert [part.text for part in parts] == ([text] if text.strip() else [])
    assert all(part.title is None for part in parts)


@given(st.lists(st.sampled_from(["# A", "text", "", "Chapter 1", "```", "## B ##"])), st.booleans())
def test_no_line_is_lost(lines: list[str], markdown: bool) -> None:  # noqa: FBT001  (Hypothesis)
    """Whatever the file is, its parts together are its text."""
    parts = split_chapters("\n".join(lines), markdown=markdown)
    together = [line for part in parts for line in part.text.split("\n") if line.strip()]
    assert together == [line for line in lines if line.strip()]
