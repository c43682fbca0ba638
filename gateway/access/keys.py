"""API keys, from the environment and from a file that keeps only their hashes.

A key made here has 256 random bits, so one SHA-256 is all that a stolen file needs to be useless:
slow hashes protect what people can remember, and would cost every request their time.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from gateway.access.rate_limits import ANONYMOUS, Limits

logger = logging.getLogger("gateway.keys")

MOST_KEYS = 1000  # every one is compared with, for every request: about 0.05 ms
MOST_FILE_BYTES = 1024 * 1024
LONGEST_KEY_CHARACTERS = 256
RELOAD_SECONDS = 1.0  # the file is looked at no more often
KEY_PREFIX = "sg-"  # so that scanners for leaked secrets know one when they see it
KEY_BYTES = 32

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# A key without a name may end as base64 does; a name whose key was forgotten is never so long.
_PADDED = re.compile(r"(?:[A-Za-z0-9+/_-]{4}){5,}[A-Za-z0-9+/_-]{2}(?:==|[A-Za-z0-9+/_-]=)")
_HASH = re.compile(r"sha256:([0-9a-fA-F]{64})")
_NUMBER = re.compile(r"\d{1,9}(?:\.\d{1,3})?")
_OPTIONS = ("requests_per_minute", "audio_seconds_per_minute")


@dataclass(frozen=True, slots=True)
class Key:
    """One key; its text is not kept.

    Attributes:
        name: For logs and metrics. Two keys of one name are one caller: so a key is exchanged.
        digest: SHA-256 of the key.
        admin: It opens what administrators need, besides speech.
        limits: Its own, where it has some.
    """

    name: str
    digest: bytes = field(repr=False)
    admin: bool = False
    limits: Limits = field(default_factory=Limits)


def digest_of(key: bytes) -> bytes:
    """The SHA-256 of a key, which is kept and compared in its place."""
    return hashlib.sha256(key).digest()


def new_key() -> str:
    """A new random key of 256 bits."""
    return KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)


def file_line(name: str, key: str, *, admin: bool = False, limits: Limits | None = None) -> str:
    """The line of the keys file that stands for a key.

    Raises:
        ValueError: The name is not fit for one.
    """
    words = [f"{_checked_name(name)}=sha256:{digest_of(key.encode()).hex()}"]
    if admin:
        words.append("admin")
    for option in _OPTIONS:
        value = getattr(limits, option) if limits else None
        if value is not None:
            words.append(f"{option}={value:g}")
    return " ".join(words)


def parse_keys(text: str) -> tuple[Key, ...]:
    """Read `[name=]key [admin] [requests_per_minute=N] […]`, comma-separated.

    A key may stand as `sha256:<hex>`. An entry is cut at its first `=`, so that a key with a `=` of
    its own needs a name before it; the `=` that end a long base64 text are part of the key. A key
    without a name is called after its place.

    Raises:
        ValueError: It is no such list; the message holds no part of a key.
    """
    keys = []
    for place, entry in enumerate(filter(None, map(str.strip, text.split(","))), 1):
        written, *options = entry.split()
        name, equals, value = written.partition("=")
        if not equals or _PADDED.fullmatch(written):
            name, value = f"key-{place}", written
        try:
            keys.append(_key(name, value, options))
        except ValueError as error:
            raise ValueError(f"entry {place}: {error}") from None
    if text.strip() and not keys:
        raise ValueError("it holds no key")
    return _checked_keys(keys)


def parse_file(data: bytes) -> tuple[Key, ...]:
    """Read a keys file: an entry of `parse_keys` a line, each with a name and a hash.

    Empty lines and those that begin with `#` are skipped.

    Raises:
        ValueError: It is no such file; the message names the line and holds no part of a key.
    """
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    keys = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        written, *options = line.split()
        name, _, value = written.partition("=")
        try:
            if not _HASH.fullmatch(value):
                raise ValueError(
                    "it is not of the form name=sha256:<64 hex digits>; "
                    "`speech-gateway keys new` makes one"
                )
            keys.append(_key(name, value, options))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    return _checked_keys(keys)


def _key(name: str, value: str, options: Iterable[str]) -> Key:
    """The key of an entry's parts."""
    given: dict[str, float] = {}
    admin = False
    for word in options:
        option, _, number = word.partition("=")
        if word == "admin":
            admin = True
        elif option in _OPTIONS and _NUMBER.fullmatch(number):
            given[option] = float(number)
        else:
            raise ValueError(f"after the key come `admin` or {', '.join(_OPTIONS)} with a number")
    return Key(_checked_name(name), _digest(value), admin, Limits(**given))


def read_key_file(path: Path) -> bytes:
    """The bytes of a keys file.

    Raises:
        ValueError: It cannot be read, is no plain file or too large.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe can be read only once, and may block
            raise ValueError(f"{path} is not a plain file")
        with path.open("rb") as file:
            data = file.read(MOST_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > MOST_FILE_BYTES:
        raise ValueError(f"{path} is above {MOST_FILE_BYTES} bytes")
    return data


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name) or name == ANONYMOUS:
        raise ValueError(
            "a key's name has 1 to 64 letters, digits, dots, dashes and underscores, "
            f"begins with a letter or digit and is not {ANONYMOUS!r}"
        )
    return name


def _digest(value: str) -> bytes:
    match = _HASH.fullmatch(value)
    if match is not None:
        return bytes.fromhex(match[1])
    # A key of nothing but `=` is a name whose key was forgotten.
    if len(value) > LONGEST_KEY_CHARACTERS or not re.fullmatch(r"=*[!-<>-~][!-~]*", value):
        raise ValueError(
            f"a key has 1 to {LONGEST_KEY_CHARACTERS} ASCII characters, none of them a space"
        )
    return digest_of(value.encode())


def _checked_keys(keys: Iterable[Key]) -> tuple[Key, ...]:
    checked = tuple(keys)
    if len(checked) > MOST_KEYS:
        raise ValueError(f"there are more than {MOST_KEYS} keys")
    if len({key.digest for key in checked}) < len(checked):
        raise ValueError("a key stands twice")
    rights: dict[str, tuple[bool, Limits]] = {}
    for key in checked:
        if rights.setdefault(key.name, (key.admin, key.limits)) != (key.admin, key.limits):
            raise ValueError(f"the keys named {key.name!r} differ in rights or limits")
    return checked


class KeyRing:
    """The keys in force; the file among them is read again when it changes.

    Args:
        keys: Those that stay as long as the process.
        path: The keys file, or None.
        now: The clock, in seconds.

    Raises:
        ValueError: The file cannot be read at the start.
    """

    def __init__(
        self,
        keys: Iterable[Key] = (),
        path: Path | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fixed = tuple(keys)
        self._path = path
        self._now = now
        self._data = b""
        self._looked_at = now()
        self._complaint = ""
        if path is not None:
            self._data = read_key_file(path)
        self.keys = _checked_keys((*self._fixed, *parse_file(self._data)))

    @property
    def names(self) -> frozenset[str]:
        """The names of all keys."""
        return frozenset(key.name for key in self.keys)

    @property
    def has_admins(self) -> bool:
        """Whether any key is an administrator's."""
        return any(key.admin for key in self.keys)

    def find(self, shown: bytes) -> Key | None:
        """The key that a client shows.

        All keys are compared with, whether one has fitted or not, and by digests of one length:
        the time that it takes tells nothing about any of them.

        Args:
            shown: Bytes as they came.
        """
        found = None
        if len(shown) <= LONGEST_KEY_CHARACTERS:
            digest = digest_of(shown)
            for key in self.keys:
                if hmac.compare_digest(key.digest, digest):
                    found = key
        return found

    def reload(self) -> bool:
        """Read the file again if it has changed; at most once a second.

        A file that is gone, empty or wrong leaves the keys as they are: it may be half written.
        To take all keys back, leave a comment in it.

        Returns:
            Whether the keys have changed.
        """
        if self._path is None or self._now() - self._looked_at < RELOAD_SECONDS:
            return False
        self._looked_at = self._now()
        try:
            data = read_key_file(self._path)
            if data == self._data:
                return False
            if not data.strip():
                raise ValueError(f"{self._path} is empty")
            self.keys = _checked_keys((*self._fixed, *parse_file(data)))
        except ValueError as error:
            self._complain(str(error))
            return False
        self._data, self._complaint = data, ""
        logger.info("the keys file was read again: %d keys are in force", len(self.keys))
        return True

    def _complain(self, what: str) -> None:
        """Log what is wrong with the file, once."""
        if what != self._complaint:
            logger.error("the keys file is not taken, the keys before it stay: %s", what)
        self._complaint = what
