"""The last step before the wire: text that cannot steer the engine's tokenizer.

The container tokenizes `<|…|>` in a client's text as special tokens, and one `<|AUDIO|>` kills it
(docs/contract.md section 6). Nothing may change the text after this: normalisation turns other
characters into `<` and `>`, and a cut or a join can put a token together.
"""

from __future__ import annotations

import re

from gateway.errors import InvalidRequest

SCENE_START = "<|scene_desc_start|>"
SCENE_END = "<|scene_desc_end|>"

# Every special token of the Llama 3 vocabulary and of Higgs Audio v2 is `<|` + letters, digits and
# underscores + `|>`, at most 31 characters. The rule is wider, for vocabularies of other engines:
# anything but white space, up to twice that. Text that uses the signs as operators (`f <| x`,
# `x |> f`) has white space between them and stays.
MOST_NAME_CHARACTERS = 64
SPECIAL_TOKEN = re.compile(rf"<\|\S{{0,{MOST_NAME_CHARACTERS}}}?\|>")

# Control characters are not spoken. Those that separate words become line ends, the rest vanish
# (Unicode category Cc; format characters such as joiners are part of words in some scripts).
_CONTROLS: dict[int, str | None] = {
    **dict.fromkeys((*range(0x20), *range(0x7F, 0xA0))),
    **dict.fromkeys((0x0B, 0x0C, 0x0D, 0x1C, 0x1D, 0x1E, 0x1F, 0x85), "\n"),
}
del _CONTROLS[0x09], _CONTROLS[0x0A]
_SURROGATE = re.compile("[\ud800-\udfff]")


def check_text(text: str, limit: int, *, param: str = "input") -> None:
    """Refuse text that no engine can be given.

    Args:
        text: As the client sent it.
        limit: Most characters (code points).
        param: The field's name on the client's surface.

    Raises:
        InvalidRequest: It is empty, blank, too long or not Unicode (a lone surrogate).
    """
    if len(text) > limit:
        raise InvalidRequest(
            f"The text has {len(text)} characters; at most {limit} are allowed.", param=param
        )
    if not text.strip():
        raise InvalidRequest("The text is empty.", param=param)
    if not text.isascii() and _SURROGATE.search(text):
        raise InvalidRequest("The text is not valid Unicode: it has a lone surrogate.", param=param)


def sanitise_text(text: str) -> str:
    """Remove special tokens and control characters; line ends and tabs stay.

    Tokens that only appear when another is removed go too, in one linear pass. Idempotent.
    """
    return _without_tokens(_plain(text), keep=())


def sanitise_system_prompt(text: str) -> str:
    """The same, but one scene description may stay.

    The tags of the scene description stay when there is one start tag and behind it one end tag;
    otherwise they are removed like any other token.
    """
    plain = _plain(text)
    kept = _without_tokens(plain, keep=(SCENE_START, SCENE_END))
    starts, ends = kept.count(SCENE_START), kept.count(SCENE_END)
    if (starts, ends) == (1, 1) and kept.index(SCENE_START) < kept.index(SCENE_END):
        return kept
    return _without_tokens(plain, keep=())


def _plain(text: str) -> str:
    if text.isprintable():  # no control character, no line end: the common short text
        return text
    return text.replace("\r\n", "\n").translate(_CONTROLS)


def _without_tokens(text: str, keep: tuple[str, ...]) -> str:
    """Remove what SPECIAL_TOKEN matches until nothing does, except the tokens of `keep`.

    The output is a stack of characters. `openings` are the places in it where `<|` stands and no
    white space has followed; the `>` of a `|>` takes everything from the last of them away.
    """
    if "<|" not in text or not SPECIAL_TOKEN.search(text):
        return text  # removal begins with a token that stands there in full
    output: list[str] = []
    openings: list[int] = []
    for character in text:
        output.append(character)
        if character == "|" and output[-2:-1] == ["<"]:
            openings.append(len(output) - 2)
        elif character == ">" and output[-2:-1] == ["|"]:
            _close(output, openings, keep)
        elif character.isspace():
            openings.clear()
    return "".join(output)


def _close(output: list[str], openings: list[int], keep: tuple[str, ...]) -> None:
    """Take the token away that ends with the last two characters, if one does."""
    # `<|>` has one bar for both signs and is no token: its opening counts for nothing here.
    at = len(openings) - 1
    if at >= 0 and openings[at] + 3 == len(output):
        at -= 1
    if at < 0 or len(output) - openings[at] > MOST_NAME_CHARACTERS + 4:
        return
    start = openings[at]
    if "".join(output[start:]) not in keep:
        del output[start:]
    del openings[at:]
