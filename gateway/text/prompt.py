"""Prompts that the engine was trained on: the scene description and the speaker tags.

Pure and table-tested; the wording follows the model's official examples.
"""

from __future__ import annotations

import re

from gateway.text.sanitise import sanitise_text

INTRODUCTION = "Generate audio following instruction."
QUIET_ROOM = "Audio is recorded from a quiet room."
_SPEAKER_TAG = re.compile(r"\[SPEAKER\d{1,3}\]")


def scene_prompt(description: str) -> str:
    """Wrap a scene description the way the model's examples do.

    Args:
        description: Free text from a client; special tokens in it are removed first.
    """
    scene = sanitise_text(description).strip() or QUIET_ROOM
    return f"{INTRODUCTION}\n\n<|scene_desc_start|>\n{scene}\n<|scene_desc_end|>"


DEFAULT_SYSTEM_PROMPT = scene_prompt(QUIET_ROOM)

# The chat route knows no presets (docs/contract.md section 4), so a preset that must be spoken in
# a client's own scene is described instead. Presets whose voice has no plain description are not.
_DESCRIPTIONS = {
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
    description = _DESCRIPTIONS.get(voice or "")
    scene = instructions.strip()
    return scene_prompt(f"{scene}\nSPEAKER0: {description}" if description else scene)


def speaker_tags(text: str) -> tuple[str, ...]:
    """The different `[SPEAKERn]` tags of a text, in the order of their first use."""
    return tuple(dict.fromkeys(_SPEAKER_TAG.findall(text)))
