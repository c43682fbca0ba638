"""Tags of HTML and SSML within a text: which of them are tags, and what a reader makes of each."""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BLOCKS = _words(
    "address article aside blockquote body details dialog div dd dl dt fieldset figcaption figure "
    "footer form head header hgroup hr html main nav ol p section summary table tbody tfoot thead "
    "ul pre speak paragraph"
)
_SENTENCES = _words("h1 h2 h3 h4 h5 h6 li tr title caption option button")
_CELLS = frozenset(("td", "th"))
_LINES = frozenset(("br", "break"))
_NAMES = (
    _BLOCKS
    | _SENTENCES
    | _CELLS
    | _LINES
    | _words(
        "a abbr acronym audio b bdi bdo big center cite code data del dfn em font i iframe img "
        "input ins kbd label link mark meta meter object picture progress q rp rt ruby s samp "
        "small source span strike strong sub sup svg time tt u var video wbr "
        # SSML, and what models wrap their answers in
        "desc emphasis lang lexicon metadata phoneme prosody say-as seq par media token voice w "
        "answer output response speech"
    )
)
_TAG = re.compile(
    r"</?(?P<name>[A-Za-z][A-Za-z0-9:-]*)"
    r"(?P<attributes>(?:\s+[\w:.-]+(?:\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s\"'=<>`]+))?)*)\s*/?>"
)
_BARE_ATTRIBUTES = _words(
    "async autofocus autoplay checked controls default defer disabled hidden loop multiple muted "
    "open readonly required reversed selected"
)
_ATTRIBUTE = re.compile(r"([\w:.-]+)\s*(=?)\s*(?:\"[^\"]*\"|'[^']*'|[^\s\"'=<>`]+)?")

_UNENDED = re.compile("[^\\W_][)\"'\u201d\u2019\u00bb]*$")

_HIDDEN_NAMES = _words("think thinking reasoning script style template noscript")
_HIDDEN = re.compile(
    rf"<({'|'.join(_HIDDEN_NAMES)})\b[^<>]*>.*?(?:</\1\s*>\s*|\Z)"
    r"|<!--.*?(?:-->|\Z)|<!\[CDATA\[|\]\]>|<!doctype[^<>]*>|<\?xml[^<>]*\?>",
    re.DOTALL | re.IGNORECASE,
)
# The template of some models opens the thoughts, so that the answer only closes them.
_END_OF_THOUGHT = re.compile(
    r"\A.*</(?:think|thinking|reasoning)\s*>\s*", re.DOTALL | re.IGNORECASE
)
_NAMESPACED = re.compile(r"</?[a-z]+:[a-z-]+(?:\s[^<>]*)?/?>")


def without_hidden(text: str) -> str:
    """The text without thoughts, scripts, styles and comments, closed or cut off."""
    if "<" not in text and "]]>" not in text:
        return text
    return _NAMESPACED.sub("", _END_OF_THOUGHT.sub("", _HIDDEN.sub("", text)))


def name_of(tag: str, page: str) -> str | None:
    """The lower-case name of a tag, or None where it is text, such as `a <b and c> d`.

    Args:
        tag: From `<` to `>`.
        page: Where it stands: an unknown name is a tag if the page closes it.
    """
    match = _TAG.fullmatch(tag)
    if match is None:
        return None
    for name, sign in _ATTRIBUTE.findall(match["attributes"]):
        if not sign and name.lower() not in _BARE_ATTRIBUTES:
            return None
    name = match["name"].lower()
    return name if name in _NAMES or (f"</{match['name']}>" in page) else None


def begins_name(start: str, *, whole: bool) -> bool:
    """Whether HTML or SSML has a tag of a lower-case name that begins so.

    Args:
        start: The name, or as much of it as is there.
        whole: All of it is there.
    """
    if whole:
        return start in _NAMES or start in _HIDDEN_NAMES
    return any(name.startswith(start) for name in _NAMES | _HIDDEN_NAMES)


def append_tag(words: str, name: str, *, closes: bool) -> str:
    """What a reader makes of a tag: a pause, or nothing.

    Args:
        words: What was read before it.
        name: Its lower-case name.
        closes: It is an end tag.
    """
    if name in _SENTENCES and closes:
        return end_sentence(words.rstrip(" ,")) + "\n"
    if name in _CELLS and closes:
        return words.rstrip() + ", "
    if name in _LINES:
        return words + "\n"
    return words + "\n\n" if name in _BLOCKS else words


def end_sentence(words: str) -> str:
    """With a full stop, where a title or an item has no sign at its end."""
    bare = words.rstrip()
    return bare + "." if bare and _UNENDED.search(bare) else words
