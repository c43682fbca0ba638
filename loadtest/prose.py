"""Plain English prose of any length: no names, no numbers, no two sentences alike."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

SUBJECTS = (
    "The old teacher",
    "A young farmer",
    "The quiet doctor",
    "My little brother",
    "The tall sailor",
    "An honest baker",
    "The captain",
    "Her kind neighbor",
    "The busy mother",
    "A tired soldier",
    "The village painter",
)
VERBS = ("opened", "remembered", "cleaned", "watched", "carried", "painted", "found")
OBJECTS = (
    "the wooden door",
    "a yellow basket",
    "the silver bridge",
    "a heavy letter",
    "the broken window",
    "a small garden",
    "the green bottle",
    "a warm blanket",
    "the empty kitchen",
    "a simple picture",
    "the long road",
    "a bright lantern",
    "the last apple",
)
PLACES = (
    "before the morning came",
    "while the rain was falling",
    "after the evening meal",
    "because nobody else was there",
    "when the market was closed",
    "at the end of the summer",
    "behind the white church",
    "near the frozen river",
    "under the orange sky",
    "with a song and a smile",
    "on the way to the harbor",
    "for the first time that year",
    "without saying a word",
    "beside the open fire",
    "until the stars were bright",
    "in front of the children",
    "during the coldest winter",
)
SENTENCES_OF_A_PARAGRAPH = 6


def sentences() -> Iterator[str]:
    """11 x 7 x 13 x 17 sentences, in an order in which each part changes every time.

    The lengths of the lists have no common divisor, so no sentence comes twice.
    """
    parts = (itertools.cycle(part) for part in (SUBJECTS, VERBS, OBJECTS, PLACES))
    for subject, verb, thing, place in zip(*parts, strict=False):
        yield f"{subject} {verb} {thing} {place}."


def prose(words: int) -> str:
    """So many words or up to a sentence more, in paragraphs."""
    source, count = sentences(), 0
    paragraphs: list[str] = []
    while count < words:
        paragraph: list[str] = []
        while count < words and len(paragraph) < SENTENCES_OF_A_PARAGRAPH:
            sentence = next(source)
            count += len(sentence.split())
            paragraph.append(sentence)
        paragraphs.append(" ".join(paragraph))
    return "\n\n".join(paragraphs)
