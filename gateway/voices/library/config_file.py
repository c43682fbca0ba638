"""The library as one process sees it: a snapshot of config.json, renewed when the file changes.

A file that a hand has broken leaves the last good snapshot in force, and is never written over.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from gateway.errors import LibraryUnusable, VoiceExists, VoiceNotFound
from gateway.voices.library.config_entry import Config, LibraryVoice, removed_at, voice_of
from gateway.voices.library.folder import CONFIG, MAX_CONFIG_BYTES, Folder, Signature, unusable
from gateway.voices.name_rules import lookup_key, skeleton

logger = logging.getLogger("gateway.voices")

# A name that vanished from config.json stands in the gateway's list of the engine's presets until
# the next probe of the engine, and in the engine's own list for up to 1.2 s (docs/contract.md
# section 5); asked for it then, the engine would answer with another voice.
GONE_SECONDS = 60.0
OWN_FILE = re.compile(r"voice-[0-9a-f]{24}\.wav")
TEMPORARY_FILE = re.compile(r"\.[0-9a-f]{16}\.tmp")


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """One state of the library, which equals itself alone.

    Attributes:
        voices: In the order of config.json.
        keys: Of all entries of config.json, whatever they are.
        removed: Keys of voices that were removed and wait for the end of their grace.
        gone: Keys that vanished, and until when that matters (`time.monotonic()`).
    """

    voices: tuple[LibraryVoice, ...] = ()
    keys: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()
    gone: Mapping[str, float] = field(default_factory=dict)
    _index: Mapping[str, LibraryVoice] = field(default_factory=dict, repr=False)

    def find(self, name: str) -> LibraryVoice | None:
        """The voice of this name, alias or id."""
        return self._index.get(lookup_key(name))

    def get(self, name: str) -> LibraryVoice:
        """Like `find`.

        Raises:
            VoiceNotFound: With the list of names.
        """
        voice = self.find(name)
        if voice is None:
            known = ", ".join(sorted(voice.name for voice in self.voices)) or "none"
            raise VoiceNotFound(
                f"The voice {name[:64]!r} is not in the library. Its voices: {known[:2000]}.",
                param="voice",
            )
        return voice

    @property
    def default(self) -> LibraryVoice | None:
        """The voice that was chosen as the default; None where none was."""
        return next((voice for voice in self.voices if voice.is_default), None)

    def require_free(
        self, names: Iterable[str], reserved: Iterable[str], but: LibraryVoice | None = None
    ) -> None:
        """Refuse names that are taken, or look like one that is.

        Args:
            names: Wanted.
            reserved: Taken outside of the library.
            but: The voice that is renamed: its name and id count as free, its aliases do not.

        Raises:
            VoiceExists: With the name.
        """
        taken = {skeleton(n) for voice in self.voices if voice != but for n in voice.names}
        taken |= {skeleton(name) for name in (*reserved, *(but.aliases if but else ()))}
        for name in names:
            if skeleton(name) in taken:
                raise VoiceExists(
                    f"A voice has the name {name!r} already, or one that looks like it."
                )

    def hides(self, preset: str) -> bool:
        """Whether a preset that an engine lists is a voice that was removed here."""
        return preset in self.removed or self.gone.get(preset, 0.0) > time.monotonic()

    def outside(self, listed: Iterable[str]) -> list[str]:
        """Presets of the engines that are not the library's, nor were."""
        if not self.keys and not self.gone:
            return list(listed)
        own = {voice.preset for voice in self.voices}
        return [preset for preset in listed if preset not in own and not self.hides(preset)]

    def is_read_by_engines(self, listed: Iterable[str]) -> bool:
        """Whether these presets can be the folder's: an engine that reads it lists nothing else."""
        return all(preset in self.keys or self.hides(preset) for preset in listed)


def voices_of(config: Config, folder: Folder, gone: Mapping[str, float] | None = None) -> Snapshot:
    """The snapshot of a config; looks at every recording's file."""
    found = [voice_of(key, entry, folder) for key, entry in config.items()]
    voices = tuple(voice for voice in found if voice is not None)
    index: dict[str, LibraryVoice] = {}
    # Names win over aliases, aliases over ids; the first entry wins over later ones.
    named = [(voice.name, voice) for voice in voices]
    named += [(alias, voice) for voice in voices for alias in voice.aliases]
    named += [(voice.id, voice) for voice in voices]
    for name, voice in named:
        index.setdefault(lookup_key(name), voice)
    return Snapshot(
        voices=voices,
        keys=frozenset(config),
        removed=frozenset(key for key, e in config.items() if removed_at(e) is not None),
        gone=gone or {},
        _index=index,
    )


