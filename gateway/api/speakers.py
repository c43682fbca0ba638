"""Resolves a request's voices and samples into preset, prompt and references.

A sample decides over a named voice; in a dialogue each speaker has a preset's description, a
recording of the library, or the client's own words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypedDict

from gateway.errors import InvalidRequest, VoiceNotFound
from gateway.text.prompt import DESCRIPTIONS, scene_of, system_prompt_for
from gateway.upstream.dialect import Reference
from gateway.voices.catalogue import VoiceCatalogue
from gateway.voices.references import check_references, introduced, references_by_speaker
from gateway.voices.resolve import LIBRARY_LABEL, ChosenVoice

_SPEAKER = re.compile(r"(?:SPEAKER)?(\d{1,3})")


class Cast(TypedDict, total=False):
    """The attributes of a `SpeechRequest` that its voices decide."""

    voice: str | None
    voice_label: str
    system_prompt: str | None
    references: tuple[Reference, ...]
    speaker_voices: tuple[tuple[int, str], ...]
    directed: bool


async def cast_voices(
    catalogue: VoiceCatalogue,
    speakers: tuple[int, ...],
    *,
    voice: str | None,
    voices: Mapping[str, str] = MappingProxyType({}),
    samples: Sequence[Reference] = (),
    system_prompt: str | None = None,
    instructions: str | None = None,
    directed: bool = False,
) -> Cast:
    """The voices that a client asks for.

    Args:
        catalogue: All voices.
        speakers: Of the text; several make it a dialogue.
        voice: A voice's name or id; None is the default.
        voices: Names or descriptions by speaker, `SPEAKER0` and so on.
        samples: The client's own voice samples.
        system_prompt: The client's whole prompt.
        instructions: Its scene.
        directed: The scene is in the client's own words.

    Raises:
        InvalidRequest, VoiceNotFound.
    """
    roles = _roles(catalogue, voices)
    role = roles.get(speakers[0]) if len(speakers) == 1 and voice is None else None
    chosen = role if isinstance(role, ChosenVoice) else catalogue.choose(voice)
    if len(speakers) > 1:
        named = chosen.recorded if voice is not None else None
        if named is not None and named.system_prompt is None and not samples:
            samples = (await catalogue.recording_of(named),)
        return await _dialogue(
            catalogue, speakers, roles, samples, system_prompt, instructions, chosen, directed
        )
    recorded, preset = chosen.recorded, chosen.preset
    if samples:
        preset = None
        check_references(samples, param="references")
    elif recorded and (preset is None or system_prompt or instructions):
        # The chat route, which takes a scene, knows no presets. A voice with a prompt of its own
        # is spoken by that, without the recording (docs/contract.md section 5).
        preset = None
        if recorded.system_prompt is None:
            samples = (await catalogue.recording_of(recorded),)
        elif instructions and not system_prompt:
            instructions = f"{instructions}\n{scene_of(recorded.system_prompt)}"
        else:
            system_prompt = system_prompt or recorded.system_prompt
    return Cast(
        # A preset of the engine's own in a client's scene is described to the chat route.
        voice=preset,
        voice_label=LIBRARY_LABEL if samples else chosen.label,
        system_prompt=system_prompt_for(
            speakers,
            voice=None if recorded else preset,
            system_prompt=system_prompt,
            instructions=instructions,
        ),
        references=tuple(samples),
        directed=directed,
    )


def voice_of_file(catalogue: VoiceCatalogue, path: str | None) -> str | None:
    """The library's voice whose file a Chatterbox client names; None where it names none.

    Raises:
        InvalidRequest: No voice of the library has that file. The gateway reads no other.
    """
    if path is None:
        return None
    name = path.replace("\\", "/").rpartition("/")[2]
    found = catalogue.snapshot.find(name) or catalogue.snapshot.find(name.rpartition(".")[0])
    if found is None:
        raise InvalidRequest(
            "'audio_prompt_path' names no voice of the library; upload the recording as a voice.",
            param="audio_prompt_path",
        )
    return found.name


async def _dialogue(
    catalogue: VoiceCatalogue,
    speakers: tuple[int, ...],
    roles: Mapping[int, ChosenVoice | str],
    samples: Sequence[Reference],
    system_prompt: str | None,
    instructions: str | None,
    chosen: ChosenVoice,
    directed: bool,  # noqa: FBT001
) -> Cast:
    descriptions: dict[int, str] = {}
    own: dict[int, Reference] = {}
    for speaker, role in roles.items():
        if isinstance(role, str):
            descriptions[speaker] = role
        elif role.recorded is None:
            descriptions[speaker] = DESCRIPTIONS.get(role.preset or "", "")
        elif role.recorded.system_prompt is not None:
            descriptions[speaker] = scene_of(role.recorded.system_prompt)
        elif speaker in speakers:
            own[speaker] = await catalogue.recording_of(role.recorded)
    references = references_by_speaker(speakers, own, samples)
    tagged = [introduced(speaker, sample) for speaker, sample in references.items()]
    nobodys = samples[len(references) - len(own) :]
    check_references([*tagged, *nobodys], param="references")
    return Cast(
        voice=None if references else chosen.preset,
        voice_label=LIBRARY_LABEL if references else chosen.label,
        system_prompt=system_prompt_for(
            speakers,
            voice=None,
            system_prompt=system_prompt,
            instructions=instructions,
            descriptions=descriptions,
            recorded=references.keys() - descriptions.keys(),
        ),
        references=(*tagged, *nobodys),
        speaker_voices=tuple(
            (speaker, role.preset)
            for speaker, role in roles.items()
            if isinstance(role, ChosenVoice) and role.recorded is None and role.preset
        ),
        directed=directed or any(isinstance(role, str) for role in roles.values()),
    )


def _roles(catalogue: VoiceCatalogue, voices: Mapping[str, str]) -> dict[int, ChosenVoice | str]:
    """Speakers' voices; a word that names none describes one.

    Raises:
        InvalidRequest: A key that is no speaker.
    """
    roles: dict[int, ChosenVoice | str] = {}
    for speaker, given in voices.items():
        number = _SPEAKER.fullmatch(speaker.strip().upper())
        if number is None:
            raise InvalidRequest("'voices' has keys like SPEAKER0, SPEAKER1.", param="voices")
        try:
            roles[int(number[1])] = catalogue.choose(given)
        except VoiceNotFound:
            roles[int(number[1])] = given
    return roles
