"""What an engine can do: a frozen record for each upstream, and what a generation needs of it.

The gateway supplies what it can (speed, formats, long texts in segments, dialogues turn by turn);
what remains is refused with a sentence, never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from typing import Any

from gateway.text.dialogue import is_dialogue
from gateway.text.writing_systems import scripts_in
from gateway.upstream.dialect import Reference


class ReferenceField(Enum):
    """Where an engine's request takes a recording of the voice to imitate."""

    NONE = "none"
    MESSAGES = "messages"  # turns of the chat route, docs/contract.md section 4
    REF_AUDIO = "ref_audio"  # `ref_audio` as a data URL and `ref_text`: vLLM-Omni, SGLang-Omni
    REFERENCES = "references"  # a list of `audio` and `text`: another gateway


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one engine can do.

    Attributes:
        engine: Its name for people.
        references: Where it takes recordings.
        most_references: So many at once.
        transcripts: A recording needs the words that are said in it.
        scene: It takes a whole scene prompt of its own.
        instructions: It takes words on how to speak.
        preset_in_scene: A preset keeps its voice beside scene or instructions.
        dialogue: It reads `[SPEAKERn]` turns in several voices.
        streaming: It sends audio while it makes it.
        seed: It takes a seed.
        sampling: It takes temperature, top_p and top_k.
        longest_text_characters: Of one request, or None.
        languages: Codes such as `en`, or None where it is not known.
        scripts: Scripts that it can say, by Unicode's names ("LATIN"), or None likewise.
        concurrency: Generations at once, beyond which they wait in the engine; None where it is not
            known.
    """

    engine: str
    references: ReferenceField = ReferenceField.NONE
    most_references: int = 0
    transcripts: bool = False
    scene: bool = False
    instructions: bool = False
    preset_in_scene: bool = False
    dialogue: bool = False
    streaming: bool = True
    seed: bool = False
    sampling: bool = False
    longest_text_characters: int | None = None
    languages: tuple[str, ...] | None = None
    scripts: frozenset[str] | None = None
    concurrency: int | None = None


# The container: docs/contract.md sections 2 and 4.
HIGGS = Capabilities(
    "higgs-audio-vllm",
    references=ReferenceField.MESSAGES,
    most_references=50,
    scene=True,
    instructions=True,
    dialogue=True,
    sampling=True,
)

# Scripts, by Unicode's names of their letters, and codes of the languages that are written in them.
SCRIPTS: Mapping[str, str] = {
    "ARABIC": "ar fa ur",
    "BENGALI": "bn",
    "BOPOMOFO": "yue zh",
    "CJK": "ja yue zh",
    "CYRILLIC": "ru uk",
    "DEVANAGARI": "hi mr",
    "GREEK": "el",
    "HANGUL": "ko",
    "HEBREW": "he",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "TAMIL": "ta",
    "TELUGU": "te",
    "THAI": "th",
}


def scripts_of(languages: Iterable[str]) -> frozenset[str]:
    """The scripts in which languages are written; a language that is not named uses LATIN.

    LATIN is always among them: names and abbreviations stand in every text.
    """
    codes = {language.lower().split("-")[0] for language in languages}
    return frozenset({"LATIN", *(name for name in SCRIPTS if codes & set(SCRIPTS[name].split()))})


def told_capabilities(told: Mapping[str, Any]) -> Capabilities:
    """The record of an engine that answers `GET /capabilities`; odd values are passed over.

    Args:
        told: Its JSON object; where it says nothing, it is as the container.
    """
    engine, most, slots = told.get("engine"), told.get("most_references"), told.get("slots")
    names, spelled = _names(told.get("languages")), _names(told.get("scripts"))
    return replace(
        HIGGS,
        engine=engine if isinstance(engine, str) else HIGGS.engine,
        languages=names or None,
        scripts=frozenset(s.upper() for s in spelled) or (scripts_of(names) if names else None),
        seed=told.get("seed") is True,
        references=HIGGS.references if told.get("references", True) else ReferenceField.NONE,
        most_references=most if isinstance(most, int) and most > 0 else HIGGS.most_references,
        preset_in_scene=told.get("preset_in_scene") is True,
        concurrency=slots if isinstance(slots, int) and slots > 0 else None,
    )


def _names(value: Any) -> tuple[str, ...]:
    entries = value if isinstance(value, list) else []
    return tuple(entry for entry in entries if isinstance(entry, str))


@dataclass(eq=False)
class Needs:
    """What a generation needs of an engine.

    Attributes:
        text: What is spoken.
        references: The recordings to imitate.
        scene: A scene prompt, which instructions can stand in for.
        whole: All of the text in one request to an engine; False where it may be said in segments.
    """

    text: str = field(default="", repr=False)
    references: tuple[Reference, ...] = ()
    scene: bool = False
    whole: bool = False

    @cached_property
    def dialogue(self) -> bool:
        """Whether the text has turns of several speakers."""
        return is_dialogue(self.text)

    @cached_property
    def scripts(self) -> frozenset[str]:
        """Of the text's letters."""
        return scripts_in(self.text)


NO_NEEDS = Needs()


def lacking(can: Capabilities, needs: Needs) -> str | None:
    """What an engine lacks for a generation, in words that end "No engine at hand …", or None."""
    count, most_characters = len(needs.references), can.longest_text_characters
    lacks = None
    if count and can.references is ReferenceField.NONE:
        lacks = "imitates a recorded voice"
    elif count > can.most_references:
        lacks = f"takes {count} recordings at once"
    elif can.transcripts and not all(reference.transcript for reference in needs.references):
        lacks = "imitates a recorded voice without its transcript"
    elif not can.dialogue and needs.dialogue:
        lacks = "reads a dialogue in several voices"
    elif needs.scene and not (can.scene or can.instructions):
        lacks = "takes instructions or a scene prompt"
    elif can.scripts and (other := needs.scripts - can.scripts):
        lacks = f"speaks the script {min(other).capitalize()}"
    elif needs.whole and most_characters and len(needs.text) > most_characters:
        lacks = f"takes {len(needs.text)} characters at once"
    return lacks
