"""What stands at a cut of a text, from the weakest place to the strongest.

Splitting prefers the strongest; joining the audio pauses accordingly.
"""

from __future__ import annotations

from enum import IntEnum


class Boundary(IntEnum):
    """The place between two pieces of a text."""

    WORD = 0  # or between two signs, where a script has no spaces
    CLAUSE = 1
    SENTENCE = 2
    PARAGRAPH = 3
    TURN = 4  # another `[SPEAKERn]` tag follows
    CHAPTER = 5  # a heading follows
