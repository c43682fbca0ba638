"""From a request's text to pieces that the CPU voice can say, one short piece at a time.

Pure and lazy: a long text is cut only as far as its audio is wanted, at the end of a sentence
where there is one, else at a clause, a word, and only in a word without end within it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

# A piece is one uninterruptible call of about 190 ms, and a 420-word sentence took 1.1 GB of
# memory (measured 2026-11, 2-core machine): shorter pieces stop sooner and stay small.
PIECE_CHARACTERS = 240
# The first piece decides the time to first audio, so it may end at an early comma.
FIRST_PIECE_CHARACTERS = 120
SHORTEST_CLAUSE_CHARACTERS = 30

# Silence after a piece; the voice's own 460 ms (measured 2026-11) is cut off before.
PARAGRAPH_PAUSE_SECONDS = 0.6
TURN_PAUSE_SECONDS = 0.4
SENTENCE_PAUSE_SECONDS = 0.32
CLAUSE_PAUSE_SECONDS = 0.14
WORD_PAUSE_SECONDS = 0.0

# A text with more than this share of its letters in scripts that the voice cannot say is refused;
# below it, a stray letter is left out.
FOREIGN_LETTER_SHARE = 0.05

# Longer runs of digits make the voice's number reader fail (it stops at trillions): they are read
# digit by digit.
LONGEST_NUMBER_DIGITS = 15

_SCENE = re.compile(r"<\|scene_desc_start\|>.*?<\|scene_desc_end\|>", re.DOTALL)
_SPECIAL_TOKEN = re.compile(r"<\|[^<>|]{0,64}\|>")
_EVENT = re.compile(r"<SE(?:_[se])?>[^<>]{0,64}</SE(?:_[se])?>")
_LONG_NUMBER = re.compile(rf"\d(?:[,.]?\d){{{LONGEST_NUMBER_DIGITS},}}")
_SPEAKER_TAG = re.compile(r"\[SPEAKER(\d{1,3})\]")
_SPACE = re.compile(r"\s*")
_STOP = re.compile(r"(?P<mark>[.!?…]+)[\"”\u2019')\]]*(?=\s)|(?P<line>[^\S\n]*\n)")
_CLAUSE = re.compile(r"[,;:)\u2013\u2014](?=\s)|\u2014")
_WORD_BEFORE = re.compile(r"[^\W\d_]+(?:\.[^\W\d_]+)*\Z")
_LONE_GREEK = re.compile(r"(?<![^\W\d_])[\u0370-\u03ff](?![^\W\d_])")
_ABBREVIATIONS = re.compile(
    r"(?:mr|mrs|ms|dr|prof|st|sr|jr|rev|hon|gen|col|capt|lt|sgt|mt|vs|etc|vol|approx|dept|e\.g|i\.e)",
    re.IGNORECASE,
)
# What Unicode calls a letter but no script: no reason to refuse a text.
_NEUTRAL = frozenset({"LATIN", "MODIFIER", "MICRO", "FEMININE", "MASCULINE", "KELVIN", "ANGSTROM"})
_SCRIPT_NAMES = {"CJK": "Chinese characters", "HIRAGANA": "Japanese", "KATAKANA": "Japanese"}


# Arithmetic and money in the order and the words that the voice reads. A single letter is a
# variable, but for the words "a" and "I".
_MINUS = re.compile(
    r"(?<![\w.,])(?P<left>\d[\d.,]*)?(?P<variable>(?(left)[a-z]?|[b-hj-z)]))\s+-\s+"
    r"(?=(?P<right>\d[\d.,]*)?(?P<more>(?(right)[a-z]?|[b-hj-z(]))(?![^\W_])(?P<sum>\s*=)?)"
)
_TIMES = re.compile(r"(?<=\d)\s*\*\s*(?=[\d(a-z])|(?<=[a-z)])\s*\*\s*(?=\d)")
_DIVIDED = re.compile(r"(?<=\d)\s+/\s+(?=\d)")
_MONEY = re.compile(r"(?<![\w.,€£$¥])(\d[\d.,]*)[^\S\n]?([€£$¥])(?![\w€£$¥])")
_CENTS = re.compile(r",(?=\d\d$)")
# Thousands that space parts: a usual space is such a sign only in a sum of money.
_THOUSANDS = re.compile(
    r"(?<![\w.,])\d{1,3}(?:[\u00a0\u202f]\d{3})+(?!\w)"
    r"|(?<![\w.,])\d{1,3}(?: \d{3})+(?=(?:[.,]\d\d)?[^\S\n]?[€£$¥])"
)
_POWER = re.compile(r"(?<=[\w)])[⁰\u00b9\u00b2\u00b3⁴-⁹⁻]{2,}|(?<=[\d)])[⁰\u00b9⁴-⁹]")
_SCIENTIFIC = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)[eE]\+?(-?\d{1,3})(?![\w.]*\w)")
_MIXED = re.compile(r"(?<=\d)[^\S\n]?(?=[\u00bc-\u00be⅐-⅞])")


@dataclass(frozen=True, slots=True)
class Piece:
    """One call of the voice.

    Attributes:
        text: What to say, at most PIECE_CHARACTERS, without white space around it.
        pause_seconds: Silence that belongs after it.
        speaker: The n of its `[SPEAKERn]` turn, or None outside all turns.
    """

    text: str = field(repr=False)
    pause_seconds: float
    speaker: int | None


def readable(text: str) -> str:
    """The text without what is not to be read out, in characters that the voice knows.

    Scene descriptions, special tokens and sound events (`<SE>[Laughter]</SE>`) go: this voice has
    no sound for them. Ligatures, full-width and styled letters, and digits of any script become
    plain ones; control characters become spaces; endless numbers are spaced out; arithmetic and
    sums of money are written as the voice reads them.
    """
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n"))
    for pattern in (_SCENE, _SPECIAL_TOKEN, _EVENT):
        text = pattern.sub(" ", text)
    text = _POWER.sub(lambda power: f" to the power of {_figures(power[0])}", text)
    plain = {ord(c): _plain(c) for c in set(text) if not (c.isascii() and c.isprintable())}
    text = _LONG_NUMBER.sub(lambda number: " ".join(number[0]), text.translate(plain))
    return _calculation(text)


def _calculation(text: str) -> str:
    text = text.replace("\u2212", " minus ")
    text = _THOUSANDS.sub(lambda number: "".join(number[0].split()), text)
    text = _SCIENTIFIC.sub(r"\1 times 10 to the power of \2", _MIXED.sub(" and ", text))
    text = _MONEY.sub(lambda money: money[2] + _CENTS.sub(".", money[1]), text)
    text = _DIVIDED.sub(" divided by ", _TIMES.sub(" times ", text))
    return _MINUS.sub(_minus, text)


def _figures(power: str) -> str:
    return unicodedata.normalize("NFKC", power).replace("\u2212", "-")


def _minus(found: re.Match[str]) -> str:
    """A difference in words; "10 - 12" is a range, which the voice reads as one."""
    left, right = found["left"] or "", found["right"] or ""
    is_range = bool(left and right) and not (found["variable"] or found["more"] or found["sum"])
    if is_range and (len(left), left) <= (len(right), right):
        return found[0]
    return f"{left}{found['variable']} minus "


def _plain(character: str) -> str:
    if character in "\n\r\u2028\u2029":
        return "\n"
    category = unicodedata.category(character)
    digit = unicodedata.digit(character, None)
    if category in {"Cc", "Cs", "Co", "Cn"}:
        return " "
    if category == "Cf":  # joiners and marks of direction split words in the voice's eyes
        return ""
    if digit is not None and character not in "²³":  # which it reads as "squared" and "cubed"
        return str(digit)
    if category[0] == "L" and unicodedata.decomposition(character).startswith("<"):
        folded = unicodedata.normalize("NFKC", character)
        return folded if folded.isascii() else character
    return character


def refusal(text: str) -> str | None:
    """Why the voice must refuse a text (from `readable`), or None if it can say it.

    Speaker tags do not count. A lone Greek letter is no reason: the voice reads it by its name.
    """
    said = _SPEAKER_TAG.sub(" ", text)
    scripts: Counter[str] = Counter()
    letters = 0
    for character, count in Counter(_LONE_GREEK.sub("", said)).items():
        if character.isalpha():
            letters += count
            script = unicodedata.name(character, "UNKNOWN").split()[0].split("-")[0]
            if not character.isascii() and script not in _NEUTRAL:
                scripts[_SCRIPT_NAMES.get(script, script.title())] += count
    foreign = scripts.total()
    if foreign == 0 or foreign <= FOREIGN_LETTER_SHARE * letters:
        return None
    names = ", ".join(name for name, _ in scripts.most_common(3))
    return (
        f"The CPU voice speaks English only: {foreign} of {letters} letters are in a script that it"
        f" cannot say ({names})."
    )


def turns(text: str) -> Iterator[tuple[int | None, str]]:
    """The text's turns in order: (n of the `[SPEAKERn]` tag before it or None, its words)."""
    speaker: int | None = None
    start = 0
    for tag in _SPEAKER_TAG.finditer(text):
        yield speaker, text[start : tag.start()]
        speaker, start = int(tag[1]), tag.end()
    yield speaker, text[start:]


