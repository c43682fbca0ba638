"""What a recogniser hears of an engine's speech: the share of words that it gets wrong."""

from __future__ import annotations

import io
import json
import re
from importlib import import_module
from pathlib import Path
from statistics import mean

from gateway.audio.encoders.wav import wav_file

MARGIN = 0.05
SPEAKER = re.compile(r"\[SPEAKER\d+\]")
# A word, or one Chinese character: there are no spaces between those.
WORD = re.compile("[\u4e00-\u9fff]|[^\\W\u4e00-\u9fff]+")


def words_of(text: str) -> list[str]:
    """Words without case, punctuation and names of speakers."""
    return WORD.findall(SPEAKER.sub(" ", text).casefold())


def word_errors(said: str, heard: str) -> float:
    """Word error rate: words that are wrong, missing or too many, a word of what was said."""
    wanted, found = words_of(said), words_of(heard)
    row = list(range(len(found) + 1))
    for index, word in enumerate(wanted):
        before, row[0] = row[0], index + 1
        for place, other in enumerate(found):
            change = before + (word != other)
            before = row[place + 1]
            row[place + 1] = min(change, before + 1, row[place] + 1)
    return row[-1] / max(1, len(wanted))


def listen(
    model: str, samples: dict[str, bytes], texts: dict[str, str], against: Path | None
) -> tuple[dict[str, float], dict[str, str]]:
    """Word error rates of samples, and the check that they are not above those of a report.

    Args:
        model: Name or folder of a faster-whisper model.
        samples: s16le PCM by name.
        texts: What each one says.
        against: A report of the doctor, or None.

    Raises:
        ValueError: There is no such recogniser, or the report has no word errors.
    """
    theirs = json.loads(against.read_bytes()).get("word_errors") if against else None
    if against and not theirs:
        raise ValueError(f"{against} has no word errors: --recogniser makes them")
    found = recognise(model, samples, texts)
    if not theirs:
        return found, {}
    ours, other = mean(found.values()), mean(theirs.values())
    result = "ok" if ours <= other + MARGIN else f"{ours:.1%} against {other:.1%}"
    return found, {"A recogniser understands it as it does the engine compared with.": result}


def recognise(model: str, samples: dict[str, bytes], texts: dict[str, str]) -> dict[str, float]:
    """Word error rates of samples.

    Args:
        model: Name or folder of a faster-whisper model.
        samples: s16le PCM by name.
        texts: What each one says.

    Raises:
        ValueError: faster-whisper is not installed, or has no such model.
    """
    try:
        whisper = import_module("faster_whisper").WhisperModel(model, compute_type="int8")
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"no recogniser {model!r} (pip install faster-whisper): {error}"
        ) from error
    found = {}
    for name, pcm in samples.items():
        recording = io.BytesIO(wav_file(pcm))
        segments, _ = whisper.transcribe(recording, beam_size=5)
        heard = " ".join(segment.text for segment in segments)
        found[name] = round(word_errors(texts[name], heard), 3)
    return found
