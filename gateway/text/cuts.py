"""Where a text may be cut: turns, paragraphs, sentences, clauses, words, and at last characters.

Every finder here yields positions only, so that whatever it finds, the pieces are slices of the
text and nothing can be lost or doubled.
"""

# ruff: noqa: RUF001  (the signs of other scripts look like ASCII, and are meant)

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

import sentencex

SPEAKER_TAG = re.compile(r"\[SPEAKER([0-9]{1,3})\]")
_LEADING_TAG = re.compile(rf"\s*{SPEAKER_TAG.pattern}\s*")
# Blank lines, and the paragraph separator of Unicode.
_PARAGRAPH_END = re.compile("\n[^\\S\n]*\n\\s*|\u2029\\s*")
# A comma or its like with what closes behind it, then white space; signs of scripts without
# spaces and dashes need none. A line end is one too: verse, lists.
_CLAUSE_END = re.compile(
    "[,;:،؛][\"'”’»)\\]]?\\s+|[，、；：][”’」』）】]?\\s*|[—…]+\\s*|\\s[–-]\\s+|\n\\s*"
)
# A bracketed event such as `[humming start]` counts as one word.
_EVENT = r"\[[^\[\]\n]{1,40}\]"
_WORD = re.compile(rf"(?:{_EVENT}|\S)+\s*|\s+")
# What may never be cut: a tag together with the first sign that it governs, an event in either
# spelling.
_WHOLE = re.compile(
    rf"{SPEAKER_TAG.pattern}\s{{0,8}}\S?|(?:<SE(?:_[se])?>)?{_EVENT}(?:</SE(?:_[se])?>)?"
)
_ORDINAL = re.compile(r"(?:^|\s)[0-9]{1,2}\.$")
_WHOLE_REACH_CHARACTERS = 64  # no match of _WHOLE is longer

# sentencex takes quadratic time on a long paragraph of Chinese (3.3 s for 100,000 characters,
# 1 ms for 2,000: measured 2026-11), so it sees windows of this size.
SENTENCE_WINDOW_CHARACTERS = 2000
# Non-ASCII white space before a full stop makes it panic ("Y\u00a0.", 1.0.32); with plain spaces
# in their place a million random texts passed. Lone surrogates cannot be handed to Rust at all.
_FOR_SENTENCEX = {
    **{code: " " for code in range(0x80, 0x3001) if chr(code).isspace()},
    **dict.fromkeys(range(0xD800, 0xE000), "?"),
}

# How far back a cut without white space looks for a good place.
_LOOK_BACK_CHARACTERS = 64
_LONGEST_FLAG_RUN = 256  # characters; two make a flag
_ZERO_WIDTH_JOINER = "\u200d"
_THAI_AND_LAO_PREFIX_VOWELS = frozenset("เแโใไເແໂໃໄ")
_VIRAMA_COMBINING_CLASS = 9


def parts(text: str, cuts: Iterator[int]) -> Iterator[str]:
    """Slice a text at increasing positions, but never between a leading tag and its words.

    Args:
        text: Any text.
        cuts: Positions; those at the ends of the text are passed over.
    """
    tag = _LEADING_TAG.match(text)
    lead = tag.end() if tag else 0
    start = 0
    for cut in cuts:
        if max(start, lead) < cut < len(text):
            yield text[start:cut]
            start = cut
    yield text[start:]


def turn_cuts(text: str) -> Iterator[int]:
    """Positions of the `[SPEAKERn]` tags."""
    return (match.start() for match in SPEAKER_TAG.finditer(text))


def paragraph_cuts(text: str) -> Iterator[int]:
    """Positions behind blank lines."""
    return (match.end() for match in _PARAGRAPH_END.finditer(text))


def clause_cuts(text: str) -> Iterator[int]:
    """Positions behind commas, semicolons, colons, dashes and line ends."""
    return (match.end() for match in _CLAUSE_END.finditer(text))


def word_cuts(text: str) -> Iterator[int]:
    """Positions behind white space, not inside of bracketed events."""
    return (match.end() for match in _WORD.finditer(text))


