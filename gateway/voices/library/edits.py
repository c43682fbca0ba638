"""Changes of the library's config as pure steps: who has a name, which key is free, what changes.

They work on a config in memory; the lock, the disk and the time are the library's business.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from gateway.errors import VoiceExists, VoiceNotFound
from gateway.voices.library.config_entry import OURS, Config, Entry, LibraryVoice, ours_of
from gateway.voices.library.config_file import Snapshot
from gateway.voices.name_rules import skeleton


def voice_named(snapshot: Snapshot, name: str) -> LibraryVoice:
    """The voice of this name, alias or id.

    Raises:
        VoiceNotFound: With the list of names.
    """
    voice = snapshot.find(name)
    if voice is None:
        known = ", ".join(sorted(voice.name for voice in snapshot.voices)) or "none"
        raise VoiceNotFound(
            f"The voice {name[:64]!r} is not in the library. Its voices: {known[:2000]}.",
            param="voice",
        )
    return voice


def require_free(
    snapshot: Snapshot,
    names: Iterable[str],
    reserved: Iterable[str],
    but: LibraryVoice | None = None,
) -> None:
    """Refuse names that are taken, or look like one that is.

    Raises:
        VoiceExists: With the name.
    """
    taken = {skeleton(n) for voice in snapshot.voices if voice != but for n in voice.names}
    taken |= {skeleton(name) for name in reserved}
    if but is not None:
        taken |= {skeleton(alias) for alias in but.aliases}
    for name in names:
        if skeleton(name) in taken:
            raise VoiceExists(f"A voice has the name {name!r} already, or one that looks like it.")


def free_key(name: str, config: Config) -> str:
    """A key of config.json that no entry has.

    That of a removed voice is not free: the engine may be asked for that voice still.
    """
    key = name
    while key in config:
        key = f"{name}~{secrets.token_hex(3)}"
    return key


def adopted(entry: Entry, voice: LibraryVoice) -> Entry:
    """The gateway's part of an entry, with the id that an entry by hand has from its key."""
    return {**ours_of(entry), "id": voice.id}


def amend(config: Config, voice: LibraryVoice, **values: object) -> None:
    """Change the gateway's part of a voice's entry, and nothing else of it."""
    entry = config[voice.preset]
    config[voice.preset] = {**entry, OURS: {**adopted(entry, voice), **values}}
