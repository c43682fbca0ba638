"""Formatted text as a person would read the rendered page aloud; plain text stays as it is.

Chat front ends send Markdown and HTML, whole or cut into fragments. markdown-it finds the
structure; marks that lost their other half to a cut go afterwards. Text in which nothing is marked
comes back character by character.
"""

from __future__ import annotations

import re
from itertools import zip_longest

from markdown_it import MarkdownIt
from markdown_it.token import Token

from gateway.text.cuts import SPEAKER_TAG
from gateway.text.html_tags import append_tag, begins_name, end_sentence, name_of, without_hidden

# Indented code, setext headings and link references are off: fragments look like them. HTML blocks
# are, because Markdown inside of them counts; escapes are, because paths have backslashes.
_PARSER = (
    MarkdownIt("commonmark", {"html": True})
    .enable(["table", "strikethrough"])
    .disable(["code", "lheading", "reference", "html_block", "escape"])
)
_PLAIN = re.compile("(paragraph|ordered_list|list_item)_(open|close)")
# What any mark, tag, address or entity has. A text without them is plain. All begin with a look for
# one of a set of signs: alternatives would be tried at each character, at ten times the cost.
_SIGNS = re.compile(
    r"[#*_~`|=<>\[\]&$\\+/.:\u2500-\u257f-](?:(?<=[#*_~`|=<>\[\]&$\\+-])|(?<=//)|(?<=www\.)"
    r"|(?<=http:)|(?<=https:)|(?<=mailto:)|(?<=[\u2500-\u257f]{3}))"
)
# Prose in which words have hyphens, as most longer texts: the parser would leave it as it is, and
# takes half as long as all the rest of a request.
_UNMARKED = r"[^#*_~`|=<>\[\]&$\\+/.:()\u2500-\u257f\ufdd0\ufdd1-]*"
_HYPHENATED = re.compile(
    rf"{_UNMARKED}(?:(?:(?<!www)\.|(?<!http)(?<!https)(?<!mailto):|(?<=\w)-(?=\w)){_UNMARKED})*"
)
_TURN = re.compile(SPEAKER_TAG.pattern.replace("(", "(?:"))
# What is kept as it is: sound events in either spelling, what is written like them, signs that a
# backslash protects, and formulas without their marks (the groups). Between two dollars stands a
# formula if it has a sign of one or is a letter, and no words: "$5 (x=1) or 10$" is money. No part
# looks beyond the next dollar or bracket, so that hostile text takes no longer than other text.
_PROTECTED = re.compile(
    r"<SE(?:_[se])?>\[[^\[\]\n]{1,40}\]</SE(?:_[se])?>|\[[A-Za-z][A-Za-z ]{1,30}\](?![(\[:])"
    r"|\\([*#`~|])|(?<![\w\\:/.])(\w+(?:\\_\w+)+)"
    r"|\\\(((?:(?!\\[()]).){1,500})\\\)|\\\[((?:(?!\\[\[\]]).){1,500})\\\]|\$\$([^$]{1,500})\$\$"
    r"|(?<![\w$])\$(?=[^\s$])(?![^$\n]*\s[^\W\d_]{2,}\s)(?=[^$\n]*[\\^_={}]|[A-Za-z]\$)"
    r"([^$\n]{1,400})(?<!\s)\$(?![\w$])",
    re.DOTALL,
)
_KEPT, _CODE = "\ufdd0", "\ufdd1"  # stand for what is not to be touched; they are no characters
_NEITHER = re.compile(f"[{_KEPT}{_CODE}]")

_FENCE = re.compile(r"^[^\S\n]{0,3}(`{3,}|~{3,})([^`\n]*)$", re.MULTILINE)
_FOOTNOTE = re.compile(r"^\[\^[^\[\]\s]+\]:\s?|\[\^[^\[\]\s]+\]")
_TASK = re.compile(r"^\[[ xX]\]\s+")