@dataclass(slots=True)
class ConfigFile:
    """config.json as one process sees and changes it: one change at a time over all processes.

    Attributes:
        folder: The folder.
        grace_seconds: How long a removed voice's entry and file stay.
        now: Unix time in seconds.
    """

    folder: Folder
    grace_seconds: float
    now: Callable[[], float]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _signature: Signature = None
    _snapshot: Snapshot = field(default_factory=Snapshot)

    def read(self) -> Config:
        """The file as it stands; empty where there is none.

        Raises:
            LibraryUnusable: It is a link, no JSON object, or too large.
        """
        try:
            config = json.loads(self.folder.read(CONFIG, MAX_CONFIG_BYTES))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise unusable(error) from error
        except (ValueError, RecursionError):
            config = None
        if not isinstance(config, dict):
            raise LibraryUnusable(
                f"The voice library's {CONFIG} is damaged: it is not a JSON object. "
                "It has been left as it is; mend or replace it."
            )
        return config

    def current(self) -> Snapshot:
        """The snapshot; one stat while config.json is the same."""
        if self.folder.signature() == self._signature:
            return self._snapshot
        with self._lock:
            signature = self.folder.signature()  # before reading: a change on the way is seen
            if signature != self._signature:
                self._renew()
                self._signature = signature
            return self._snapshot

    def _renew(self) -> None:
        try:
            config = self.read()
        except LibraryUnusable as error:
            logger.warning("voice library: the last good state stays: %s", error.message)
            return
        now = time.monotonic()
        old = self._snapshot
        gone = {key: until for key, until in old.gone.items() if until > now}
        gone |= dict.fromkeys(old.keys, now + GONE_SECONDS)
        for key in config:
            gone.pop(key, None)
        self._snapshot = voices_of(config, self.folder, gone)

    @contextmanager
    def changing(self) -> Iterator[tuple[Config, Snapshot]]:
        """The file under the lock, fresh from the disk; written back behind the block.

        Raises:
            LibraryUnusable: It is damaged: what a hand has broken, a hand shall mend.
        """
        with self.folder.locked():
            before = self.read()
            config = dict(before)
            yield config, voices_of(config, self.folder)
            self._store(before, config)

    def purge(self, *, unnamed: bool = False) -> list[str]:
        """Delete what is past its grace; returns the names of the deleted files.

        Args:
            unnamed: Delete files of the library's own making that no entry names, too.

        Raises:
            LibraryUnusable.
        """
        with self.folder.locked():
            before = self.read()
            config = dict(before)
            deleted = self._store(before, config)
            if unnamed:
                # What killed writers left: under the lock nobody is writing.
                deleted += self._delete(filter(TEMPORARY_FILE.fullmatch, self.folder.names()))
            if unnamed and config:  # a file that was lost must not cost the recordings, too
                deleted += self._delete(_not_named(self.folder.names(), config))
        return deleted

    def _store(self, before: Config, config: Config) -> list[str]:
        """Write a config without what is past its grace; returns the files that went with that.

        Files are deleted only after the config that no longer names them is in place. One entry
        always stays: an empty list makes the engine answer 500 (docs/contract.md section 5).
        """
        latest = self.now() - self.grace_seconds
        for key, entry in list(config.items()):
            removed = removed_at(entry)
            if removed is not None and removed <= latest and len(config) > 1:
                del config[key]
        if config == before:
            return []
        # ASCII, as the container may read it in any locale.
        self.folder.write(CONFIG, (json.dumps(config, indent=2) + "\n").encode("ascii"))
        return self._delete(_not_named(_files_of(before), config))

    def _delete(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if self.folder.delete(name)]


def _not_named(candidates: Iterable[str], config: Config) -> list[str]:
    """Files of the library's own making that no entry names."""
    named = _files_of(config)
    return [name for name in candidates if OWN_FILE.fullmatch(name) and name not in named]


def _files_of(config: Config) -> set[str]:
    """The audio files that entries name."""
    files = (entry.get("audio_file") for entry in config.values() if isinstance(entry, dict))
    return {file for file in files if isinstance(file, str)}
