"""Prompts that the engine was trained on: the scene description and the speaker tags.

Pure and table-tested; the wording follows the model's official examples.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from gateway.text.sanitise import SCENE_END, SCENE_START, sanitise_system_prompt, sanitise_text

INTRODUCTION = "Generate audio following instruction."
QUIET_ROOM = "Audio is recorded from a quiet room."
# MULTISPEAKER_DEFAULT_SYSTEM_MESSAGE of examples/generation.py, boson-ai/higgs-audio
DIALOGUE_INTRODUCTION = (
    "You are an AI assistant designed to convert text into speech.\n"
    "If the user's message includes a [SPEAKER*] tag, do not read out the tag and generate speech "
    "for the following text, using the specified voice.\n"
    "If no speaker tag is present, select a suitable voice on your own."
)
MOST_DESCRIPTION_CHARACTERS = 500
_DESCRIBED = re.compile(
    r"\bSPEAKER[ _]?(\d{1,3})\b\]?\s*(?:[:=]|-\s|(?:is|has|sounds|speaks)\b)", re.IGNORECASE
)


def scene_prompt(description: str) -> str:
    """Wrap a scene description the way the model's examples do.

    Args:
        description: Free text from a client; special tokens in it are removed first.
    """
    return _prompt(INTRODUCTION, sanitise_text(description).strip() or QUIET_ROOM)


def _prompt(introduction: str, scene: str) -> str:
    return f"{introduction}\n\n{SCENE_START}\n{scene}\n{SCENE_END}"


DEFAULT_SYSTEM_PROMPT = scene_prompt(QUIET_ROOM)

# The chat route knows no presets (docs/contract.md section 4), so a preset that must be spoken in
# a client's own scene is described instead. Presets whose voice has no plain description are not.
DESCRIPTIONS = {
    "belinda": "feminine",
    "broom_salesman": "masculine",
    "chadwick": "masculine",
    "en_man": "masculine",
    "en_woman": "feminine",
    "mabel": "feminine",
    "zh_man_sichuan": "masculine",
}


def instructed_prompt(instructions: str, voice: str | None) -> str:
    """The scene prompt for OpenAI's `instructions`, with the preset's own character added."""
    scene = instructions.strip()
    description = None if 0 in speakers_in(scene) else DESCRIPTIONS.get(voice or "")
    return scene_prompt(f"{scene}\nSPEAKER0: {description}" if description else scene)


def speakers_in(scene: str) -> set[int]:
    """The speakers that a scene describes itself, as `SPEAKER0: deep male`."""
    return {int(number) for number in _DESCRIBED.findall(scene)}


def dialogue_prompt(
    speakers: Iterable[int],
    descriptions: Mapping[int, str],
    scene: str | None,
    recorded: Collection[int] = (),
) -> str:
    """The prompt of a text with several speakers, as the model's examples write it.

    The scene comes first, then one line a speaker: `SPEAKER1: deep male`. Who is not described is
    feminine with an even number and masculine with an odd one, so a speaker sounds the same in
    every part of a dialogue, whichever voices are beside it.

    Args:
        speakers: Numbers of the tags; all of the whole dialogue, in every part of it.
        descriptions: What the client says about a speaker's voice, by number.
        scene: A client's scene description, or a whole system prompt of which the scene is taken;
            None for a quiet room.
        recorded: Speakers whose recording is in the prompt: words would contradict it.
    """
    given = scene_of(scene or "") or QUIET_ROOM
    # Two descriptions of one speaker would contradict each other.
    own = speakers_in(given) - set(descriptions)
    lines = "\n".join(
        f"SPEAKER{speaker}: {_description(speaker, descriptions)}"
        for speaker in sorted(set(speakers) - set(recorded) - own)
    )
    described = f"{given}\n\n{lines}".rstrip()
    return _prompt(DIALOGUE_INTRODUCTION, described)


def _description(speaker: int, descriptions: Mapping[int, str]) -> str:
    # On one line, or it could describe another speaker.
    given = " ".join(sanitise_text(descriptions.get(speaker, "")).split())
    given = given[:MOST_DESCRIPTION_CHARACTERS].rstrip()
    return given or ("masculine" if speaker % 2 else "feminine")


def scene_of(system_prompt: str) -> str:
    """The scene description within a client's system prompt, sanitised; the whole where none is.

    Args:
        system_prompt: With the tags of a scene description, or free text.
    """
    _, start, rest = system_prompt.partition(SCENE_START)
    scene, end, _ = rest.partition(SCENE_END)
    found = scene if start and end else system_prompt
    return sanitise_text(found).strip().removeprefix(INTRODUCTION).strip()


def system_prompt_for(
    speakers: Collection[int],
    *,
    voice: str | None,
    system_prompt: str | None,
    instructions: str | None = None,
    descriptions: Mapping[int, str] | None = None,
    recorded: Collection[int] = (),
) -> str | None:
    """The whole system prompt of a request, or None for the engine's own.

    Args:
        speakers: Numbers of the text's speakers; several need a prompt of their own.
        voice: The preset that was asked for, if any.
        system_prompt: A client's whole prompt.
        instructions: A client's scene, where it gave no whole prompt.
        descriptions: What it said about speakers' voices, by number.
        recorded: Speakers whose recording goes along.
    """
    given = (system_prompt or "").strip() or None
    scene = (instructions or "").strip() or None
    if len(speakers) > 1:
        return dialogue_prompt(speakers, descriptions or {}, given or scene, recorded)
    if given:
        return sanitise_system_prompt(given)
    return instructed_prompt(scene, voice) if scene else None
