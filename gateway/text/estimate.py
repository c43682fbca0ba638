"""Estimates how long a text takes to say, with bounds for runaways and cut answers.

A character's script gives its pace; the bounds are wide on purpose, because a slow honest reading
must never be cut and a quick one never be refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from gateway import value
from gateway.text.writing_systems import name_of_script

MOST_REMEMBERED_CHARACTERS = 4096
MOST_REMEMBERED, MOST_REMEMBERED_WORD_CHARACTERS = 8192, 32
SHORTEST_SECONDS = 0.04  # one audio token
LONGEST_BASE_SECONDS = 5.0  # breath, pauses and a sigh around the shortest text
Known = TypeVar("Known")


@value
class Estimate:
    """Seconds of audio for a text at speed 1.

    Attributes:
        shortest_seconds: Less is no reading of the whole text.
        likely_seconds: An ordinary reading.
        longest_seconds: More is a runaway.
    """

    shortest_seconds: float
    likely_seconds: float
    longest_seconds: float

    def widened_seconds(self, seconds_per_character_factor: float) -> float:
        """The longest bound where each character may take so many times as long."""
        said = (self.longest_seconds - LONGEST_BASE_SECONDS) * seconds_per_character_factor
        return max(self.likely_seconds, LONGEST_BASE_SECONDS + said)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds that one character of a kind takes to say: hastily, ordinarily, at the longest."""

    hasty: float
    likely: float
    longest: float


def _letters(per_second: float) -> Pace:
    """The pace of a script: a quarter and four times the usual rate are the bounds."""
    return Pace(0.25 / per_second, 1 / per_second, 4 / per_second)


# Ordinary rates are characters a second of read-aloud text: about 150 words a minute of English,
# 4 to 5 syllables a second where a character is a syllable, 7 to 8 where it is a mora.
LATIN = _letters(14)
CAPITAL = Pace(LATIN.hasty, LATIN.likely, 0.75)  # may be spelled: "W" takes 0.5 s
ALPHABET = _letters(13)  # Cyrillic, Greek, Armenian, Georgian
ABJAD = _letters(9)  # Arabic, Hebrew: short vowels are not written
INDIC = _letters(11)  # and Thai, Lao, Burmese, Khmer: vowel signs are characters of their own
KANA = _letters(7.5)
HAN = Pace(0.055, 0.23, 0.9)  # one syllable in Chinese, up to four morae in Japanese
SYLLABLE = _letters(4.5)  # Hangul, Ethiopic and every script not named here
# A digit of a telephone number takes 0.4 s; of a price up to 0.75 s ("$1,234.56" has 62 letters
# when it is read out). 1,000,000,000 is "one billion".
DIGIT = Pace(0.03, 0.4, 0.75)
SYMBOL = Pace(0.0, 0.25, 0.75)  # "%", "€", "+": named or skipped
PAUSE = Pace(0.0, 0.06, 0.45)  # white space, punctuation, emoji and other decoration
LINE_END = Pace(0.0, 0.3, 2.0)
NOTHING = Pace(0.0, 0.0, 0.0)

# A sound event (laughter, a line of music) is as long as the model likes; a speaker tag is a turn.
EVENT = Pace(0.0, 2.0, 12.0)
TURN = Pace(0.0, 0.3, 3.0)

_PACES_BY_NAME = {
    name: pace
    for pace, names in (
        (LATIN, "LATIN"),
        (ALPHABET, "CYRILLIC GREEK ARMENIAN GEORGIAN"),
        (ABJAD, "ARABIC HEBREW SYRIAC"),
        (INDIC, "DEVANAGARI BENGALI GURMUKHI GUJARATI ORIYA TAMIL TELUGU KANNADA MALAYALAM"),
        (INDIC, "SINHALA THAI LAO MYANMAR KHMER TIBETAN"),
        (KANA, "HIRAGANA KATAKANA KATAKANA-HIRAGANA"),
        (HAN, "CJK"),
    )
    for name in names.split()
}

_EVENTS = re.compile(r"</?SE(?:_[se])?>\[\w+\]</?SE(?:_[se])?>|\[[a-z]+(?: start| end)?\]")
_SPEAKERS = re.compile(r"\[SPEAKER\d{1,3}\]")
# "=====": a rule is not read sign by sign.
_RULES = re.compile(r"([^\w\s])\1{3,}")

# What a hasty reading leaves out: repetition ("nooooo", "hahaha", a chorus) beyond three times,
# and the rest of what is no word ("https://…", a key in base64).
_GROUPS = re.compile(r"(\w{1,12}?)\1{3,}")
_MOST_REPEATS = 3
_NO_WORD = re.compile(r"([!-~]{32})[!-~]+")
_BETWEEN_WORDS = re.compile(r"[^\w\u0300-\u036f\u0590-\u1cff\ua8e0-\uabff]+|_+")

_SPOKEN_SYMBOLS = frozenset("%‰&@#§°©®™")  # those of maths and money besides
_ASCII_GRAVE_AND_BARS = frozenset("~|^`")
# Letters by their category that have neither shape nor sound: fillers of Hangul syllables.
_FILLERS = frozenset("\u115f\u1160\u3164\uffa0")


