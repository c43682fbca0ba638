"""Translates Chatterbox's two knobs into words about the scene, for engines without them.

`exaggeration` is how lively a voice is, `cfg_weight` how fast it speaks (low is slow); both count
0.5 as neutral. The words are those of the model's own examples.
"""

from __future__ import annotations

import math

from gateway import value

LIVELY_FROM = 0.8
CALM_TO = 0.3
FAST_FROM = 0.8
SLOW_TO = 0.3
# The engine's default is 1: a lively reading needs some more freedom. A calm one is told in words
# alone, because below 1 the container may not find the end (docs/contract.md section 7).
LIVELY_TEMPERATURE = 1.1
# What the forms of both Chatterbox servers show and their clients always send.
FORM_TEMPERATURE = 0.8


@value
class Expression:
    """How something is said.

    Attributes:
        scene: Words for the scene description; None where nothing is to change.
        temperature: For the engine; None leaves its default.
    """

    scene: str | None = None
    temperature: float | None = None


def knob_of(value: object) -> float | None:
    """Parses an unchecked knob's value; None for anything but a finite number."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def chosen_temperature(temperature: float | None) -> float | None:
    """The temperature that a Chatterbox client chose, or None where it sent its form's default."""
    return None if temperature == FORM_TEMPERATURE else temperature


def expression_of(exaggeration: float | None, cfg_weight: float | None) -> Expression:
    """The expression that the two knobs ask for; none near the neutral 0.5.

    Args:
        exaggeration: Lively from 0.8, calm up to 0.3; None is neutral.
        cfg_weight: Fast from 0.8, slow up to 0.3; None is neutral.
    """
    words, temperature = [], None
    if exaggeration is not None and exaggeration >= LIVELY_FROM:
        words.append("expressive, energetic")
        temperature = LIVELY_TEMPERATURE
    elif exaggeration is not None and exaggeration <= CALM_TO:
        words.append("calm, monotone")
    if cfg_weight is not None and cfg_weight >= FAST_FROM:
        words.append("fast pace")
    elif cfg_weight is not None and cfg_weight <= SLOW_TO:
        words.append("slow pace")
    return Expression(f"Speech is {', '.join(words)}." if words else None, temperature)
