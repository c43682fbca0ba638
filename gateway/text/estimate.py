"""How long a text may take to say: the bounds that tell speech from a runaway or a cut answer.

A character's script gives its pace; the bounds are wide on purpose, because a slow honest reading
must never be cut and a quick one never be refused.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

TOKENS_PER_SECOND = 25  # docs/contract.md section 2
OVERHEAD_TOKENS = 11  # tokens used = frames + 11, same section
CONTEXT_TOKENS = 8192  # max_model_len, docs/contract.md section 1: prompt and audio together
# What the default scene prompt and the chat template take of the context, rounded up.
DEFAULT_PROMPT_TOKENS = 96

SHORTEST_SECONDS = 0.04  # one audio token
LONGEST_BASE_SECONDS = 5.0  # breath, pauses and a sigh around the shortest text
SLOW_FACTOR = 3.0  # the longest bound is three slow readings


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds that one character of a kind takes to say: read hastily, ordinarily, slowly."""

    hasty: float
    likely: float
    slow: float


def _letters(per_second: float) -> Pace:
    """A script's pace: nobody reads four times as fast as usual, a slow reader takes twice."""
    return Pace(0.25 / per_second, 1 / per_second, 2 / per_second)


# Ordinary rates are characters a second of read-aloud text: about 150 words a minute of English,
# 4 to 5 syllables a second where a character is a syllable, 7 to 8 where it is a mora.
LATIN = _letters(14)
CAPITAL = Pace(LATIN.hasty, LATIN.likely, 0.4)  # may be spelled: "W" takes 0.5 s
ALPHABET = _letters(13)  # Cyrillic, Greek, Armenian, Georgian
ABJAD = _letters(9)  # Arabic, Hebrew: short vowels are not written
INDIC = _letters(11)  # and Thai, Lao, Burmese, Khmer: vowel signs are characters of their own
KANA = _letters(7.5)
HAN = Pace(0.055, 0.23, 0.6)  # one syllable in Chinese, up to four morae in Japanese
SYLLABLE = _letters(4.5)  # Hangul, Ethiopic and every script not named here
# "7" may be "seven hundred"; 1,000,000,000 is "one billion".
DIGIT = Pace(0.03, 0.35, 1.0)
SYMBOL = Pace(0.0, 0.25, 0.6)  # "%", "€", an emoji: named or skipped
PAUSE = Pace(0.0, 0.06, 0.15)  # white space and punctuation
LINE_END = Pace(0.0, 0.3, 0.7)
NOTHING = Pace(0.0, 0.0, 0.0)

# A sound event (laughter, a line of music) is as long as the model likes; a speaker tag is a turn.
EVENT = Pace(0.0, 2.0, 8.0)
TURN = Pace(0.0, 0.3, 1.0)

_PACES_BY_NAME = {
    "LATIN": LATIN,
    "CYRILLIC": ALPHABET,
    "GREEK": ALPHABET,
    "ARMENIAN": ALPHABET,
    "GEORGIAN": ALPHABET,
    "ARABIC": ABJAD,
    "HEBREW": ABJAD,
    "SYRIAC": ABJAD,
    "DEVANAGARI": INDIC,
    "BENGALI": INDIC,
    "GURMUKHI": INDIC,
    "GUJARATI": INDIC,
    "ORIYA": INDIC,
    "TAMIL": INDIC,
    "TELUGU": INDIC,
    "KANNADA": INDIC,
    "MALAYALAM": INDIC,
    "SINHALA": INDIC,
    "THAI": INDIC,
    "LAO": INDIC,
    "MYANMAR": INDIC,
    "KHMER": INDIC,
    "TIBETAN": INDIC,
    "HIRAGANA": KANA,
    "KATAKANA": KANA,
    "KATAKANA-HIRAGANA": KANA,
    "CJK": HAN,
}
_WIDTHS = ("FULLWIDTH ", "HALFWIDTH ")

_EVENTS = re.compile(r"</?SE(?:_[se])?>\[\w+\]</?SE(?:_[se])?>|\[[a-z]+(?: start| end)?\]")
_SPEAKERS = re.compile(r"\[SPEAKER\d{1,3}\]")
_RUNS = re.compile(r"(.)\1{3,}")
# Punctuation that is read out, and symbols that are not: rules, boxes, bullets, lone accents.
_SPOKEN_PUNCTUATION = frozenset("%‰&@#§")
_UNSPOKEN_SYMBOLS = frozenset("~|^`") | {chr(code) for code in range(0x2500, 0x2600)}


@lru_cache(maxsize=8192)
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
        case "S":
            return PAUSE if _is_silent(character) else SYMBOL
        case "P" | "Z":
            return PAUSE if _is_silent(character) else SYMBOL
    return PAUSE if character == "\t" else NOTHING


def _letter_pace(character: str, category: str) -> Pace:
    name = unicodedata.name(character, "")
    for width in _WIDTHS:
        name = name.removeprefix(width)
    pace = _PACES_BY_NAME.get(name.split(" ", 1)[0])
    if pace is None:
        return NOTHING if category[0] == "M" else SYLLABLE  # accents are part of their letter
    return CAPITAL if category == "Lu" else pace


@lru_cache(maxsize=8192)
def _is_silent(character: str) -> bool:
    """Whether nobody would read this character out."""
    if character in _SPOKEN_PUNCTUATION:
        return False
    category = unicodedata.category(character)
    if category == "Sk" or character in _UNSPOKEN_SYMBOLS:
        return True
    return category[0] not in "LNS"


def _sums(text: str) -> tuple[float, float, float]:
    """Hasty, likely and slow seconds of a text, its tags included."""
    text, events = _EVENTS.subn("", text)
    text, turns = _SPEAKERS.subn("", text)
    # "nooooo" is one long vowel: a hasty reading has no more than three of a kind in a row.
    hasty = sum(_pace(char).hasty * n for char, n in Counter(_RUNS.sub(r"\1\1\1", text)).items())
    likely = events * EVENT.likely + turns * TURN.likely
    slow = events * EVENT.slow + turns * TURN.slow
    for char, n in Counter(text).items():
        pace = _pace(char)
        likely += pace.likely * n
        slow += pace.slow * n
    return hasty, likely, slow


def speech_seconds(text: str, *, seconds_per_character_factor: float = 1.0) -> Estimate:
    """Estimate how long a text takes to say at speed 1; no figure is ever zero.

    Args:
        text: What is said, as the engine gets it; event tags in either spelling.
        seconds_per_character_factor: Widens (or narrows) the longest bound.
    """
    hasty, likely, slow = _sums(text)
    longest = LONGEST_BASE_SECONDS + SLOW_FACTOR * slow * seconds_per_character_factor
    shortest = max(SHORTEST_SECONDS, hasty)
    likely = max(shortest, likely)
    return Estimate(shortest, likely, max(likely, longest))


def max_tokens(
    text: str,
    *,
    seconds_per_character_factor: float = 1.0,
    ceiling: int = CONTEXT_TOKENS,
    prompt_tokens: int = DEFAULT_PROMPT_TOKENS,
) -> int:
    """The bound of a generation: audio tokens of the longest plausible reading, plus overhead.

    The container refuses a request whose prompt and bound together exceed its context
    (docs/contract.md section 2), so the text's own tokens are left free, counted generously.

    Args:
        text: What is said.
        seconds_per_character_factor: As in `speech_seconds`.
        ceiling: Tokens of the engine's context.
        prompt_tokens: Tokens of everything in the prompt but the text.
    """
    estimate = speech_seconds(text, seconds_per_character_factor=seconds_per_character_factor)
    wanted = math.ceil(TOKENS_PER_SECOND * estimate.longest_seconds) + OVERHEAD_TOKENS
    free = ceiling - prompt_tokens - -(-_utf8_bytes(text) // 3)
    return max(OVERHEAD_TOKENS + TOKENS_PER_SECOND, min(wanted, free))


def looks_silent(text: str) -> bool:
    """Whether nothing in the text is ever read out: white space, punctuation, rules, bullets.

    An emoji is not silent: the engine decides whether it has a sound for it.
    """
    return all(_is_silent(character) for character in set(_SPEAKERS.sub("", text)))


def estimate_input_tokens(text: str) -> int:
    """A text's tokens for usage reports: one for every four bytes of UTF-8, at least one.

    The gateway has no tokenizer; Llama 3's takes about four letters of English, two of Cyrillic
    and somewhat more than one Chinese character a token, which is four bytes each.
    """
    return max(1, -(-_utf8_bytes(text) // 4))


def _utf8_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
