"""From a client's word for a voice to a preset that an upstream lists.

Letter case and a sound file's ending never matter (Chatterbox clients send file names); nothing is
guessed: the container answers an unknown voice with its first preset and says nothing
(docs/contract.md section 2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from gateway.errors import VoiceNotFound

# The 13 voices of OpenAI's API on the container's eight presets: same gender, spread evenly.
OPENAI_VOICES = {
    "alloy": "en_woman",
    "ash": "en_man",
    "ballad": "chadwick",
    "cedar": "chadwick",
    "coral": "belinda",
    "echo": "en_man",
    "fable": "broom_salesman",
    "marin": "mabel",
    "nova": "mabel",
    "onyx": "chadwick",
    "sage": "belinda",
    "shimmer": "en_woman",
    "verse": "vex",
}

DEFAULT = "default"  # what wyoming-openai and RealtimeTTS send where nothing is configured
# The names that travisvn's server answers with the voice that is set as the default.
ITS_DEFAULT_NAMES = frozenset({"alloy", "echo", "fable", "onyx", "nova", "shimmer"})


SOUND_ENDINGS = (".wav", ".mp3", ".flac", ".ogg", ".m4a")


def without_ending(name: str) -> str:
    """A voice's name without the ending of the file that it is called after."""
    for ending in SOUND_ENDINGS:
        if name.lower().endswith(ending):
            name = name[: -len(ending)].rstrip()
    return name


@lru_cache(maxsize=1024)  # every request compares its voice with some twenty names
def fold(name: str) -> str:
    """What two names have in common when they mean the same voice."""
    return without_ending(name.strip().casefold())


@lru_cache(maxsize=16)  # what engines list changes with their probes, not with requests
def by_folded_name(presets: tuple[str, ...]) -> Mapping[str, str]:
    """Presets by what their names have in common with a client's word."""
    return {fold(preset): preset for preset in presets}


def resolve_voice(
    name: str,
    aliases: Mapping[str, str],
    listed: tuple[str, ...],
    further_names: Sequence[str] = (),
) -> str:
    """The preset that `name` means.

    Args:
        name: A client's word.
        aliases: Further names, folded, to presets.
        listed: The presets.
        further_names: Of voices that are no presets, for the error's list.

    A listed preset wins over an alias of the same name. An alias is followed once. The 13 OpenAI
    names work on every engine: those whose target is not listed mean its presets in turn.

    Raises:
        VoiceNotFound: With the list of names that work.
    """
    presets = by_folded_name(listed)
    wanted = fold(name)
    for meant in (wanted, fold(aliases.get(wanted, wanted))):
        if meant in presets:
            return presets[meant]
    if wanted in OPENAI_VOICES and listed:
        return listed[list(OPENAI_VOICES).index(wanted) % len(listed)]
    known = ", ".join(sorted({*listed, *aliases, *further_names}))
    raise VoiceNotFound(f"The voice {name[:64]!r} does not exist. Voices: {known}.", param="voice")


def spread(
    names: Iterable[str], voices: Sequence[str], aliases: Mapping[str, str]
) -> dict[str, str]:
    """What the names that clients use mean on an engine: its own voice, one each in turn.

    Args:
        names: The 13 names of OpenAI's voices, in a fixed order.
        voices: What the engine lists.
        aliases: From the settings, alias to voice; one whose voice is listed holds.
    """
    if not voices:
        return {}
    folded = {voice.casefold(): voice for voice in voices}
    found = {
        alias: folded[voice.casefold()]
        for alias, voice in aliases.items()
        if voice.casefold() in folded
    }
    for place, name in enumerate(names):
        found.setdefault(name, folded.get(name.casefold(), voices[place % len(voices)]))
    return found
