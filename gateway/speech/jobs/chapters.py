"""Chapters of a text file, by Markdown headings or chapter lines, and their segments."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from gateway.speech.jobs.job import Chapter, SegmentRecord
from gateway.text.boundary import Boundary
from gateway.text.split import Segment

# An ATX heading of the first two levels; deeper ones are sections, read with their chapter.
_MARKDOWN = re.compile(r" {0,3}#{1,2}[ \t]+(?P<title>\S.*?)(?:[ \t]+#+)?[ \t]*")
# A line of its own such as "CHAPTER IV. The Chase", "Part Two", "Kapitel 3", "Epilogue".
_PLAIN = re.compile(
    r"[ \t]*(?P<title>(?:(?:chapter|part|book|kapitel|teil|chapitre|cap[ií]tulo|第)[ \t]*"
    r"(?:\d{1,4}|[ivxlcdm]{1,8}|[a-z]{2,12}(?:-[a-z]{2,12})?|[一二三四五六七八九十百]{1,4}[章回部])\b"
    r"|prologue|epilogue|preface|introduction|foreword|afterword)"
    r"(?:[ \t]*[.:\u2013\u2014-].{0,80})?)[ \t]*",
    re.IGNORECASE,
)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_BLANK_LINES = re.compile(r"\n[ \t]*\n\s*")
LONGEST_TITLE_CHARACTERS = 200
SegmentsOf = Callable[[str], Iterator[Segment]]


@dataclass(frozen=True, slots=True)
class Part:
    """A run of text below one heading.

    Attributes:
        title: The heading's words, or None before the first heading.
        text: The heading and what follows it, as it stands in the file.
    """

    title: str | None
    text: str = field(repr=False)


def split_chapters(text: str, *, markdown: bool) -> list[Part]:
    """The parts of a text, in order, blank ones left out; all together are the whole text.

    Args:
        text: With any line ends.
        markdown: Headings are Markdown's; else lines that name a chapter, alone between blank
            lines.
    """
    lines = text.splitlines()
    headings = dict(_markdown_headings(lines) if markdown else _plain_headings(lines))
    starts = sorted({0, *headings})
    parts = [
        Part(headings.get(start), "\n".join(lines[start:end]).strip())
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)
    ]
    return [part for part in parts if part.text]


def _markdown_headings(lines: list[str]) -> Iterator[tuple[int, str]]:
    fence = ""
    for number, line in enumerate(lines):
        marks = _FENCE.match(line)
        if marks and (not fence or marks[1].startswith(fence)):
            fence = "" if fence else marks[1]
        heading = None if fence else _MARKDOWN.fullmatch(line)
        if heading:
            yield number, heading["title"][:LONGEST_TITLE_CHARACTERS]


def _plain_headings(lines: list[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines):
        around = (*lines[max(0, number - 1) : number], *lines[number + 1 : number + 2])
        if any(other.strip() for other in around):
            continue
        heading = _PLAIN.fullmatch(line)
        if heading:
            yield number, heading["title"].strip()


def plan_segments(
    parts: Sequence[Part],
    segments_of: SegmentsOf,
    *,
    every_paragraph: bool,
) -> tuple[tuple[SegmentRecord, ...], tuple[Chapter, ...]]:
    """What each generation of a job says, and where its chapters begin.

    Args:
        parts: Its chapters, in order.
        segments_of: Splits a text.
        every_paragraph: Cut at every paragraph, so that the pause there is the job's to set.
    """
    records: list[SegmentRecord] = []
    chapters: list[Chapter] = []
    for part in parts:
        if part.title is not None:
            chapters.append(Chapter(part.title, len(records)))
        before = Boundary.CHAPTER
        for text in _BLANK_LINES.split(part.text) if every_paragraph else [part.text]:
            for segment in segments_of(text):
                records.append(SegmentRecord(len(records), segment.text, before))
                before = Boundary.SENTENCE
            before = max(before, Boundary.PARAGRAPH)
    # A text with nothing to say is a short silence, as for every request.
    return tuple(records) or (SegmentRecord(0, "", Boundary.CHAPTER),), tuple(chapters)
