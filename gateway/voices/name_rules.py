"""What a voice of the library may be called, and which names are too much alike to stand together.

A name is compared after NFKC and case folding, and with letters of other alphabets that look the
same taken for the same: nobody shall take a voice for another by its name.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

from gateway.errors import InvalidRequest
from gateway.text.sanitise import check_text, sanitise_text
from gateway.text.writing_systems import name_of_script
from gateway.voices.aliases import fold, without_ending

MOST_NAME_CHARACTERS = 100
LONGEST_LOOKED_UP = 256
MOST_ALIASES = 16
MOST_TEXT_CHARACTERS = 4096
MOST_LANGUAGE_CHARACTERS = 35  # the longest language tag that RFC 5646 asks programs to hold
ALPHABET = "letters, digits, spaces and . _ -"
_PUNCTUATION = frozenset(" ._-")
_APOSTROPHES = frozenset("'`\u2018\u2019")
# Alphabets whose letters pass for each other's. Others (kana and kanji) are honestly mixed.
_ALIKE = frozenset({"LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "CHEROKEE", "COPTIC"})
# Small letters of Cyrillic, Greek and Armenian that are drawn like Latin ones.
_LOOKS = str.maketrans(
    "авсеԁһіјӏкмпорԛѕтиѵԝхузгαβγεικνορτυχωհոսցօ",
    "abcedhijlkmnopqstuvwxyzrabyeikvoptuxwhnugo",
)
_LOOKS_OF_DIGITS = str.maketrans("01", "ol")


def clean_name(name: str, *, param: str) -> str:
    """A name or alias as it is kept: NFKC, single spaces, without a sound file's ending.

    Raises:
        InvalidRequest: Empty, too long, other characters, or look-alike alphabets mixed.
    """
    if len(name) > MOST_NAME_CHARACTERS + 10:  # before any work on it
        raise _too_long(param)
    cleaned = without_ending(" ".join(unicodedata.normalize("NFKC", name).split(" ")).strip())
    if len(cleaned) > MOST_NAME_CHARACTERS:
        raise _too_long(param)
    letters = [letter for letter in cleaned if letter.isalnum()]
    scripts = {name_of_script(letter) for letter in letters}
    foreign = any(
        character not in _PUNCTUATION
        and not character.isalnum()
        and not (_is_mark(character) and name_of_script(character) in scripts)
        for character in cleaned
    )
    if not letters or foreign or not cleaned[0].isalnum():
        raise InvalidRequest(
            f"A voice's name begins with a letter or digit and has {ALPHABET}.", param=param
        )
    if len(scripts & _ALIKE) > 1:
        raise InvalidRequest(
            "A voice's name mixes letters of alphabets that look alike.", param=param
        )
    return cleaned


def name_of_file(filename: str, data: bytes) -> str:
    """A voice's name made of an uploaded file's: without its path and what no name may hold.

    Args:
        filename: As hostile as the rest of an upload.
        data: The file; it names the voice where its own name cannot.
    """
    last = unicodedata.normalize("NFKC", printable(filename) or "")
    kept = _PUNCTUATION | {character for character in last if character.isalnum()}
    words = "".join(
        character if character in kept or _is_mark(character) else " "
        for character in last
        if character not in _APOSTROPHES
    )
    name = " ".join(without_ending(words).split()).lstrip(" ._-")[:MOST_NAME_CHARACTERS]
    try:
        return clean_name(name, param="filename")
    except InvalidRequest:
        return name_of_content(data)


def name_of_content(data: bytes) -> str:
    """A voice's name made of a file's bytes: the same file always has the same one."""
    return f"recording-{hashlib.sha256(data).hexdigest()[:8]}"


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "M"


def _too_long(param: str) -> InvalidRequest:
    return InvalidRequest(
        f"A voice's name has at most {MOST_NAME_CHARACTERS} characters.", param=param
    )


def lookup_key(name: str) -> str:
    """What a name is looked up by: letter case and a sound file's ending never matter."""
    return fold(unicodedata.normalize("NFKC", name[:LONGEST_LOOKED_UP]))


def skeleton(name: str) -> str:
    """What two names that look alike have in common."""
    return lookup_key(name).translate(_LOOKS).translate(_LOOKS_OF_DIGITS)


def clean_aliases(aliases: Sequence[str], name: str) -> tuple[str, ...]:
    """Further names as they are kept, each once, without the name itself.

    Raises:
        InvalidRequest: One that cannot be a name, or too many.
    """
    if len(aliases) > MOST_ALIASES:
        raise InvalidRequest(f"A voice has at most {MOST_ALIASES} aliases.", param="aliases")
    cleaned = [clean_name(alias, param="aliases") for alias in aliases]
    by_look = {skeleton(alias): alias for alias in cleaned if skeleton(alias) != skeleton(name)}
    return tuple(by_look.values())


def clean_text(text: str | None, param: str) -> str | None:
    """A transcript or consent without special tokens and control characters; None if blank.

    Raises:
        InvalidRequest: It is too long, or not Unicode.
    """
    if text is None or not text.strip():
        return None
    check_text(text, MOST_TEXT_CHARACTERS, param=param)
    return sanitise_text(text).strip() or None


def clean_language(language: str) -> str:
    """A language tag; English for a blank one.

    Raises:
        InvalidRequest: It is none.
    """
    language = language.strip() or "en"
    plain = language.replace("-", "").replace("_", "")
    if len(language) > MOST_LANGUAGE_CHARACTERS or not (plain.isascii() and plain.isalnum()):
        raise InvalidRequest("It is not a language tag such as en or zh-CN.", param="language")
    return language


def printable(name: str | None) -> str | None:
    """An uploaded file's name, harmless to show: the last part of a path, 100 characters."""
    if name is None:
        return None
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(character for character in last if character.isprintable())[:100] or None
