"""Formatted text is read like the rendered page, and plain text is not touched."""
# ruff: noqa: RUF001 - text of every script is the point

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.text.markup import _HYPHENATED, _read, readable

quick = settings(deadline=None, max_examples=300)

PLAIN = [
    *("a < b", "5 > 3", "x<y and y>z", "a <b and c> d", "i <3 you", "a <= b >= c", "List<int> x"),
    *("3 * 4", "2*3*4 = 24", "f(x)*g(x)*h", "5*x*y", "a ** b", "A* search", "f**k", "2 ** 8"),
    *("C# and F#", "#1", "Track #5 and #6", "#hashtag and @user", "The # sign", "Suite #"),
    *("snake_case and other_name", "foo_bar(x, y) -> z", "file_name_2.txt", "a _ b"),
    *("yes | no", "a | b | c", "|x| + |y| >= |x + y|", "p || q"),
    *("~5 minutes", "~ 5", "good~", "-5 degrees", "5 - 3 = 2", "He said---no", "I -- well -- no"),
    *("$5 or $10, US$5, 5$, A$6_000$", "$HOME/x and $PATH_A", '"$a_b $c_d"', "C:\\(x)\\[y]"),
    *("x==y, aGVs==, p||q, a || b", "mailto: nobody", "alt='x'"),
    *("1. Wash", "2024. A year", "1. one\n2. two", "3) three", "1.", "10. \n"),
    *("AT&T, R&D & more", "a && b", "50% & 3 = 4", "a = b", "a == b === c", "1 + 1", "a += 1"),
    *(
        "C:\\Users\\_me\\x",
        "\\o/",
        "¯\\",
        "it's 5'10\"",
        "[sic] and [1]",
        "a[0] = b[1]",
        "array[i]",
    ),
    *("and/or, km/h, 24/7, w/o", "me@example.com", "// a comment", "TCP/IP", "10:30", "a: b"),
    *("[laugh] ha [music start] la [music end]", "<SE>[Laughter]</SE> ha", "[humming start] mm"),
    *("[SPEAKER0] Hi.\n[SPEAKER1] 3 * 4, a < b | c.", "    indented words", "\tindented words\n"),
    *(
        "One.\n\nTwo.\n\n\nThree.",
        "  spaces   inside  ",
        "line one\nline two  \nline three\r\nfour",
    ),
    *(
        "“Quoted” — she said… ‘so’",
        "你好，世界！3 * 4",
        "Привет, мир < всё",
        "emoji 🎉 → ★",
        "(c) (so)",
    ),
    *(
        "...",
        "!?",
        "",
        " ",
        "\n",
        "x",
        "$5 * 3",
        "50 €",
        "f(x) = x^2",
        "x^2 + y^2",
        "5`10",
        "rock 'n' roll",
    ),
]
READ = [
    ("Inline $x^2$, $n$ and $$E = mc^2$$.", "Inline x^2, n and E = mc^2."),
    ("\\(a_1 * b_1 * c\\) and\n\\[\nx\n\\]\n", "a_1 * b_1 * c and\n\nx\n\n"),
    ("<mailto:bob@example.com> or mailto:a@b.c", "bob@example.com or a@b.c"),
    ("==marked== and ||hidden||", "marked and hidden"),
    ("<img src=x alt='A cat'> sits", "A cat sits"),
    ("Name | Age\n--- | ---:\nBob | 5", "Name, Age.\nBob, 5."),
    ("- a\n  - b\n    - c\n- d", "a.\nb.\nc.\nd."),
    ("Note[^a].\n\n[^a]: It is here.", "Note.\n\nIt is here."),
    ("one<br>two<br/>three", "one\ntwo\nthree"),
    ('<speak version="1.0"><prosody rate="slow">Slow</prosody><break time="1s"/></speak>', "Slow"),
    ("# Title", "Title."),
    ("## What happened? ##\nText", "What happened?\n\nText"),
    ("##Title", "Title"),
    ("*emph*, **strong**, ***both***, ~~old~~ and `a*b`.", "emph, strong, both, old and a*b."),
    ("这是**重点**内容", "这是重点内容"),
    ("_one_ and __two__", "one and two"),
    ("- apples\n- pears!\n", "apples.\npears!\n"),
    ("* a\n  * b\n* [x] done\n* [ ] to do", "a.\nb.\ndone.\nto do."),
    ("1. **one**\n2. two", "1. one\n2. two"),
    ("1) *one*", "1) one"),
    ("> quote", "quote"),
    ("| Name | Age |\n|---|:-:|\n| Bob | 42 |\n| | 7 |", "Name, Age.\nBob, 42.\n7."),
    ("```python\nx = 1\n```\nSo.", "x = 1\n\nSo."),
    ("~~~\nx\n~~~", "x"),
    ("[the docs](https://x.org/a_b 'T')!", "the docs!"),
    ("![a cat](c.png) here", "a cat here"),
    ("Go to https://www.example.com/a_b?c=d#e.", "Go to example.com."),
    ("(see http://a.org/b), <https://b.org/x>", "(see a.org), b.org"),
    ("www.example.org/x and http://localhost:8000/v1", "example.org and localhost:8000"),
    ("<p>Hi <b>there</b>,<br>you</p><p>two</p>", "Hi there,\nyou\n\ntwo"),
    ("<ul><li>one</li><li>two</li></ul>", "one.\ntwo."),
    ("<table><tr><td>a</td><td>b</td></tr></table>", "a, b."),
    ("a &lt; b &amp; c &#39;d&#39;", "a < b & c 'd'"),
    ("<think>hm *x*</think>Yes.", "Yes."),
    ("so hm</think>\nYes.", "Yes."),
    ("<think>hm, not done", ""),
    ("<!-- no -->yes<script>var x</script>", "yes"),
    ('<speak>Hi <break time="1s"/> <prosody rate="slow">you</prosody></speak>', "Hi \n you"),
    ('<mstts:express-as style="sad">Oh</mstts:express-as>', "Oh"),
    ("<answer>42</answer>", "42"),
    ("a\n" + "=" * 80 + "\nb", "a\nb"),
    ("a\n\n---\n\nb\n\n* * *\n\nc\n~~~~\n####\nd\n______", "a\n\nb\n\nc\n\nd"),
    ("===== Chapter 1 =====", "Chapter 1"),
    ("Title\n=====\nText", "Title\nText"),
    ("a\\*b\\* snake\\_case", "a*b* snake_case"),
    ("text[^1] more", "text more"),
    ("[SPEAKER0] **Hi** [laugh]\n[SPEAKER1] # Ho\n", "[SPEAKER0] Hi [laugh]\n[SPEAKER1] Ho.\n"),
    ("**[laugh]** <SE>[Laughter]</SE> *ha*", "[laugh] <SE>[Laughter]</SE> ha"),
    # fragments
    *(("**bold", "bold"), ("old** text", "old text"), ("it is **", "it is"), ("*emph", "emph")),
    *(("end* of it", "end of it"), ("`code", "code"), ("```", ""), ("```py\nx = 1", "x = 1")),
    *(("x = 1\n```\n\n## So **b**", "x = 1\n\nSo b."), ("text [link wo", "text link wo")),
    *(("rds](http://a.b/c) more", "rds more"), ("see [words](http://exa", "see words")),
    *(("text <a hre", "text"), ('ef="x">link</a> more', "link more"), ("| a | b", "a, b.")),
    *(("b | c |", "b, c."), ("|---|--", ""), ("    some **x**", "    some x"), ("- ", " ")),
    *(("trong>bold</strong> x", "bold x"), ("say https:/", "say"), ("==", ""), ("##", "")),
]
PAGE = """<think>The user wants *news*.</think>
# The **weekly** report

Some _plain_ words, ***very*** important ~~not~~ ones, and `inline code` here. See
[the full story](https://example.com/news/today?x=1#top "Title") or https://www.example.org/path/b.

========================================

## What happened ##

* First **item** of the list
* Second item
  - nested _item_
- [x] done

1. Step one
2. Step **two**

> A quote with *stress*.

| Name | Age |
|------|:---:|
| Bob  | 42  |
| **Eve** | 37 |

```python
print("hello")
```

---

<p>Some <b>bold</b> and <a href="https://example.com/x" class="big">linked</a> words &amp; more.</p>
<ul><li>One</li><li>Two</li></ul>

![A picture](https://example.com/p.png)

~~~~~~~~~~

The end, [laugh] my friend.
"""
SIGNS = re.compile(r"[*#`|~=<>_]|\]\(|https?:|//")