# An address with its scheme, of which a cut may have taken the beginning.
_ADDRESS = re.compile(
    r"(?<![\w/:])(?:[a-zA-Z]*:)?//(?:www\.)?([^\s/?#<>\"'()\[\]]+)[^\s<>\"]*"
    r"|(?<![\w/.@])www\.([^\s/?#<>\"'()\[\]]+)[^\s<>\"]*"
    r"|(?<!\w)mailto:(?=[^\s@]+@)"
)
_END_OF_ADDRESS = re.compile(r"[.,;:!?'*_~)\]]*$")

# Halves of emphasis and code. A sign with white space on both sides or between letters is text:
# "3 * 4", "2*3", "snake_case"; so is one behind a single letter: "A*".
_OPENING = re.compile(r"(?<![\w*_~`)\]}\\])(?:\*{1,3}|_{1,3}|~~|`{1,3})(?=[^\s*_~`.,;:!?)])")
_CLOSING = re.compile(
    r"(?:(?<=\w\w)|(?<=[^\w\s*_~`(]))(?:\*{1,3}|_{1,3}|~~|`{1,3})(?![\w*_~`/\\])"
    r"|(?<=\w)(?:\*{2,3}|_{2,3}|~~|`)(?![\w*_~`])"
)
_LINK_END = re.compile(r"\]\([^\s()]*(?:\([^\s()]*\)[^\s()]*)*(?:\s+\"[^\"\n]*\"?)?\)?")
_LONE_OPENING = re.compile(r"!?\[(?=[^\[\]]*$)")
_LONE_CLOSING = re.compile(r"^([^\[\]]*)\]")

# Marks of single programs: ==highlighted==, ||hidden until it is clicked||.
_PAIRED = re.compile(r"(?<![\w=|])(==|\|\|)(?=[^\s=|])([^=|\n]*[^\s=|])\1(?![\w=|])")

_BLANK_LINES = re.compile(r"\n{3,}")

# What a cut leaves at the two ends of a text: half of a sign, a tag or an address.
_CUT_AT_START = re.compile(
    r"^[^<>\n]{0,200}[\"'/]>|^/[a-z][a-z0-9-]*>"
    r"|^[a-z][a-z0-9]*>(?=.*<[/a-zA-Z!])|^[a-z][a-z0-9]+>(?=\s)|^[a-z]>(?=\n|$)"
    r"|^(?:\*{2,3}|_{1,3}|~~|~$|`{1,3}|={1,3})(?=\s|$)|^[*_]{1,3}(?=[.,;:!?](?:\s|$))"
    r"|^~(?=\s*[^\W\d])|^(?P<letter>[a-z])[*_](?=[\s.,;:!?]|$)"
    r"|^(?=[^\s()]*\w)[^\s()]{0,200}[/?=#][^\s()]{0,200}(?:\s+\"[^\"\n]{0,200}\")?\)"
    r"|^(?!www\.|[a-zA-Z]+://)(?:(?P<host>\S{0,200}\w\.[a-z]{2,6})/\S*|\S{0,200}[?&]\w{1,40}=\S*)"
    r"|^/\w\S*",
    re.DOTALL,
)
_CUT_AT_END = re.compile(
    r"(?:(?<=\s)|^)(?:\*{1,3}|_{1,3}|~{1,2}|`{1,3}|={1,3}|!?\[|https?:/{0,2}|&[a-z]+)$|</?$"
)
_TAG_CUT_AT_END = re.compile(r"(?<!\w)</?([A-Za-z][\w-]*)(\s[^<>]*)?$|</[\w-]*$")
_ALTERNATIVE = re.compile(r"\salt=(?:\"([^\"<>]{1,500})\"|'([^'<>]{1,500})')")
_CODED_TAG = re.compile(r"^</?([\w-]+)[^<>]*>$")

# Lines without words, and decoration around words.
_RULER = r"=\-#*~_`|+>\u2500-\u257f"
_ONLY_SIGNS = re.compile(rf"[\s:\\]*[{_RULER}][\s:\\{_RULER}]*")
_DECORATED = re.compile(r"^([=#*~_-])\1{2,}\s+(.*?)\s+\1{3,}$")
_DECORATION = re.compile(
    r"^[=#*~]{3,}(?=\s|$)|\s(?:[=#*~]{3,}|##)$|(?<=\s)[=#*~]{4,}(?=\s)|^#{2,}(?=[^\W\d])"
)
_ROW = re.compile(r"^\|\s.*|.*\s\|$")


def readable(text: str) -> str:
    """The words of a formatted text, in the order of the page; plain text comes back unchanged.

    Headings, list items and table rows end like sentences; tables are read row by row, links by
    their words, bare addresses by their host. Hidden parts (`<think>`, scripts, comments) go.
    Higgs' sound events and speaker tags stay.

    Args:
        text: As the client sent it: a whole page or any part of one.
    """
    if not _SIGNS.search(text) or _HYPHENATED.fullmatch(text):
        return text
    shown = without_hidden(text)
    tags = _TURN.findall(shown)
    first, *turns = map(_read, _TURN.split(shown))
    return first + "".join(tag + turn for tag, turn in zip(tags, turns, strict=True))


def _read(text: str) -> str:
    """The words of one speaker's turn, with the white space around it."""
    body = text.strip()
    found = list(_PROTECTED.finditer(body))
    source = _PROTECTED.sub(_KEPT, _NEITHER.sub("", body))
    words = _words(source)
    if words is None and not any(match.lastindex for match in found):
        return text
    kept = iter([match[match.lastindex or 0].replace("\\_", "_") for match in found])
    words = re.sub(_KEPT, lambda _: next(kept, ""), source if words is None else words)
    start = text[: len(text) - len(text.lstrip())]
    return start + words + text[len(text.rstrip()) :]


def _words(source: str) -> str | None:
    """What is read out of a page, or None where nothing in it is marked."""
    page = _without_lone_fences(_without_cut_ends(source))
    reader = _Reader(page)
    for token in _PARSER.parse(page):
        reader.read(token)
    if reader.is_plain and page == source:
        return None
    return _BLANK_LINES.sub("\n\n", reader.words).strip("\n")


class _Reader:
    """Reads the blocks of a page in order.

    Args:
        page: Its source.

    Attributes:
        words: What has been read.
        is_plain: No block was marked so far.
    """

    def __init__(self, page: str) -> None:
        self.words = ""
        self.is_plain = True
        self._page = page
        self._gap = "\n\n"
        self._number = ""  # of the list item that begins here
        self._is_title = False  # ends like a sentence
        self._row: list[str] | None = None

    def read(self, token: Token) -> None:
        """Take the next block, or its beginning or end."""
        match token.type:
            case "inline":
                self._read_inline(token)
            case "paragraph_open":
                self._gap = "\n" if token.hidden else "\n\n"
            case "list_item_open":
                self._is_title = token.markup in "-+*"
                self._number = "" if self._is_title else f"{token.info}{token.markup} "
            case "list_item_close":
                self.words += self._gap + self._number.rstrip() if self._number else ""
                self._number, self._is_title = "", False
            case "heading_open":
                self._gap, self._is_title = "\n\n", True
            case "tr_open":
                self._row = []
            case "tr_close":
                self.words += "\n" + end_sentence(", ".join(filter(None, self._row or [])))
                self._row = None
            case "fence":
                self.words += "\n\n" + token.content.rstrip()
        is_marked = self._is_title or not _PLAIN.fullmatch(token.type)
        self.is_plain = self.is_plain and (token.type == "inline" or not is_marked)

    def _read_inline(self, token: Token) -> None:
        said = _inline(token, self._page)
        if said.split() != token.content.split():
            self.is_plain = False
        if self._row is not None:
            self._row.append(said)
            return
        self.words += self._gap + self._number + (end_sentence(said) if self._is_title else said)
        self._number, self._is_title = "", False


