"""Writing config.json: one change at a time over all processes, fresh from the disk, never blindly.

With every change goes what its time has come for; files are deleted only after the config that no
longer names them is in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gateway.voices.library.config_entry import Config, removed_at
from gateway.voices.library.config_file import (
    as_json,
    delete_temporary,
    delete_unnamed,
    files_of,
    parse_config,
)
from gateway.voices.library.folder import CONFIG, Folder


class Ledger:
    """The config of a folder, for those who change it.

    Args:
        folder: The folder.
        grace_seconds: How long a removed voice's entry and file stay.
        now: Unix time in seconds.
    """

    def __init__(self, folder: Folder, grace_seconds: float, now: Callable[[], float]) -> None:
        self._folder = folder
        self._grace_seconds = grace_seconds
        self._now = now

    def read(self) -> Config:
        """The config as it stands.

        Raises:
            LibraryUnusable: It is damaged.
        """
        return parse_config(self._folder)

    @contextmanager
    def changing(self) -> Iterator[Config]:
        """The config under the lock, fresh from the disk; written back behind the block.

        Raises:
            LibraryUnusable: It is damaged: what a hand has broken, a hand shall mend.
        """
        with self._folder.locked():
            before = self.read()
            config = dict(before)
            yield config
            self._store(before, config)

    def purge(self) -> list[str]:
        """Delete what is past its grace; returns the files' names.

        Raises:
            LibraryUnusable.
        """
        with self._folder.locked():
            before = self.read()
            return self._store(before, dict(before))

    def cleanup(self) -> list[str]:
        """The same, and delete files of the library's own making that no entry names.

        Raises:
            LibraryUnusable.
        """
        with self._folder.locked():
            before = self.read()
            config = dict(before)
            deleted = [*self._store(before, config), *delete_temporary(self._folder)]
            if config:  # a config.json that was lost must not cost the recordings, too
                deleted += delete_unnamed(self._folder, self._folder.names(), config)
        return deleted

    def _store(self, before: Config, config: Config) -> list[str]:
        """Write a config without what is past its grace; returns the files that went with that.

        One entry always stays: an empty list makes the engine answer 500 (docs/contract.md
        section 5).
        """
        latest = self._now() - self._grace_seconds
        for key, entry in list(config.items()):
            removed = removed_at(entry)
            if removed is not None and removed <= latest and len(config) > 1:
                del config[key]
        if config == before:
            return []
        self._folder.write(CONFIG, as_json(config))
        return delete_unnamed(self._folder, files_of(before.values()), config)
