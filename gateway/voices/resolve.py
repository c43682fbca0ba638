"""Resolves a name to a voice: an engine's preset, or a recording of the library.

A name goes to the engine only where it surely means the same there: an engine answers one that it
does not know with its first preset, and says nothing (docs/contract.md section 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway import value
from gateway.voices.aliases import (
    DEFAULT,
    ITS_DEFAULT_NAMES,
    OPENAI_VOICES,
    by_folded_name,
    fold,
    resolve_voice,
)
from gateway.voices.library.config_entry import LibraryVoice
from gateway.voices.library.config_file import Snapshot

# After a change of the folder the engine needs up to 1.2 s, and up to 10 s behind a bad read, to
# know what a name means now (docs/contract.md section 5).
SETTLED_SECONDS = 30.0
LIBRARY_LABEL = "library"


@value
class ChosenVoice:
    """The voice that a name means.

    Attributes:
        preset: The engine's name for it; None where only the recording can tell.
        recorded: The library's voice; None for a preset of the engine's own.
    """

    preset: str | None
    recorded: LibraryVoice | None = None

    @property
    def label(self) -> str:
        """The voice in metrics: names that clients gave are no labels, an operator's are."""
        by_client = self.recorded is not None and self.recorded.changed_at > 0
        return LIBRARY_LABEL if by_client or self.preset is None else self.preset


def choose_voice(
    name: str | None,
    listed: Sequence[str],
    library: Snapshot,
    *,
    default: str,
    aliases: Mapping[str, str],
) -> LibraryVoice | str:
    """The voice that a name means: the library's, or else a preset.

    The library comes first, then what the engines list beside it, then aliases (which may mean a
    voice of either).

    Args:
        name: From the client; None is the library's default, else `default`.
        listed: Presets that the engines list.
        library: An empty snapshot where there is no library.
        default: A preset or an alias.
        aliases: From the settings, by their folded names.

    Raises:
        VoiceNotFound: With the list of names that work.
    """
    outside = tuple(library.outside(listed))
    presets, chosen = by_folded_name(outside), library.default
    if name is None or _means_default(fold(name), aliases, presets, library):
        if chosen is not None:
            return chosen
        name = default
    found = library.find(name)
    if found is None and fold(name) not in presets:
        found = _by_alias(fold(name), aliases, outside, library)
    if found is not None:
        return found
    names = [voice.name for voice in library.voices]
    return resolve_voice(name, aliases, outside, further_names=names)


def _means_default(
    name: str, aliases: Mapping[str, str], presets: Mapping[str, str], library: Snapshot
) -> bool:
    """Whether a name is only a client's word for the default voice.

    A voice of that name is stronger, and so is an operator's alias.
    """
    if library.find(name) is not None or name in presets:
        return False
    if name == DEFAULT:
        return name not in aliases
    is_set = library.default is not None
    return is_set and name in ITS_DEFAULT_NAMES and aliases.get(name) == OPENAI_VOICES[name]


def _by_alias(
    wanted: str, aliases: Mapping[str, str], outside: Sequence[str], library: Snapshot
) -> LibraryVoice | None:
    """The library's voice behind an alias of the settings."""
    found = library.find(aliases[wanted]) if wanted in aliases else None
    if found is None and wanted in OPENAI_VOICES and not outside and library.voices:
        return library.voices[0]  # the 13 names work on every engine
    return found


def recorded_voice(
    voice: LibraryVoice, listed: Sequence[str], library: Snapshot, now: float
) -> ChosenVoice:
    """How the engines are told a voice of the library.

    Args:
        voice: The voice.
        listed: Presets that the engines list.
        library: Where it is from.
        now: Unix time.
    """
    settled = now - voice.changed_at > SETTLED_SECONDS
    by_name = settled and voice.preset in listed and library.is_read_by_engines(listed)
    return ChosenVoice(voice.preset if by_name else None, voice)


def names_of_voices(
    aliases: Mapping[str, str], listed: Sequence[str], library: Snapshot
) -> list[str]:
    """All names that clients may use, each once: the library's, the presets, then aliases."""
    own = [voice.name for voice in library.voices]
    further = [alias for voice in library.voices for alias in voice.aliases]
    return list(dict.fromkeys([*own, *library.outside(listed), *further, *sorted(aliases)]))