def _without_cut_ends(source: str) -> str:
    """Without the halves of signs, tags and addresses that a cut left at the ends of the text."""
    source = _CUT_AT_START.sub(lambda match: match["letter"] or match["host"] or "", source)
    cut = _TAG_CUT_AT_END.search(source)
    if cut and (cut[1] is None or begins_name(cut[1].lower(), whole=cut[2] is not None)):
        source = source[: cut.start()]
    if "~~" in source and not source.endswith("~~"):
        source = source.removesuffix("~")
    return _CUT_AT_END.sub("", source)


def _without_lone_fences(source: str) -> str:
    """Without fences whose partner was cut off: they would make code of the rest."""
    fences = list(_FENCE.finditer(source))
    lone: list[re.Match[str]] = []
    opened: re.Match[str] | None = None
    for fence in fences:
        if opened is not None and not fence[2].strip() and fence[1][:3] == opened[1][:3]:
            opened = None
        else:
            lone += [opened] if opened else []
            opened = fence
    lone += [opened] if opened else []
    for fence in reversed(lone):
        source = source[: fence.start()] + source[fence.end() :]
    return source


def _inline(token: Token, page: str) -> str:
    """The words of a paragraph, a heading or a cell."""
    words, codes = "", []
    texts: list[bool] = []  # whether each open emphasis is text after all
    children = token.children or []
    for child, following in zip_longest(children, children[1:]):
        match child.type:
            case "text" | "text_special":
                words += child.content
            case "softbreak" | "hardbreak":
                words += "\n"
            case "code_inline":
                codes.append(child.content)
                words += _CODE
            case "image":
                words += child.content
            case "html_inline":
                name = name_of(child.content, page)
                if name is None:
                    words += child.content
                else:
                    words = append_tag(words, name, closes=child.content.startswith("</"))
                    alternative = _ALTERNATIVE.search(child.content) if name == "img" else None
                    words += alternative[alternative.lastindex or 0] if alternative else ""
            case "em_open" | "strong_open":
                after = following.content[:1] if following else ""
                is_within = _is_ascii_word(words[-1:]) and _is_ascii_word(after)
                texts.append(is_within or words.endswith("\\"))
                words += child.markup if texts[-1] else ""
            case "em_close" | "strong_close":
                words += child.markup if texts.pop() else ""
    lines = [(line, _line(line)) for line in words.split("\n")]
    words = "\n".join(said for line, said in lines if said or not line)
    code = iter(_CODED_TAG.sub(r"\1", code) for code in codes)
    return re.sub(_CODE, lambda _: next(code, ""), words)


def _is_ascii_word(character: str) -> bool:
    return character.isascii() and character.isalnum()


def _line(line: str) -> str:
    """One line of text without the signs that the parser left."""
    if not _SIGNS.search(line):
        return line
    if _ONLY_SIGNS.fullmatch(line):
        return ""
    if _ROW.match(line.strip()):
        cells = (cell.strip() for cell in line.strip().strip("|").split("|"))
        line = end_sentence(", ".join(filter(None, cells)))
    line = _DECORATION.sub("", _DECORATED.sub(r"\2", line))
    line = _TASK.sub("", _FOOTNOTE.sub("", line))
    line = _LINK_END.sub("", line) if "](" in line else line
    line = _ADDRESS.sub(_host, line)
    line = _CLOSING.sub("", _OPENING.sub("", _PAIRED.sub(r"\2", line)))
    return _LONE_CLOSING.sub(r"\1", _LONE_OPENING.sub("", line))


def _host(address: re.Match[str]) -> str:
    """What a reader says of an address: where it leads."""
    host = address[1] or address[2] or ""
    end = _END_OF_ADDRESS.search(address[0])
    return _END_OF_ADDRESS.sub("", host) + (end[0] if end and host else "")
