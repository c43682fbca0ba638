"""Long text in segments that one generation can say, cut where a reader would breathe.

Segments come lazily, so that the first can be spoken before the last is known; together they are
the text, less the white space at the cuts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from gateway import value
from gateway.text.boundary import Boundary
from gateway.text.cuts import (
    character_cuts,
    clause_cuts,
    paragraph_cuts,
    parts,
    sentence_cuts,
    turn_cuts,
    word_cuts,
)
from gateway.text.estimate import speech_seconds
from gateway.text.tokens import (
    OVERHEAD_TOKENS,
    ROOM_TOKENS,
    STOP_TOKENS,
    fits_context,
    free_tokens,
    likely_tokens,
    text_tokens,
)

# 60 s are 1,500 audio tokens of a context of 8,192 (docs/contract.md section 1): a reading four
# times slower than the likely one still fits beside 30 s of reference.
LIKELY_SECONDS_BUDGET = 60.0
# Bounds text that is hardly spoken (symbols, white space): at most this, and half of what a prompt
# leaves of the context.
MOST_SEGMENT_BYTES = 4000
# Up to here a text is said in one breath, if the context allows.
SHORTEST_WHOLE_CHARACTERS = 1000

# Shares of a segment's budget. A piece above the first is divided further; the cut nearest to the
# aim is made at the strongest boundary that leaves at least its share on either side.
LARGEST_PIECE = 0.125
SMALLEST_FIRST_BUDGET = 0.25
SMALLEST_SEGMENT = {**dict.fromkeys(Boundary, 0.25), Boundary.PARAGRAPH: 0.4}


@value
class Segment:
    """What one generation says.

    Attributes:
        text: Not blank, no white space around it.
        before: What stands between it and the segment before; PARAGRAPH for the first.
    """

    text: str = field(repr=False)
    before: Boundary


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text that is cut no further, white space at its end included.

    Attributes:
        text: The part.
        share: Its part of a segment's budget.
        end: What stands behind it.
    """

    text: str = field(repr=False)
    share: float
    end: Boundary


AnyPiece = TypeVar("AnyPiece", bound=Piece)
Measure = Callable[[str], float]


def iter_segments(
    text: str,
    *,
    likely_seconds_budget: float = LIKELY_SECONDS_BUDGET,
    first_likely_seconds_budget: float | None = None,
    shortest_whole_characters: int = SHORTEST_WHOLE_CHARACTERS,
    room_tokens: int = ROOM_TOKENS,
) -> Iterator[Segment]:
    """Split a text, lazily: about two segments' worth is looked at before the first comes.

    No segment is likely to take longer than the budget, has more than MOST_SEGMENT_BYTES of UTF-8,
    or exceeds the context with its prompt and likely audio; a single character or event that does
    so alone stands alone. Blank text gives none.

    Args:
        text: Normalised, because that may lengthen a text.
        likely_seconds_budget: Most likely seconds of audio of a segment.
        first_likely_seconds_budget: A smaller budget for the first segment, where the others wait
            for its audio; raised to a quarter of the other budget.
        shortest_whole_characters: A text up to this length is one segment, if it fits a context.
        room_tokens: What the prompt leaves of the context at least, references included.
    """
    text = text.strip()
    if not text:
        return
    if len(text) <= shortest_whole_characters and fits_context(text, room_tokens):
        yield Segment(text, Boundary.PARAGRAPH)
        return
    first_share = (first_likely_seconds_budget or likely_seconds_budget) / likely_seconds_budget
    before = Boundary.PARAGRAPH
    share = measure_share(likely_seconds_budget, room_tokens)
    for group in pack(pieces(text, share), first_share=first_share):
        segment = "".join(piece.text for piece in group).strip()
        if segment:
            yield Segment(segment, before)
            before = group[-1].end
        else:
            before = max(before, group[-1].end)


