"""The library's folder on disk: one lock, files that appear whole or not at all, no way out of it.

Every access goes by a plain name in the folder and follows no symbolic link, so neither a name in
config.json nor a link in the folder leads anywhere else.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from gateway.errors import LibraryUnusable

CONFIG = "config.json"
LOCK = ".lock"
LOCK_SECONDS = 15.0  # a change takes milliseconds; decoding happens outside of the lock
LOCK_POLL_SECONDS = 0.005
MAX_CONFIG_BYTES = 8 * 1024 * 1024
MAX_NAME_CHARACTERS = 255
RETRY_AFTER_SECONDS = 5.0

Signature = tuple[int, ...] | None


def is_plain_name(name: object) -> TypeGuard[str]:
    """Whether a string names a file in the folder itself, and no hidden one."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= MAX_NAME_CHARACTERS
        and not name.startswith(".")
        and not any(character in "/\\\0" for character in name)
        and name.isprintable()
    )


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that several processes read and change.

    Attributes:
        path: Made if it is missing; itself it may be a link, its content may not.
    """

    path: Path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process and thread from changing the folder.

        Raises:
            LibraryUnusable: It cannot be written, or another process holds it for too long.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            lock = os.open(self.path / LOCK, flags, 0o666)
        except OSError as error:
            raise unusable(error) from error
        try:
            _lock(lock)
            yield
        finally:
            os.close(lock)  # the kernel gives the lock back, as it does when a process is killed

    def signature(self, name: str = CONFIG) -> Signature:
        """What changes whenever a file does; None where there is none of this name."""
        try:
            found = os.lstat(f"{self.path}/{name}")  # for every request: no path object
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def read(self, name: str, max_bytes: int) -> bytes:
        """A file's bytes.

        Raises:
            OSError: Missing, a link, no plain file, or larger than `max_bytes`.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self.path / name, flags)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "no plain file")
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise OSError(errno.EFBIG, "too large")
        return data

    def size_of(self, name: str) -> int | None:
        """Bytes of a plain file; None where there is none of this name."""
        try:
            found = os.lstat(f"{self.path}/{name}")  # for every request: no path object
        except OSError:
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def write(self, name: str, data: bytes) -> None:
        """Put a whole file in place of `name`; call it under the lock.

        Raises:
            LibraryUnusable: No room, no permission.
        """
        temporary = self.path / f".{secrets.token_hex(8)}.tmp"
        try:
            with temporary.open("xb") as file:  # a new file, never what a link leads to
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path / name)
            folder = os.open(self.path, os.O_RDONLY)
            os.fsync(folder)  # of the name; the content is on the disk
            os.close(folder)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise unusable(error) from error

    def names(self) -> list[str]:
        """All names in the folder, hidden ones too."""
        return sorted(path.name for path in self.path.iterdir())

    def delete(self, name: str) -> bool:
        """Delete a file, if it is there; a link goes, what it points to stays."""
        try:
            (self.path / name).unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise unusable(error) from error
        return True


def _lock(descriptor: int) -> None:
    give_up_at = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up_at:
                raise LibraryUnusable(
                    "Another process holds the voice library.",
                    retry_after_seconds=RETRY_AFTER_SECONDS,
                ) from None
            time.sleep(LOCK_POLL_SECONDS)
        else:
            return


def unusable(error: OSError) -> LibraryUnusable:
    """The client's error for a folder that fails."""
    return LibraryUnusable(
        f"The voice library's folder cannot be used: {error.strerror or 'I/O error'}.",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )
