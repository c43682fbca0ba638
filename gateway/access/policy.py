"""The access rules: the groups of routes, and the key that each group needs.

Each route says its group; what a group needs is a pure function of the keys there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

# The groups of routes; the first six as the settings name them.
HEALTH = "health"
METRICS = "metrics"
STATS = "stats"
DOCS = "docs"
VOICES = "voices"  # lists of voices and models
SPEECH = "speech"
JOBS = "jobs"  # long texts and what they say
RECORDINGS = "recordings"
VOICE_CHANGES = "voice changes"
ADMIN = "admin"


_KEY_HEADERS = (b"authorization", b"x-api-key", b"api-key")


class Need(Enum):
    """The condition under which a request is let through."""

    NOTHING = "nothing"
    KEY = "a key"
    ADMIN_KEY = "an admin key"
    OWN_ORIGIN = "no web page of another origin"
    ABSENT = "there is no such route"
    OFF = "switched off"


@dataclass(frozen=True, slots=True)
class Policy:
    """The access settings, as a decision table.

    Attributes:
        guarded: Keys are configured, so that speech needs one.
        has_admins: Some key is an administrator's.
        public: Groups that need no key all the same.
        voice_changes: Who may change voices, as GATEWAY_VOICE_CHANGES says.
    """

    guarded: bool
    has_admins: bool
    public: frozenset[str] = frozenset({HEALTH})
    voice_changes: Literal["admin", "open", "off"] = "open"

    def need(self, group: str) -> Need:
        """The condition for a group's requests."""
        if group in self.public:
            return Need.NOTHING
        if group == ADMIN:
            return Need.ADMIN_KEY if self.has_admins else Need.ABSENT
        if group == VOICE_CHANGES and self.voice_changes != "open":
            return Need.OFF if self.voice_changes == "off" else Need.ADMIN_KEY
        if self.guarded:
            return Need.KEY
        # Any page that the user visits can send requests to this machine.
        private = group in {VOICE_CHANGES, RECORDINGS, JOBS}
        return Need.OWN_ORIGIN if private else Need.NOTHING


def credentials_of(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """The keys that a request shows: `Authorization: Bearer`, `X-API-Key` and `api-key`.

    A header that comes twice is not taken: a proxy may have looked at the other one.

    Args:
        headers: Pairs of name (lower case) and value, as ASGI has them.
    """
    given: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _KEY_HEADERS:
            given[name] = b"" if name in given else value
    scheme, _, key = given.get(b"authorization", b"").partition(b" ")
    shown = [key] if scheme.lower() == b"bearer" else []
    shown += [given.get(b"x-api-key", b""), given.get(b"api-key", b"")]
    return list(filter(None, map(bytes.strip, shown)))
