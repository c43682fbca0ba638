"""Entries of config.json: what the engine reads, and what the gateway adds under "gateway".

Entries come from people and other programs, too. What cannot be understood is no voice of the
library, and stays in the file as it is.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from gateway.voices.library.folder import Folder, is_plain_name

OURS = "gateway"  # the engine reads three keys of an entry and passes over all others
# The engine needs a transcript (docs/contract.md section 5); this is its clients' own default.
NEUTRAL_TRANSCRIPT = "Please speak naturally."
LARGEST_NUMBER = 1e12

Entry = dict[str, Any]
Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LibraryVoice:
    """One voice of the library.

    Attributes:
        id: `voice_` and 24 hex digits; stays through a rename.
        name: As given, in NFKC; letters, digits, space, `.`, `_`, `-`; at most 100 characters.
        preset: Its key in config.json: the engine's name for it; nearly always `name`.
        aliases: Further names.
        language: A language tag, "en" where none was given.
        transcript: What the recording says; None where none was given: the engine's default
            text stands in, see `prompt_transcript`.
        audio_file: File name in the folder.
        duration_seconds: Of the normalised audio; 0 where an entry written by hand does not tell.
        created_at: Unix time in seconds; 0 for entries written by hand.
        consent: What the client sent as consent, stored and not judged.
        original_name: The uploaded file's name, for show only; None where unknown.
        original_bytes: Size of the upload; of the file itself in entries written by hand.
        is_default: It is the library's default voice.
        changed_at: Unix time from which on its key means its recording; 0 for entries by hand.
        system_prompt: The engine then speaks by this text, without the recording.
    """

    id: str
    name: str
    preset: str
    aliases: tuple[str, ...]
    language: str
    transcript: str | None = field(repr=False)
    audio_file: str
    duration_seconds: float
    created_at: int
    consent: str | None = field(default=None, repr=False)
    original_name: str | None = None
    original_bytes: int = 0
    is_default: bool = False
    changed_at: float = 0.0
    system_prompt: str | None = field(default=None, repr=False)

    @property
    def prompt_transcript(self) -> str:
        """What goes along with the recording into a prompt."""
        return self.transcript if self.transcript is not None else NEUTRAL_TRANSCRIPT

    @property
    def names(self) -> tuple[str, ...]:
        """All that it answers to."""
        return (self.name, *self.aliases, self.id)


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


def ours_of(entry: object) -> Mapping[str, Any]:
    """The gateway's own part of an entry; empty where there is none."""
    ours = entry.get(OURS) if isinstance(entry, dict) else None
    return ours if isinstance(ours, dict) else {}


def removed_at(entry: object) -> float | None:
    """When a voice was removed, Unix time; None while it is not."""
    at = _number(ours_of(entry), "removed_at", -1.0)
    return None if at < 0 else at


def voice_of(preset: str, entry: object, folder: Folder) -> LibraryVoice | None:
    """The voice of an entry; None where it is removed or not one that can be used.

    A recording outside the folder, behind a link or missing makes no voice.
    """
    if not isinstance(entry, dict) or removed_at(entry) is not None or not _is_name(preset):
        return None
    audio_file, transcript = entry.get("audio_file"), entry.get("transcript")
    if not is_plain_name(audio_file) or not isinstance(transcript, str):
        return None
    size = folder.size_of(audio_file)
    if size is None:
        return None
    ours = ours_of(entry)
    name = ours.get("name")
    aliases = ours.get("aliases")
    return LibraryVoice(
        id=_text(ours, "id") or id_of_preset(preset),
        name=name if _is_name(name) else preset,
        preset=preset,
        aliases=tuple(filter(_is_name, aliases)) if isinstance(aliases, list) else (),
        language=_text(ours, "language") or "en",
        transcript=transcript if ours.get("transcript_given", True) else None,
        audio_file=audio_file,
        duration_seconds=_number(ours, "duration_seconds", 0.0),
        created_at=int(_number(ours, "created_at", 0.0)),
        consent=_text(ours, "consent"),
        original_name=_text(ours, "original_name"),
        original_bytes=int(_number(ours, "original_bytes", float(size))),
        is_default=ours.get("default") is True,
        changed_at=_number(ours, "changed_at", 0.0),
        system_prompt=_text(entry, "system_prompt"),
    )


def id_of_preset(preset: str) -> str:
    """The id of an entry written by hand: the same in every process."""
    return "voice_" + hashlib.sha256(preset.encode()).hexdigest()[:24]


def _is_name(name: object) -> TypeGuard[str]:
    return isinstance(name, str) and 0 < len(name.strip()) <= 256 and name.isprintable()  # noqa: PLR2004


def _text(values: Mapping[str, Any], key: str) -> str | None:
    value = values.get(key)
    return value if isinstance(value, str) and value and _encodable(value) else None


def _encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _number(values: Mapping[str, Any], key: str, default: float) -> float:
    value = values.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return default
    return float(value) if 0 <= value < LARGEST_NUMBER else default
