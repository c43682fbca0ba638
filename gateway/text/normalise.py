"""The normalisation that the model's official generation script does before it speaks a text.

The tables follow `examples/generation.py` of boson-ai/higgs-audio, because the model was trained
and tried on text of that shape; sanitising comes after this, never before.
"""

# ruff: noqa: RUF001 - the look-alikes are the point of the table

from __future__ import annotations

import re

# Full-width and Chinese punctuation, as `normalize_chinese_punctuation` of the script maps it; its
# next step replaces round brackets with spaces, which is done here at once.
_PUNCTUATION = str.maketrans(
    {
        **dict.fromkeys("（）()", " "),
        **dict.fromkeys("“”「」『』", '"'),
        **dict(zip("‘’。：；？！、·【】《》—", "''.:;?!,.[]<>-", strict=True)),
        "，": ", ",
        "…": "...",
        "\u2028": "\n",
        "\u2029": "\n\n",
    }
)

# The script replaces every `°F` and `°C`; here not where a word goes on, as in `°Celsius`.
_DEGREES = re.compile(r"°([FC])(?![A-Za-z])")
_SCALES = {"F": " degrees Fahrenheit", "C": " degrees Celsius"}

# Sound events. The script has been published with `<SE>` and with `<SE_s>` where humming starts;
# `<SE_s>` is what music and singing start with.
EVENT_TAGS = {
    "[laugh]": "<SE>[Laughter]</SE>",
    "[humming start]": "<SE_s>[Humming]</SE_s>",
    "[humming end]": "<SE_e>[Humming]</SE_e>",
    "[music start]": "<SE_s>[Music]</SE_s>",
    "[music end]": "<SE_e>[Music]</SE_e>",
    "[music]": "<SE>[Music]</SE>",
    "[sing start]": "<SE_s>[Singing]</SE_s>",
    "[sing end]": "<SE_e>[Singing]</SE_e>",
    "[applause]": "<SE>[Applause]</SE>",
    "[cheering]": "<SE>[Cheering]</SE>",
    "[cough]": "<SE>[Cough]</SE>",
}
_EVENT = re.compile("|".join(re.escape(tag) for tag in EVENT_TAGS))
_BLANK_LINES = re.compile("\n{3,}")
_FINAL = (".", "!", "?", ",", ";", '"', "'", "</SE_e>", "</SE>")


def normalise(text: str) -> str:
    """Write a text the way the model's official script gives it to the model.

    Punctuation becomes ASCII, round brackets go, temperatures are spelled out, white space
    collapses, event tags become the model's own, and a text without a final stop gets one. One
    blank line stays between paragraphs, which the script joins: a reader pauses there. A second
    pass changes nothing; blank text gives the empty string.
    """
    if text.isascii():  # `translate` asks its table for every character: 20 times as much
        text = text.replace("(", " ").replace(")", " ")
    else:
        text = _DEGREES.sub(lambda match: _SCALES[match[1]], text.translate(_PUNCTUATION))
    # Before the event tags, so that `[music  start]` is one too.
    lines = [" ".join(line.split()) for line in text.split("\n")]
    text = lines[0] if len(lines) == 1 else _BLANK_LINES.sub("\n\n", "\n".join(lines).strip("\n"))
    if "[" in text:
        text = _EVENT.sub(lambda match: EVENT_TAGS[match[0]], text)
    return with_final_stop(text)


def with_final_stop(text: str) -> str:
    """A text that ends with a stop, or is empty."""
    return text if not text or text.endswith(_FINAL) else text + "."
