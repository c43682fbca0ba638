"""The voice library: recordings with names, in a folder that the engine's container reads too.

All of it stands in the folder's `config.json` (docs/contract.md section 5), what the engine does
not know under "gateway". A removed voice leaves the library at once, and the folder after a grace:
requests that run may ask the engine for it still, which answers an unknown name with another voice.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import cast

from gateway.errors import InvalidRequest, VoiceNotFound
from gateway.voices.library.config_entry import (
    NEUTRAL_TRANSCRIPT,
    OURS,
    LibraryVoice,
    adopted,
    amend,
    free_key,
    voice_of,
)
from gateway.voices.library.config_file import ConfigFile, Snapshot
from gateway.voices.library.folder import Folder, Signature
from gateway.voices.name_rules import (
    MOST_ALIASES,
    clean_aliases,
    clean_language,
    clean_name,
    clean_text,
    printable,
    skeleton,
)
from gateway.voices.samples.loudness import UPLOAD_LIMITS, normalise_recording
from gateway.voices.samples.prepare import DEFAULT_LIMITS, prepare_reference

MOST_VOICES = 1000
# The longest life of a request with the default settings: 600 s for each 4,096 characters of a
# text of 100,000, and the queue. Until then the engine may be asked for the voice by name.
GRACE_SECONDS = 6 * 3600.0
KEPT_RECORDINGS = 16  # of at most 45 s, 2.2 MB: 35 MB a process


class VoiceLibrary:
    """The voices of one folder; any number of processes may share it.

    Every method blocks (files, a lock, for `add` up to a second of CPU time): call the ones that
    change something with `VoiceCatalogue.change`, `read_audio` in a worker thread. `snapshot` costs
    one stat while nothing changed.

    Args:
        folder: Made when the first voice comes.
        listed: Tells the presets that the engines list.
        grace_seconds: How long a removed voice's entry and file stay for requests that run.
        now: Unix time in seconds.
    """

    def __init__(
        self,
        folder: Path,
        listed: Callable[[], Sequence[str]] = tuple,
        *,
        grace_seconds: float = GRACE_SECONDS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._folder = Folder(folder)
        self.listed = listed
        self._config = ConfigFile(self._folder, grace_seconds, now)
        self._recording = lru_cache(KEPT_RECORDINGS)(self._read_recording)
        self._now = now

    @property
    def snapshot(self) -> Snapshot:
        """The library as it is now, in one piece."""
        return self._config.current()

    @property
    def presets(self) -> list[str]:
        """Presets of the engines that the library does not have; their names are taken."""
        return self.snapshot.outside(self.listed())

    def check(self) -> None:
        """Raise if config.json is damaged; `snapshot` keeps the last good state.

        Raises:
            LibraryUnusable.
        """
        self._config.read()

    def read_audio(self, voice: LibraryVoice) -> bytes:
        """The recording, a complete WAV file of 24 kHz mono s16; the latest stay in memory.

        A file in the folder may come from anybody's hand, so each is decoded and bounded like an
        upload.

        Raises:
            VoiceNotFound: The file is gone, or not a plain file any more.
            InvalidRequest: A file put there by hand that cannot be a reference.
        """
        signature = self._folder.signature(voice.audio_file)
        return self._recording(voice.name, voice.audio_file, signature)

    def _read_recording(self, name: str, file: str, _: Signature) -> bytes:
        try:
            data = self._folder.read(file, DEFAULT_LIMITS.max_bytes)
        except OSError:
            raise VoiceNotFound(
                f"The recording of the voice {name!r} is gone.", param="voice"
            ) from None
        return prepare_reference(data, param="voice", limits=UPLOAD_LIMITS).wav

    def add(
        self,
        name: str,
        audio: bytes,
        *,
        transcript: str | None = None,
        language: str = "en",
        aliases: Sequence[str] = (),
        consent: str | None = None,
        original_name: str | None = None,
        audio_param: str = "audio",
    ) -> LibraryVoice:
        """Decode, normalise and store a voice.

        Args:
            name: Its name; a trailing .wav, .mp3 and the like is left out.
            audio: A whole file: WAV, FLAC, MP3, OGG, M4A, AAC or WebM; 1-30 s after trimming.
            transcript: What it says; None or blank leaves the engine's default.
            language: A language tag.
            aliases: Further names.
            consent: Stored as given.
            original_name: The uploaded file's name, for show.
            audio_param: The request field of the recording, for errors.

        Raises:
            InvalidRequest: A name, text or recording that cannot be taken (`param` says which:
                "name", "transcript", "language", "aliases", "consent" or `audio_param`).
            RequestTooLarge: The file is over 10 MiB.
            VoiceExists: A name or alias is taken.
            LibraryUnusable: The folder's config.json is damaged or cannot be written.
        """
        name = clean_name(name, param="name")
        aliases = clean_aliases(aliases, name)
        transcript = clean_text(transcript, "transcript")
        consent = clean_text(consent, "consent")
        language = clean_language(language)
        self.snapshot.require_free((name, *aliases), self.presets)  # before a second of decoding
        recording = normalise_recording(audio, param=audio_param)
        number = secrets.token_hex(12)
        with self._config.changing() as (config, snapshot):
            snapshot.require_free((name, *aliases), self.presets)
            if len(snapshot.voices) >= MOST_VOICES:
                raise InvalidRequest(f"The library is full: it has {MOST_VOICES} voices.")
            now = self._now()
            ours = {
                "id": f"voice_{number}",
                "name": name,
                "aliases": list(aliases),
                "language": language,
                "transcript_given": transcript is not None,
                "duration_seconds": round(recording.seconds, 3),
                "created_at": int(now),
                "changed_at": now,
                "consent": consent,
                "original_name": printable(original_name),
                "original_bytes": len(audio),
            }
            key, file = free_key(name, config), f"voice-{number}.wav"
            self._folder.write(file, recording.wav)
            config[key] = {
                "transcript": NEUTRAL_TRANSCRIPT if transcript is None else transcript,
                "audio_file": file,
                OURS: {fact: value for fact, value in ours.items() if value is not None},
            }
            return cast("LibraryVoice", voice_of(key, config[key], self._folder))

    def rename(self, name: str, new_name: str) -> LibraryVoice:
        """Give a voice another name; its id, aliases and recording stay.

        The engine knows the old name for the grace.

        Raises:
            InvalidRequest, VoiceNotFound, VoiceExists, LibraryUnusable.
        """
        new_name = clean_name(new_name, param="new_name")
        with self._config.changing() as (config, snapshot):
            voice = snapshot.get(name)
            snapshot.require_free([new_name], self.presets, but=voice)
            if new_name == voice.name:
                return voice
            now = self._now()
            key = free_key(new_name, config)
            old = config[voice.preset]
            moved = {**adopted(old, voice), "name": new_name, "changed_at": now}
            config[key] = {**old, OURS: moved}
            config[voice.preset] = {**old, OURS: {"removed_at": now}}
        return replace(voice, name=new_name, preset=key, changed_at=now)

    def remove(self, name: str) -> LibraryVoice:
        """Take a voice out; its file goes after a grace, see `purge`.

        Raises:
            VoiceNotFound, LibraryUnusable.
        """
        with self._config.changing() as (config, snapshot):
            voice = snapshot.get(name)
            ours = {"removed_at": self._now()}
            config[voice.preset] = {**config[voice.preset], OURS: ours}
        return voice

    def set_default(self, name: str | None) -> LibraryVoice | None:
        """Make a voice the default, or with None no voice.

        Raises:
            VoiceNotFound, LibraryUnusable.
        """
        with self._config.changing() as (config, snapshot):
            chosen = None if name is None else snapshot.get(name)
            for voice in snapshot.voices:
                if voice.is_default or voice == chosen:
                    default = voice == chosen
                    amend(config, voice, default=default)
        return None if chosen is None else replace(chosen, is_default=True)

    def add_alias(self, name: str, alias: str) -> LibraryVoice:
        """Give a voice a further name.

        Raises:
            InvalidRequest, VoiceNotFound, VoiceExists, LibraryUnusable.
        """
        alias = clean_name(alias, param="alias")
        with self._config.changing() as (config, snapshot):
            voice = snapshot.get(name)
            snapshot.require_free([alias], self.presets)
            if len(voice.aliases) >= MOST_ALIASES:
                raise InvalidRequest(f"A voice has at most {MOST_ALIASES} aliases.", param="alias")
            aliases = (*voice.aliases, alias)
            amend(config, voice, aliases=list(aliases))
        return replace(voice, aliases=aliases)

    def remove_alias(self, name: str, alias: str) -> LibraryVoice:
        """Take a further name away.

        Raises:
            VoiceNotFound: No such voice, or it has no such alias.
            LibraryUnusable.
        """
        with self._config.changing() as (config, snapshot):
            voice = snapshot.get(name)
            aliases = tuple(one for one in voice.aliases if skeleton(one) != skeleton(alias))
            if aliases == voice.aliases:
                raise VoiceNotFound(
                    f"The voice {voice.name!r} has no alias {alias[:64]!r}.", param="alias"
                )
            amend(config, voice, aliases=list(aliases))
        return replace(voice, aliases=aliases)

    def purge(self, *, unnamed: bool = False) -> list[str]:
        """Delete removed voices past their grace, as every change does by the way.

        Args:
            unnamed: Delete files of the library's own making that no entry names, too.

        Returns:
            The deleted files' names.

        Raises:
            LibraryUnusable.
        """
        return self._config.purge(unnamed=unnamed)
