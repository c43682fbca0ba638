"""Dialogue: `[SPEAKERn]` turns, put together into generations that never lose track of the speaker.

A dialogue that fits is one generation, as the model likes it; a longer one is cut between turns,
and every generation begins with its speaker's tag.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from gateway.text.boundary import Boundary
from gateway.text.cuts import SPEAKER_TAG
from gateway.text.split import (
    LIKELY_SECONDS_BUDGET,
    SHORTEST_WHOLE_CHARACTERS,
    Measure,
    Piece,
    Segment,
    measure_share,
    pack,
    pieces,
)
from gateway.text.tokens import ROOM_TOKENS, fits_context

FIRST_SPEAKER = 0


@dataclass(frozen=True, slots=True)
class Turn:
    """What one speaker says in one go.

    Attributes:
        speaker: The n of `[SPEAKERn]`.
        text: Without the tag; not blank, no white space around it.
    """

    speaker: int
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _TurnPiece(Piece):
    """A piece of a turn, and the turn's number and speaker."""

    turn: int
    speaker: int


def parse_turns(text: str) -> list[Turn]:
    """The turns of a text, in order; text before the first tag is the first speaker's.

    Empty turns are left out, so a text of tags alone has none.
    """
    # re.split with one group: text, number, text, number, text
    before, *tagged = SPEAKER_TAG.split(text)
    numbers, spoken = map(int, tagged[::2]), tagged[1::2]
    turns = [Turn(FIRST_SPEAKER, before), *map(Turn, numbers, spoken)]
    return [Turn(turn.speaker, turn.text.strip()) for turn in turns if turn.text.strip()]


def is_dialogue(text: str) -> bool:
    """Whether the text has two or more different `[SPEAKERn]` tags."""
    return len(speakers_of(text)) > 1


def speakers_of(text: str) -> tuple[int, ...]:
    """The numbers of the tags of a text, in the order of their first use."""
    return tuple(dict.fromkeys(map(int, SPEAKER_TAG.findall(text)))) if "[" in text else ()


def dialogue_text(turns: Iterable[Turn]) -> str:
    """Turns as the model reads them: one a line, each with its tag."""
    return "\n".join(f"[SPEAKER{turn.speaker}] {turn.text}" for turn in turns)


def iter_generations(
    turns: Sequence[Turn],
    *,
    likely_seconds_budget: float = LIKELY_SECONDS_BUDGET,
    shortest_whole_characters: int = SHORTEST_WHOLE_CHARACTERS,
    room_tokens: int = ROOM_TOKENS,
    one_turn_each: bool = False,
) -> Iterator[Segment]:
    """Regroup turns into generations; the arguments are those of `iter_segments`.

    Turns stay whole where they fit the budget; the parts of a longer one each get its tag.

    Args:
        turns: In order.
        likely_seconds_budget: Most likely seconds of audio of a generation.
        shortest_whole_characters: A dialogue up to this length is one generation, if it fits.
        room_tokens: What the prompt leaves of the context at least, references included.
        one_turn_each: Every turn begins a generation of its own, so that the pauses between
            turns, and their voices, are the gateway's to set.
    """
    whole = dialogue_text(turns)
    is_short = len(whole) <= shortest_whole_characters
    if is_short and not one_turn_each and fits_context(whole, room_tokens):
        if whole:
            yield Segment(whole, Boundary.PARAGRAPH)
        return
    found = _turn_pieces(turns, measure_share(likely_seconds_budget, room_tokens))
    runs: Iterable[Iterable[_TurnPiece]] = [found]
    if one_turn_each:
        runs = (run for _, run in groupby(found, key=lambda piece: piece.turn))
    before = Boundary.PARAGRAPH
    for run in runs:
        for group in pack(run):
            yield Segment(_group_text(group), before)
            before = group[-1].end


def _turn_pieces(turns: Iterable[Turn], share: Measure) -> Iterator[_TurnPiece]:
    for number, turn in enumerate(turns):
        tag_share = share(dialogue_text([Turn(turn.speaker, "")]))
        turn_share = share(turn.text) + tag_share
        if turn_share <= 1.0:
            found: Iterable[Piece] = [Piece(turn.text, turn_share, Boundary.TURN)]
        else:
            found = pieces(turn.text, share, end=Boundary.TURN)
        for piece in found:
            # Any piece of a turn may become the first of its generation and get the tag.
            piece_share = max(piece.share, min(1.0, piece.share + tag_share))
            yield _TurnPiece(piece.text, piece_share, piece.end, number, turn.speaker)


def _group_text(group: Sequence[_TurnPiece]) -> str:
    return dialogue_text(
        Turn(speaker, "".join(piece.text for piece in run).strip())
        for (_, speaker), run in groupby(group, key=lambda piece: (piece.turn, piece.speaker))
    )
