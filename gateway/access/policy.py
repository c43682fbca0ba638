"""What a request must show: the group that its path belongs to, and what the group needs.

Pure functions over tables; a path that no row names needs a key like speech itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

_READ = {"GET", "HEAD"}
# Group, methods (None: all), paths. The first row that fits holds; the rest is speech.
_GROUPS: tuple[tuple[str, set[str] | None, re.Pattern[str]], ...] = (
    ("admin", None, re.compile(r"/admin(?:/.*)?", re.DOTALL)),
    ("health", _READ, re.compile(r"/(?:(?:v1/)?(?:health|ping)|ready|status)?")),
    ("metrics", _READ, re.compile(r"/metrics")),
    ("stats", _READ, re.compile(r"/stats")),
    ("docs", _READ, re.compile(r"/(?:docs|openapi\.json)")),
    (  # lists; a voice's recording or its consent is none, and needs a key like speech
        "voices",
        _READ,
        re.compile(
            r"(?:/v1)?/(?:models(?:/.*)?|audio/(?:models|voices)|voices|languages"
            r"|voices/all-names|voice[-_]library|get_predefined_voices|get_reference_files)",
            re.DOTALL,
        ),
    ),
    ("recordings", _READ, re.compile(r"(?:/v1)?/(?:audio/)?voices/.+/download", re.DOTALL)),
    (
        "voice changes",
        {"POST", "PUT", "PATCH", "DELETE"},
        re.compile(
            r"(?:/v1)?/(?:(?:audio/)?voices|voice[-_]library|default-voice|audio/voice_consents"
            r"|upload_reference|upload_predefined_voice|status/history|history)(?:/.*)?",
            re.DOTALL,
        ),
    ),
)


def group_of(method: str, path: str) -> str:
    """What a request is about: `speech`, or the name of a row above."""
    for group, methods, paths in _GROUPS:
        if (methods is None or method in methods) and paths.fullmatch(path):
            return group
    return "speech"


class Need(Enum):
    """What a request must show."""

    NOTHING = "nothing"
    KEY = "a key"
    ADMIN_KEY = "an admin key"
    OWN_ORIGIN = "no web page of another origin"
    ABSENT = "there is no such route"
    OFF = "nobody may"


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator has decided.

    Attributes:
        guarded: Keys are configured, so that speech needs one.
        has_admins: Some key is an administrator's.
        public: Groups that need no key all the same.
        voice_changes: Who may change voices, as GATEWAY_VOICE_CHANGES says.
    """

    guarded: bool
    has_admins: bool
    public: frozenset[str] = frozenset({"health"})
    voice_changes: Literal["admin", "open", "off"] = "open"

    def need(self, group: str) -> Need:
        """What a group's requests must show."""
        if group in self.public:
            return Need.NOTHING
        if group == "admin":
            return Need.ADMIN_KEY if self.has_admins else Need.ABSENT
        if group == "voice changes" and self.voice_changes != "open":
            return Need.OFF if self.voice_changes == "off" else Need.ADMIN_KEY
        if self.guarded:
            return Need.KEY
        # Any page that the user visits can send requests to this machine.
        private = group in {"voice changes", "recordings"}
        return Need.OWN_ORIGIN if private else Need.NOTHING


def credentials_of(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """The keys that a request shows: `Authorization: Bearer`, `X-API-Key` and `api-key`.

    A header that comes twice is not taken: a proxy may have looked at the other one.

    Args:
        headers: Pairs of name (lower case) and value, as ASGI has them.
    """
    values: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        values.setdefault(name, []).append(value)
    shown = []
    match values.get(b"authorization"):
        case [value]:
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer":
                shown.append(key.strip())
    for name in (b"x-api-key", b"api-key"):
        match values.get(name):
            case [value]:
                shown.append(value.strip())
    return [key for key in shown if key]
