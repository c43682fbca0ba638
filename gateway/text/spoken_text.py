"""The facts of a text, computed once: its speakers, its silence, its likely length.

Everything behind the surfaces asks this value, and never the text again.
"""

from __future__ import annotations

import re
from dataclasses import field

from gateway import value
from gateway.errors import UnspeakableText
from gateway.text.dialogue import speakers_of
from gateway.text.estimate import looks_silent, speech_seconds
from gateway.text.markup import readable
from gateway.text.normalise import normalise, with_final_stop
from gateway.text.sanitise import check_text, sanitise_text
from gateway.text.writing_systems import SHOWN_CHARACTERS, foreign_passages, without_foreign

# What most texts are: a line of English prose, which the steps below would leave as it is. They
# cost five times as much as this look, and a hyphen alone would have Markdown parsed, which costs
# half a request. What may begin an address is no prose.
_PROSE = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9 ,;!?'\"]*"
    r"(?:(?:(?<!www)\.|(?<!http)(?<!https)(?<!mailto):|(?<=\w)-(?=\w))[A-Za-z0-9 ,;!?'\"]*)*",
    re.ASCII,
)


@value
class SpokenText:
    """A text that can be spoken.

    Attributes:
        written: The text, as the client sent it.
        spoken: The text as it is read out: measured, split and judged silent in this form.
        normalised: It was written out for a voice, its markup read as a page.
        speakers: Numbers of its `[SPEAKERn]` tags, in the order of their first use.
        silent: Nothing in it is read out.
        likely_seconds: An ordinary reading, at speed 1.
        scripts: Scripts that the engines at hand can say, or None where no engine tells.
        left_out: Letters of other scripts that are left out of `spoken`.
    """

    written: str = field(repr=False)
    spoken: str = field(repr=False)
    normalised: bool
    speakers: tuple[int, ...]
    silent: bool
    likely_seconds: float
    scripts: frozenset[str] | None = None
    left_out: int = 0

    @property
    def is_dialogue(self) -> bool:
        """Whether it has two or more different speakers."""
        return len(self.speakers) > 1


def spoken_form(written: str) -> str:
    """Renders a text's markup as a page, and writes it the way the model was trained."""
    return normalise(readable(written))


def read_text(
    written: str,
    most_characters: int,
    *,
    normalised: bool = True,
    scripts: frozenset[str] | None = None,
) -> SpokenText:
    """Check a client's text and compute what is known of it.

    Args:
        written: As the client sent it.
        most_characters: Its bound, in code points.
        normalised: Read markup as the rendered page, and write out what a voice could not read.
        scripts: Scripts that the engines at hand can say, or None where no engine tells.

    Raises:
        InvalidRequest: It is empty, blank, too long or not Unicode.
        UnspeakableText: A passage of five words or 20 letters is in another script.
    """
    check_text(written, most_characters)
    says_latin = scripts is None or "LATIN" in scripts
    if normalised and says_latin and "  " not in written and _PROSE.fullmatch(written):
        spoken = with_final_stop(written.rstrip())
        likely_seconds = speech_seconds(spoken).likely_seconds
        return SpokenText(written, spoken, True, (), False, likely_seconds, scripts)
    spoken = spoken_form(written) if normalised else written
    left_out = 0
    if scripts is not None:
        check_scripts(spoken, scripts)
        spoken, left_out = without_foreign(spoken, scripts)
        if left_out and normalised:
            spoken = normalise(spoken)
    return SpokenText(
        written,
        spoken,
        normalised,
        speakers_of(spoken),
        looks_silent(sanitise_text(spoken)),
        speech_seconds(spoken).likely_seconds,
        scripts,
        left_out,
    )


def check_scripts(text: str, scripts: frozenset[str]) -> None:
    """Refuse a text with a long passage in a script that no engine at hand can say.

    Args:
        text: What is said.
        scripts: Scripts that the engines at hand can say.

    Raises:
        UnspeakableText: With the first such passage.
    """
    first = next((found for found in foreign_passages(text, scripts) if found.is_long), None)
    if first is not None:
        passage = " ".join(text[first.start : first.end].split())
        if len(passage) > SHOWN_CHARACTERS:
            passage = passage[:SHOWN_CHARACTERS] + "…"
        raise UnspeakableText(
            f"No engine at hand speaks the script of this passage "
            f"({first.script.capitalize()}): {passage}",
            param="input",
        )