@pytest.mark.parametrize("text", PLAIN)
def test_plain_text_is_unchanged(text: str) -> None:
    """Character by character, whatever signs it has."""
    assert readable(text) == text


@pytest.mark.parametrize(("text", "words"), READ)
def test_formatted_text_is_read_as_the_page(text: str, words: str) -> None:
    """Whole or cut: the words, without the signs."""
    assert readable(text) == words


VOCABULARY = """
the a it was cold I'm don't naïve Zoë café 3 42 1,000 3.5 10:30 50% $5 5€ #1 C# C++ F# .NET A+ R&D
AT&T and/or km/h 24/7 e.g. i.e. Mr. U.S. snake_case x_1 a@b.org foo() f(x) a[0] -5 +5 ~5 2*3 x^2 <3
:-) ;-) ... — – … 你好 世界 мир שלום مرحبا नमस्ते 🎉 → ★ [laugh] [sic] (so) “so” 'so'
"""
WORDS = st.sampled_from(VOCABULARY.split())
JOINTS = st.sampled_from(
    [" "] * 4
    + [", ", ". ", "? ", "; ", ": ", " - ", " – ", " * ", " < ", " > ", " | ", " = ", " + ", " & "]
    + ["\n", "\n\n"]
)


@st.composite
def prose(draw: st.DrawFn) -> str:
    """Unmarked prose: words, numbers and lone signs; no line begins with a sign."""
    text = draw(WORDS)
    for _ in range(draw(st.integers(0, 25))):
        joint, word = draw(JOINTS), draw(WORDS)
        if joint.endswith("\n") and not word[0].isalnum():
            joint = " "
        text += joint + word
    return text