def pieces(text: str) -> Iterator[Piece]:
    """Cut a text (from `readable`) into pieces, lazily; only white space and tags are left out."""
    first_limit = FIRST_PIECE_CHARACTERS
    held: Piece | None = None
    for speaker, words in turns(text):
        for said, pause_seconds in cut(words, first_limit):
            if held is not None:
                turned = held.speaker != speaker
                pause = max(held.pause_seconds, TURN_PAUSE_SECONDS) if turned else None
                yield held if pause is None else Piece(held.text, pause, held.speaker)
            held = Piece(said, pause_seconds, speaker)
            first_limit = PIECE_CHARACTERS
    if held is not None:
        yield held


def has_sound(text: str) -> bool:
    """Whether a piece has a letter or a number: the voice would name some lone signs ("arrow")."""
    return any(character.isalnum() for character in text)


def cut(text: str, first_limit: int = PIECE_CHARACTERS) -> Iterator[tuple[str, float]]:
    """Yield (piece, pause after it in seconds); joined again, no character but space is missing.

    Args:
        text: Any text.
        first_limit: The first piece ends at a clause before this many characters, if it can.
    """
    end_of_text = len(text.rstrip())
    start = _after_space(text, 0)
    while start < end_of_text:
        end, pause_seconds = _next_end(text, start, end_of_text, first_limit)
        following = _after_space(text, end)
        if text.count("\n", end, following) > 1:
            pause_seconds = PARAGRAPH_PAUSE_SECONDS
        yield text[start:end].rstrip(), pause_seconds
        start, first_limit = following, PIECE_CHARACTERS


