"""Parts of a text in scripts that no engine can say: judged on the whole text, not on its cuts.

A passage is a run of letters of such scripts, with whatever stands between them that is no letter.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import lru_cache

_LATIN = frozenset({"LATIN"})
_ASCII_LETTER = re.compile("[A-Za-z]")
MOST_WORDS, MOST_LETTERS = 4, 19  # of a passage that is left out; longer ones are refused
SHOWN_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a text that cannot be said.

    Attributes:
        script: Of its first letter, as Unicode names it ("CYRILLIC").
        start, end: Its place: from its first letter to behind its last one.
        letters: How many letters it has.
        words: How many words.
    """

    script: str
    start: int
    end: int
    letters: int
    words: int

    @property
    def is_long(self) -> bool:
        """Whether leaving it out would lose what the text says."""
        return self.words > MOST_WORDS or self.letters > MOST_LETTERS


# Letters that stand in texts of every language, such as µ and º, are said as such.
_OF_ALL_SCRIPTS = frozenset({"", "MASCULINE", "FEMININE", "MICRO", "MATHEMATICAL", "MODIFIER"})
# Cyrillic letters that look like Latin ones, and words of both.
_LOOKALIKES = str.maketrans("АВЕКМНОРСТХІЈЅаеорсухіјѕ", "ABEKMHOPCTXIJSaeopcyxijs")  # noqa: RUF001
_LATIN_WORD = re.compile(rf"\b(?=\w*[A-Za-z])[A-Za-z{''.join(map(chr, _LOOKALIKES))}]+\b")
_LETTERLIKE = range(0x2100, 0x2150)  # the signs of kelvin, litre


def name_of_script(character: str) -> str:
    """The first word of a letter's or mark's Unicode name, its width left aside."""
    name = unicodedata.name(character, "")
    return name.removeprefix("FULLWIDTH ").removeprefix("HALFWIDTH ").partition(" ")[0]


@lru_cache(maxsize=8192)
def script_of(character: str) -> str | None:
    """The script of a letter, by the first word of its Unicode name; None for what is no letter."""
    if not character.isalpha() or ord(character) in _LETTERLIKE:
        return None
    # The mark that lengthens a sound of either Japanese script is "KATAKANA-HIRAGANA …".
    word = name_of_script(character).split("-")[0].replace("IDEOGRAPHIC", "CJK")  # 々 repeats one
    return None if word in _OF_ALL_SCRIPTS else word


def scripts_in(text: str) -> frozenset[str]:
    """All scripts of a text's letters."""
    if text.isascii():
        return _LATIN if _ASCII_LETTER.search(text) else frozenset()
    return frozenset(script for character in set(text) if (script := script_of(character)))


def foreign_passages(text: str, scripts: AbstractSet[str]) -> Iterator[Passage]:
    """The passages of a text in other scripts than these, in order."""
    script, start, end, letters, words, in_word = "", 0, 0, 0, 0, False
    for place, character in enumerate(text):
        found = script_of(character)
        if found is None:
            # Accents are part of their letter; everything else may stand between two words.
            in_word = in_word and unicodedata.category(character)[0] == "M"
            continue
        if found in scripts:
            if letters:
                yield Passage(script, start, end, letters, words)
            letters = words = 0
            in_word = False
            continue
        if not letters:
            script, start = found, place
        words += not in_word
        in_word = True
        letters += 1
        end = place + 1
    if letters:
        yield Passage(script, start, end, letters, words)


def without_foreign(text: str, scripts: AbstractSet[str]) -> tuple[str, int]:
    """A text without the letters of other scripts than these, and how many were left out.

    Their accents and vowel signs go with them. Cyrillic letters that stand for Latin ones within a
    Latin word are those.
    """
    if scripts_in(text) <= scripts:
        return text, 0
    text = _LATIN_WORD.sub(lambda word: word[0].translate(_LOOKALIKES), text)
    kept = []
    left_out, after_foreign = 0, False
    for character in text:
        found = script_of(character)
        if found is not None:
            after_foreign = found not in scripts
            left_out += after_foreign
        elif unicodedata.category(character)[0] != "M":
            after_foreign = False
        if not after_foreign:
            kept.append(character)
    return "".join(kept), left_out