@quick
@given(prose())
@example("1. a\n2. b")
def test_unmarked_prose_is_unchanged(text: str) -> None:
    """Of many kinds, signs of arithmetic and code between its words included."""
    assert readable(text) == text


HYPHENATED = st.sampled_from(
    [
        *(
            "Hello",
            "a",
            "7",
            "naïve",
            "中文",
            "well-known",
            "www",
            "http",
            "https",
            "mailto",
            "e.g.",
        ),
        *(
            " ",
            " ",
            " ",
            "\n",
            "\n\n",
            "\n    ",
            ".",
            ",",
            ":",
            "?",
            '"',
            "’",
            "“",
            "—",
            "…",
            "1. ",
        ),
        *("-", "-", "-", "--", " - ", "\n- ", "@", "%", "^", "\u00a0", "\u2028", "12:30", "2-3"),
    ]
)


@settings(deadline=None, max_examples=1000)
@given(st.lists(HYPHENATED, min_size=1, max_size=12).map("".join))
def test_prose_with_hyphens_is_what_the_parser_makes_of_it(text: str) -> None:
    """It is not asked, because it would leave such a text as it is."""
    if _HYPHENATED.fullmatch(text):
        assert readable(text) == text == _read(text)


def test_hyphens_of_hostile_length_take_no_time() -> None:
    """One pass over the text, whatever ends it."""
    started = time.thread_time()
    for text in ("a-" * 50_000, "a-b " * 25_000 + "(", "www." * 25_000, "a:" * 50_000 + "#"):
        assert not _HYPHENATED.fullmatch(text)
    assert time.thread_time() - started < 1.0


@quick
@given(
    st.text(alphabet=st.characters(exclude_characters="#*_~`|=<>[]&$+-/\\w\u2500"), max_size=200)
)
def test_text_without_signs_is_unchanged(text: str) -> None:
    """Whatever else Unicode has."""
    assert readable(text) == text


def test_every_cut_of_a_page_speaks_no_sign() -> None:
    """Whatever place a client's chunk ends or begins at."""
    spoken = {
        part: sign[0]
        for at in range(len(PAGE))
        for part in (PAGE[:at], PAGE[at:])
        if (sign := SIGNS.search(readable(part)))
    }
    assert not spoken


def test_a_page_is_read_in_its_order() -> None:
    """The words that the page shows, and nothing else."""
    words = (
        "The weekly report. Some plain words, very important not ones, and inline code here. See "
        "the full story or example.org. What happened. First item of the list. Second item. "
        "nested item. done. 1. Step one 2. Step two A quote with stress. Name, Age. Bob, 42. "
        'Eve, 37. print("hello") Some bold and linked words & more. One. Two. A picture '
        "The end, [laugh] my friend."
    )
    assert " ".join(readable(PAGE).split()) == words


@quick
@given(
    st.lists(st.sampled_from([*PAGE.split(" "), "[SPEAKER1]", "\n", "<b", "**", "]("]), max_size=40)
)
def test_no_text_makes_it_fail_and_speaker_tags_stay(parts: list[str]) -> None:
    """Any mixture of marks is read somehow, and every turn keeps its speaker."""
    text = " ".join(part for part in parts if "think" not in part)
    assert readable(text).count("[SPEAKER1]") == text.count("[SPEAKER1]")


HOSTILE = (
    *("*", "*a ", "[", "![", "[^", "`", "`a ``b ", "<", "<b>", "<a href=", "<!--", "<think>"),
    *("| a ", ">", "- ", "_a", "~~a ", "http://", "//a.", "&#", "\\*", "](", "# a\n", "```\n"),
    *("$a_", "$_ ", "\\(a", "\\[ ", "$$a", "==a", "||a ", "<img alt='", "mailto:a"),
    *("[laugh ", "a=\"'/", "a.b/", "[SPEAKER0] *a* "),
)


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_text_takes_linear_time(unit: str) -> None:
    """50,000 characters of any mark are read in a moment."""
    text = unit * (50_000 // len(unit))
    started = time.thread_time()
    readable(text)
    assert time.thread_time() - started < 2  # usually below 0.25 s, 0.7 s for "!["
