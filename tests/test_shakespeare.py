"""Four speeches of Shakespeare's through `/generate`: sizes, and how much is understood."""

from __future__ import annotations

from dataclasses import dataclass

import httpx
import pytest

from loadtest.processes import running_serve
from tests.listen import decode, transcribe, word_error_rate

TIMEOUT_SECONDS = 300.0
MOST_WORD_ERRORS = 0.1
LOVING = (
    "Generate audio following instruction.\n\n<|scene_desc_start|>\n"
    "Audio is recorded in a quiet garden at night. The speaker is a young man in love: "
    "breathy, expressive, full of longing, at a slow pace.\n<|scene_desc_end|>"
)


@dataclass(frozen=True, slots=True)
class Speech:
    """A speech and the scene it is spoken in.

    Attributes:
        title: For the table.
        text: The first folio's words in modern spelling; in the public domain.
        system_prompt: A scene of its own, or None for the quiet room.
    """

    title: str
    text: str
    system_prompt: str | None = None


SPEECHES = (
    Speech(
        "Hamlet: To be, or not to be",
        "To be, or not to be, that is the question: Whether 'tis nobler in the mind to suffer "
        "the slings and arrows of outrageous fortune, or to take arms against a sea of troubles "
        "and by opposing end them. To die, to sleep, no more; and by a sleep to say we end the "
        "heartache and the thousand natural shocks that flesh is heir to: 'tis a consummation "
        "devoutly to be wished. To die, to sleep; to sleep, perchance to dream. Ay, there's the "
        "rub, for in that sleep of death what dreams may come, when we have shuffled off this "
        "mortal coil, must give us pause.",
    ),
    Speech(
        "As You Like It: All the world's a stage",
        "All the world's a stage, and all the men and women merely players; they have their exits "
        "and their entrances, and one man in his time plays many parts, his acts being seven "
        "ages. At first the infant, mewling and puking in the nurse's arms. Then the whining "
        "schoolboy, with his satchel and shining morning face, creeping like snail unwillingly "
        "to school. And then the lover, sighing like furnace, with a woeful ballad made to his "
        "mistress' eyebrow.",
    ),
    Speech(
        "Macbeth: Tomorrow, and tomorrow",
        "Tomorrow, and tomorrow, and tomorrow, creeps in this petty pace from day to day, to the "
        "last syllable of recorded time; and all our yesterdays have lighted fools the way to "
        "dusty death. Out, out, brief candle! Life's but a walking shadow, a poor player, that "
        "struts and frets his hour upon the stage, and then is heard no more. It is a tale told "
        "by an idiot, full of sound and fury, signifying nothing.",
    ),
    Speech(
        "Romeo: But soft, what light (loving)",
        "But soft, what light through yonder window breaks? It is the east, and Juliet is the "
        "sun. Arise, fair sun, and kill the envious moon, who is already sick and pale with grief "
        "that thou, her maid, art far more fair than she. See how she leans her cheek upon her "
        "hand. O, that I were a glove upon that hand, that I might touch that cheek!",
        LOVING,
    ),
)


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one speech.

    Attributes:
        title: Of the speech.
        words: In its text.
        audio_seconds: Of the answer.
        generation_seconds: `X-Generation-Time`.
        size_bytes: Of the WAV.
        word_error_rate: Of what the recogniser heard.
    """

    title: str
    words: int
    audio_seconds: float
    generation_seconds: float
    size_bytes: int
    word_error_rate: float


def perform(client: httpx.Client, url: str, speech: Speech) -> Row:
    """Ask for one speech as the proxy's clients do, and listen to it."""
    payload: dict[str, object] = {"text": speech.text, "temperature": 0.7}
    if speech.system_prompt:
        payload["system_prompt"] = speech.system_prompt
    answer = client.post(f"{url}/generate", json=payload)
    answer.raise_for_status()
    samples, rate_hz = decode(answer.content)
    return Row(
        title=speech.title,
        words=len(speech.text.split()),
        audio_seconds=round(len(samples) / rate_hz, 2),
        generation_seconds=float(answer.headers["x-generation-time"]),
        size_bytes=len(answer.content),
        word_error_rate=round(word_error_rate(speech.text, transcribe(samples, rate_hz)), 4),
    )


def render(rows: list[Row]) -> str:
    """A table in Markdown."""
    lines = [
        "| speech | words | audio s | generation s | WAV KiB | WER |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.title} | {row.words} | {row.audio_seconds:.1f} | {row.generation_seconds:.2f} "
        f"| {row.size_bytes / 1024:.0f} | {row.word_error_rate:.1%} |"
        for row in rows
    ]
    return "\n".join(lines)


@pytest.mark.prove
def test_the_speeches_are_understood() -> None:
    """A gateway with the CPU engine, as one command starts it."""
    with running_serve() as serve, httpx.Client(timeout=TIMEOUT_SECONDS) as client:
        rows = [perform(client, serve.url, speech) for speech in SPEECHES]
    print("\n" + render(rows))
    assert max(row.word_error_rate for row in rows) <= MOST_WORD_ERRORS