class _Remembered(dict[str, Known]):
    """What a function finds of short texts: asked anew once there are too many of them.

    Words come again, in every text: to measure one anew costs 30 times as much. A look costs less
    than one into `lru_cache`, which also notes when it was.
    """

    def __init__(self, find: Callable[[str], Known]) -> None:
        super().__init__()
        self._find = find

    def __missing__(self, text: str) -> Known:
        found = self._find(text)
        if len(text) <= MOST_REMEMBERED_WORD_CHARACTERS:
            if len(self) >= MOST_REMEMBERED:
                self.clear()
            self[text] = found
        return found


def _pace(character: str) -> Pace:
    """The pace of one character."""
    if character == "\n":
        return LINE_END
    category = unicodedata.category(character)
    match category[0]:
        case "N":
            return DIGIT
        case "L" | "M":
            return _letter_pace(character, category)
        case "S" | "P" | "Z":
            return SYMBOL if _has_name(character, category) else PAUSE
    return PAUSE if character == "\t" else NOTHING


def _has_name(character: str, category: str) -> bool:
    """Whether a reader may name this sign, such as "percent"."""
    if character in _SPOKEN_SYMBOLS:
        return True
    return category in {"Sc", "Sm"} and character not in _ASCII_GRAVE_AND_BARS


def _letter_pace(character: str, category: str) -> Pace:
    pace = _PACES_BY_NAME.get(name_of_script(character))
    if pace is None:
        return NOTHING if category[0] == "M" else SYLLABLE  # accents are part of their letter
    return CAPITAL if category == "Lu" else pace


_LETTER_OR_DIGIT = re.compile("[A-Za-z0-9]")


@lru_cache(maxsize=8192)
def _is_spoken(character: str) -> bool:
    """Whether a character has a sound of its own: a letter or a number of any script."""
    return unicodedata.category(character)[0] in "LN" and character not in _FILLERS


_paces = _Remembered(_pace)
# What a part of a text takes, which has no space or stands between two: its likely and its longest
# seconds, those of a hasty reading, and its words, without what is repeated within them.
_Measured = tuple[float, float, float, tuple[str, ...]]


def _measured(part: str) -> _Measured:
    said = part
    is_long = len(part) > MOST_REMEMBERED_WORD_CHARACTERS
    if is_long or len(part) - len(set(part)) >= _MOST_REPEATS:
        part = _RULES.sub(lambda match: match[1] * _MOST_REPEATS, part)
        said = _NO_WORD.sub(lambda match: match[1], part) if is_long else part
        # One character less than four times, so that more text never counts less.
        said = _GROUPS.sub(lambda match: (match[1] * (_MOST_REPEATS + 1))[:-1], said)
    paces = [_paces[character] for character in part]
    likely, longest = sum([pace.likely for pace in paces]), sum([pace.longest for pace in paces])
    words = tuple(filter(None, _BETWEEN_WORDS.split(said.casefold())))
    return likely, longest, sum(map(_hasty_seconds, words)), words


def _hasty_seconds(word: str) -> float:
    return sum([_paces[character].hasty for character in word])


_measures = _Remembered(_measured)


def speech_seconds(text: str) -> Estimate:
    """Estimate how long a text takes to say at speed 1; no figure is ever zero.

    Args:
        text: What is said, as the engine gets it; event tags in either spelling.
    """
    return (_estimate_of_short if len(text) <= MOST_REMEMBERED_CHARACTERS else _estimate)(text)


def _estimate(text: str) -> Estimate:
    likely = longest = hasty = 0.0
    if "[" in text:
        text, events = _EVENTS.subn(" ", text)
        text, turns = _SPEAKERS.subn(" ", text)
        likely = events * EVENT.likely + turns * TURN.likely
        longest = events * EVENT.longest + turns * TURN.longest
    parts = text.split(" ")
    likely += (len(parts) - 1) * PAUSE.likely
    longest += (len(parts) - 1) * PAUSE.longest
    words: list[str] = []
    for part in parts:
        likely_of_part, longest_of_part, hasty_of_part, words_of_part = _measures[part]
        likely += likely_of_part
        longest += longest_of_part
        hasty += hasty_of_part
        words += words_of_part
    if len(words) - len(set(words)) >= _MOST_REPEATS:  # a word may come more often than that
        for word, times in Counter(words).items():
            if times > _MOST_REPEATS:
                hasty -= (times - _MOST_REPEATS) * _hasty_seconds(word)
    shortest = max(SHORTEST_SECONDS, hasty)
    return Estimate(shortest, max(shortest, likely), LONGEST_BASE_SECONDS + longest)


# One request asks about the same sentence when it is read, split and planned; that was a tenth of
# its CPU.
_estimate_of_short = lru_cache(maxsize=64)(_estimate)


def looks_silent(text: str) -> bool:
    """Whether nothing in the text can be pronounced: it has no letter and no number.

    Punctuation, rules, emoji, arrows and lone signs ("$$") are silent; speaker tags do not count,
    and a sound event is no silence.
    """
    text = _SPEAKERS.sub("", text) if "[" in text else text
    return not (_LETTER_OR_DIGIT.search(text) or any(map(_is_spoken, set(text))))
