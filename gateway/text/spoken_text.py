"""What a text says about itself: its speakers, its silence, its likely length. Read once, carried.

Everything behind the surfaces asks this value, and never the text again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.text.dialogue import speakers_of
from gateway.text.estimate import looks_silent, speech_seconds
from gateway.text.markup import readable
from gateway.text.normalise import normalise
from gateway.text.sanitise import check_text, sanitise_text


@dataclass(frozen=True, slots=True)
class SpokenText:
    """A text that can be spoken.

    Attributes:
        written: The text, as the client sent it.
        spoken: The text as it is read out: measured, split and judged silent in this form.
        normalised: It was written out for a voice, its markup read as a page.
        speakers: Numbers of its `[SPEAKERn]` tags, in the order of their first use.
        silent: Nothing in it is read out.
        likely_seconds: An ordinary reading, at speed 1.
    """

    written: str = field(repr=False)
    spoken: str = field(repr=False)
    normalised: bool
    speakers: tuple[int, ...]
    silent: bool
    likely_seconds: float

    @property
    def is_dialogue(self) -> bool:
        """Whether it has two or more different speakers."""
        return len(self.speakers) > 1


def spoken_form(written: str) -> str:
    """A text as it is read out: its markup as the rendered page, written as the model knows it."""
    return normalise(readable(written))


def read_text(written: str, most_characters: int, *, normalised: bool = True) -> SpokenText:
    """Check a client's text and compute what is known of it.

    Args:
        written: As the client sent it.
        most_characters: Its bound, in code points.
        normalised: Read markup as the rendered page, and write out what a voice could not read.

    Raises:
        InvalidRequest: It is empty, blank, too long or not Unicode.
    """
    check_text(written, most_characters)
    spoken = spoken_form(written) if normalised else written
    return SpokenText(
        written,
        spoken,
        normalised,
        speakers_of(spoken),
        looks_silent(sanitise_text(spoken)),
        speech_seconds(spoken).likely_seconds,
    )