def _next_end(text: str, start: int, end_of_text: int, first_limit: int) -> tuple[int, float]:
    limit = min(start + PIECE_CHARACTERS, end_of_text)
    end = _sentence_end(text, start, limit)
    whole = end if end is not None else (limit if limit == end_of_text else None)
    if whole is None or whole - start > first_limit:
        early = start + first_limit
        clause = _clause_end(text, start, min(limit, early))
        if clause is not None:
            return clause, CLAUSE_PAUSE_SECONDS
    if whole is not None:
        return whole, SENTENCE_PAUSE_SECONDS
    for index in range(limit, start, -1):
        if text[index].isspace():
            return index, WORD_PAUSE_SECONDS
    for index in range(limit, limit - 8, -1):  # an accent stays with its letter
        if not unicodedata.combining(text[index]):
            return index, WORD_PAUSE_SECONDS
    return limit, WORD_PAUSE_SECONDS


def _sentence_end(text: str, start: int, limit: int) -> int | None:
    # One character more than the piece may hold: the space that proves the end.
    for stop in _STOP.finditer(text, start, limit + 1):
        next_start = _after_space(text, stop.end())
        following = text[next_start : next_start + 1]
        if stop["line"] is not None:
            # A lower-case letter goes on with a sentence that was only wrapped.
            if not following.islower() and stop.start() > start:
                return stop.start()
        elif not following.islower() and not _abbreviated(text, start, stop):
            return stop.end()
    return None


def _abbreviated(text: str, start: int, stop: re.Match[str]) -> bool:
    if stop["mark"] != ".":
        return False
    word = _WORD_BEFORE.search(text[max(start, stop.start() - 12) : stop.start()])
    if word is None:
        return False
    initial = len(word[0]) == 1 and word[0].isupper()
    return initial or _ABBREVIATIONS.fullmatch(word[0]) is not None


def _clause_end(text: str, start: int, limit: int) -> int | None:
    last: int | None = None
    for mark in _CLAUSE.finditer(text, start, limit + 1):
        if start + SHORTEST_CLAUSE_CHARACTERS <= mark.end() <= limit:
            last = mark.end()
    return last


def _after_space(text: str, start: int) -> int:
    space = _SPACE.match(text, start)
    return space.end() if space else start