def measure_share(likely_seconds_budget: float, room_tokens: int = ROOM_TOKENS) -> Measure:
    """A function that tells which part of a segment's budget a text takes.

    Args:
        likely_seconds_budget: Most likely seconds of audio of a segment.
        room_tokens: What the prompt leaves of the context at least, references included.
    """
    room = max(1, free_tokens("", room_tokens) - OVERHEAD_TOKENS - STOP_TOKENS)
    most_bytes = min(MOST_SEGMENT_BYTES, max(1, room // 2))

    def share(text: str) -> float:
        seconds = speech_seconds(text).likely_seconds
        size = text_tokens(text)
        return max(
            seconds / likely_seconds_budget,
            size / most_bytes,
            (size + likely_tokens(text) - OVERHEAD_TOKENS) / room,
        )

    return share


def pieces(text: str, share: Measure, *, end: Boundary = Boundary.PARAGRAPH) -> Iterator[Piece]:
    """The parts of a text between which segments may be cut, lazily; `end` is behind it all."""
    return _divide(text, 0, end, share)


# Strongest first. Turns, paragraphs and sentences are always told apart, because the best place
# for a cut is looked for among them; what is in a sentence only where it is too long.
_LEVELS = (
    (Boundary.TURN, turn_cuts),
    (Boundary.PARAGRAPH, paragraph_cuts),
    (Boundary.SENTENCE, sentence_cuts),
    (Boundary.CLAUSE, clause_cuts),
    (Boundary.WORD, word_cuts),
)


def _divide(text: str, level: int, end: Boundary, share: Measure) -> Iterator[Piece]:
    if level == len(_LEVELS) or _LEVELS[level][0] < Boundary.SENTENCE:
        text_share = share(text)
        if text_share <= LARGEST_PIECE:
            yield Piece(text, text_share, end)
            return
    if level < len(_LEVELS):
        boundary, find_cuts = _LEVELS[level]
        yield from _divide_parts(parts(text, find_cuts(text)), level + 1, boundary, end, share)
        return
    count = min(len(text), int(text_share / LARGEST_PIECE) + 1)
    found = list(parts(text, character_cuts(text, count)))
    if len(found) == 1:  # one character, one event: it is cut no further
        yield Piece(text, text_share, end)
    else:
        yield from _divide_parts(iter(found), level, Boundary.WORD, end, share)


def _divide_parts(
    found: Iterator[str], level: int, boundary: Boundary, end: Boundary, share: Measure
) -> Iterator[Piece]:
    """Divide each part further; the boundary stands between them, `end` behind the last."""
    part = next(found)
    for following in found:
        yield from _divide(part, level, boundary, share)
        part = following
    yield from _divide(part, level, end, share)


def pack(found: Iterable[AnyPiece], *, first_share: float = 1.0) -> Iterator[list[AnyPiece]]:
    """Put pieces together into groups, none above a share of 1, cut at the best boundaries.

    Two groups' worth of pieces is looked at, so that no small rest is left at the end.

    Args:
        found: Pieces in order.
        first_share: The first group's limit.
    """
    limit = min(1.0, max(SMALLEST_FIRST_BUDGET, first_share))
    source = iter(found)
    waiting: deque[AnyPiece] = deque()
    total = 0.0
    at_end = False
    while True:
        while total < 1.0 + limit and not at_end:
            piece = next(source, None)
            if piece is None:
                at_end = True
            else:
                waiting.append(piece)
                total += piece.share
        if not waiting:
            return
        count = _best_count(waiting, limit, total if at_end else None)
        group = [waiting.popleft() for _ in range(count)]
        total = sum(piece.share for piece in waiting)
        yield group
        limit = 1.0


def _best_count(waiting: Iterable[Piece], limit: float, rest: float | None) -> int:
    """How many pieces the next group takes.

    Args:
        waiting: Pieces in order, at least one.
        limit: Most share of the group.
        rest: The share of all that is left, or None where more than two groups follow.
    """
    aim = limit
    if rest is not None:
        groups = -(-rest // limit)
        if groups <= 1:
            return sum(1 for _ in waiting)
        aim = rest / groups
    sum_share = 0.0
    count = fitting = 0
    best: tuple[Boundary, float] | None = None
    chosen = 0
    for piece in waiting:
        sum_share += piece.share
        count += 1
        if sum_share > limit:
            break
        fitting = count
        smallest = limit * SMALLEST_SEGMENT[piece.end]
        if sum_share < smallest or (rest is not None and rest - sum_share < smallest):
            continue
        merit = (piece.end, -abs(sum_share - aim))
        if best is None or merit > best:
            best, chosen = merit, count
    return chosen or max(1, fitting)