def sentence_cuts(text: str) -> Iterator[int]:
    """Positions behind sentences, their closing quotes and white space.

    Rather too few than wrong ones: a sentence that is not found only makes a longer piece.
    """
    start = 0
    while start < len(text):
        window = text[start : start + SENTENCE_WINDOW_CHARACTERS]
        is_last = start + len(window) == len(text)
        at = start
        for sentence in _sentences(window):
            ahead = at + len(sentence)
            # The window's own end is no sentence's end; the sentence is seen again, whole.
            if ahead >= start + len(window) and not is_last:
                break
            at = ahead
            if _ends_sentence(text, at):
                yield at
        # A sentence longer than the window: go on behind it, its end is still to come.
        start = at if at > start else start + len(window)


def _sentences(window: str) -> list[str]:
    plain = window.translate(_FOR_SENTENCEX)
    try:
        found: list[str] = sentencex.segment("en", plain)
    except BaseException as panic:
        # A panic in Rust is no Exception, and has no class that could be imported; a client's
        # text must not end the gateway.
        if type(panic).__name__ != "PanicException":
            raise
        return [window]
    return found if "".join(found) == plain else [window]


def _ends_sentence(text: str, at: int) -> bool:
    """Whether a boundary that sentencex found is beyond doubt (it knows English abbreviations)."""
    following = text[at : at + 1]
    if following.islower():
        return False  # "Hm! he said."
    recent = text[max(0, at - _LOOK_BACK_CHARACTERS) : at]
    before = recent.rstrip()
    if not before.endswith("."):
        return True
    if following.isdigit() or _ORDINAL.search(before):
        return False  # "Approx. 5 kg", "Am 3. Oktober"
    glued = len(before) == len(recent) and following.isascii() and following.isalnum()
    return not glued  # "Example.Com"


def character_cuts(text: str, count: int) -> Iterator[int]:
    """Positions that divide a text without white space into about equal parts.

    No position tears a letter from its marks, an emoji or a flag apart; where there is a choice
    within reach, none tears an ASCII word or number.

    Args:
        text: At least one character.
        count: Parts wanted; there may be fewer.
    """
    bounds = [len(text) * i // count for i in range(count + 1)]
    for low, at in pairwise(bounds[:-1]):
        yield _safe_cut(text, low, at)


def _safe_cut(text: str, low: int, at: int) -> int:
    reach = _WHOLE_REACH_CHARACTERS
    for match in _WHOLE.finditer(text, max(0, at - reach), at + reach):
        if match.start() < at < match.end():
            at = match.start() if match.start() > low else match.end()
    between: int | None = None
    for position in range(at, max(low, at - _LOOK_BACK_CHARACTERS), -1):
        if _between_graphemes(text, position):
            if not _inside_ascii_word(text, position):
                return position
            between = between or position
    # A pile of more marks than that is no letter of any script: it is cut where it stands.
    return between or at


def _inside_ascii_word(text: str, at: int) -> bool:
    pair = text[at - 1 : at + 1]
    return pair.isascii() and not pair[:1].isspace()


def _between_graphemes(text: str, at: int) -> bool:
    """Whether two letters meet: what matters for speech of UAX 29, and Thai's leading vowels."""
    if at <= 0 or at >= len(text):
        return True
    before, after = text[at - 1], text[at]
    if _is_regional(before) and _is_regional(after):
        return _regional_run(text, at) % 2 == 0
    return not (_extends(after) or _binds_next(before) or (before, after) == ("\r", "\n"))


def _extends(character: str) -> bool:
    """Whether it belongs to what stands before it."""
    return (
        unicodedata.category(character)[0] == "M"
        or character == _ZERO_WIDTH_JOINER
        or "\u1160" <= character <= "\u11ff"  # vowel and final of a Hangul syllable
        or "\U0001f3fb" <= character <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= character <= "\U000e007f"  # the letters of a region's flag
    )


def _binds_next(character: str) -> bool:
    """Whether it belongs to what stands behind it."""
    return (
        character == _ZERO_WIDTH_JOINER
        or character in _THAI_AND_LAO_PREFIX_VOWELS
        or unicodedata.combining(character) == _VIRAMA_COMBINING_CLASS
    )


def _is_regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _regional_run(text: str, at: int) -> int:
    start = at
    while start > 0 and at - start < _LONGEST_FLAG_RUN and _is_regional(text[start - 1]):
        start -= 1
    return at - start
