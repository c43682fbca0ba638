"""Who speaks: the CPU voice's eight presets, and the choice among them for a job and its speakers.

All are one recorded voice with its pitch, its resonances and its pace scaled; a reference is
imitated by its pitch alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

HEART_PITCH_HZ = 189.0  # median of the voice at pitch 1 over three sentences, measured 2026-11


@dataclass(frozen=True, slots=True)
class Timbre:
    """How one voice differs from the recorded one.

    Attributes:
        pitch: Factor on the fundamental frequency.
        formant: Factor on the resonances' frequencies; below 1 is a larger throat.
        tempo: Factor on the pace.
    """

    pitch: float
    formant: float = 1.0
    tempo: float = 1.0


# Neighbours are 12 % apart in pitch, twice what listeners need to tell voices apart; at each the
# word error rate is under 10 % (tests/engines/cpu/test_voice.py).
PRESET_TIMBRES = {
    "chadwick": Timbre(0.56, 0.90),
    "en_man": Timbre(0.635, 0.92),
    "zh_man_sichuan": Timbre(0.72, 0.93, 1.05),
    "broom_salesman": Timbre(0.815, 0.90, 0.95),
    "vex": Timbre(0.92, 0.94),
    "en_woman": Timbre(1.04),
    "mabel": Timbre(1.17, 1.0, 0.95),
    "belinda": Timbre(1.31, 1.06),
}
DEFAULT_PRESET = "en_woman"
# Speakers without a voice of their own: even ones feminine, odd ones masculine, as the model's
# official dialogue prompt has it.
FEMININE = ("en_woman", "belinda", "mabel")
MASCULINE = ("en_man", "zh_man_sichuan", "chadwick", "broom_salesman", "vex")

REFERENCE_PITCH_RANGE = (0.5, 1.6)  # outside it, words suffer
REFERENCE_FORMANT_RANGE = (0.88, 1.08)

# Words of a scene description that this voice can follow; all others are without effect.
_GENDERS = (
    (re.compile(r"\b(feminine|female|wom[ae]n|girl|lady)\b", re.IGNORECASE), "en_woman"),
    (re.compile(r"\b(masculine|male|m[ae]n|boy|guy|gentleman)\b", re.IGNORECASE), "en_man"),
)
_SHIFTS = (
    (re.compile(r"\b(deep|low[- ]pitch(ed)?)\b", re.IGNORECASE), Timbre(0.88, 0.97)),
    (re.compile(r"\bhigh[- ]pitch(ed)?\b", re.IGNORECASE), Timbre(1.12, 1.02)),
    (re.compile(r"\bslow(ly)?\b", re.IGNORECASE), Timbre(1.0, 1.0, 0.9)),
    (re.compile(r"\bfast\b", re.IGNORECASE), Timbre(1.0, 1.0, 1.1)),
)
_SPEAKER_LINE = re.compile(r"^\s*SPEAKER(\d{1,3})\s*:(.*)$", re.MULTILINE)


def described(words: str, default: str = DEFAULT_PRESET) -> Timbre | None:
    """The voice that a description means.

    Args:
        words: Such as "masculine, low pitch, slow pace".
        default: The preset to start from when the words name no gender.

    Returns:
        None if the words say nothing that this voice can follow.
    """
    preset = next((name for gender, name in _GENDERS if gender.search(words)), None)
    shifts = [shift for pattern, shift in _SHIFTS if pattern.search(words)]
    if preset is None and not shifts:
        return None
    timbre = PRESET_TIMBRES[preset or default]
    for shift in shifts:
        timbre = replace(
            timbre,
            pitch=timbre.pitch * shift.pitch,
            formant=timbre.formant * shift.formant,
            tempo=min(1.1, max(0.9, timbre.tempo * shift.tempo)),
        )
    return timbre


def imitated(pitch_hz: float) -> Timbre:
    """The voice that comes nearest to a reference of this median pitch: its pitch, no more."""
    low, high = REFERENCE_PITCH_RANGE
    pitch = min(high, max(low, pitch_hz / HEART_PITCH_HZ))
    low, high = REFERENCE_FORMANT_RANGE
    return Timbre(pitch, min(high, max(low, pitch**0.25)))


class Cast:
    """The voices of one job's speakers; each keeps its own from its first turn to its last.

    Args:
        preset: The job's preset, or None: then the prompt or the references decide.
        system_prompt: Its scene description; `SPEAKERn: words` lines describe single speakers.
        reference_pitches_hz: Of the references by speaker, None for one without a voiced sound;
            speaker 0's is also for text outside all turns.
    """

    def __init__(
        self,
        preset: str | None,
        system_prompt: str | None = None,
        reference_pitches_hz: Mapping[int, float | None] | None = None,
    ) -> None:
        prompt = system_prompt or ""
        self._preset = preset
        self._scene = _SPEAKER_LINE.sub("", prompt)
        self._lines = {int(line[1]): line[2] for line in _SPEAKER_LINE.finditer(prompt)}
        self._pitches = dict(reference_pitches_hz or {})
        self._chosen: dict[int | None, Timbre] = {}

    def timbre(self, speaker: int | None) -> Timbre:
        """The voice of a speaker; the choice is made at the first call for it."""
        if speaker not in self._chosen:
            self._chosen[speaker] = self._narrator() if speaker is None else self._choose(speaker)
        return self._chosen[speaker]

    def _narrator(self) -> Timbre:
        if self._preset is not None:
            return PRESET_TIMBRES.get(self._preset, PRESET_TIMBRES[DEFAULT_PRESET])
        imitation = self._imitation(0)
        if imitation is not None:
            return imitation
        # Some clients describe the only voice as speaker 0 without tagging the text.
        words = self._lines.get(0, "")
        return described(f"{self._scene}\n{words}") or PRESET_TIMBRES[DEFAULT_PRESET]

    def _choose(self, speaker: int) -> Timbre:
        imitation = self._imitation(speaker)
        if imitation is not None:
            return imitation
        default = (FEMININE, MASCULINE)[speaker % 2][0]
        words = described(self._lines.get(speaker, ""), default)
        taken = set(self._chosen.values())
        if words is not None and words not in taken:
            return words
        if words is None and self._preset in PRESET_TIMBRES and not self._chosen:
            return PRESET_TIMBRES[self._preset]
        feminine = words.pitch > PRESET_TIMBRES["vex"].pitch if words else speaker % 2 == 0
        presets = FEMININE if feminine else MASCULINE
        free = [name for name in presets if PRESET_TIMBRES[name] not in taken]
        return PRESET_TIMBRES[free[0] if free else presets[speaker // 2 % len(presets)]]

    def _imitation(self, speaker: int) -> Timbre | None:
        pitch_hz = self._pitches.get(speaker)
        return None if pitch_hz is None else imitated(pitch_hz)
