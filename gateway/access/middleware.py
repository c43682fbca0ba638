"""The door: every request shows its key here, before any of its body is read.

What a path needs is a table, whether a key is enough a pure function; what is not named in the
table needs a key like speech itself.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.access.keys import Key, KeyRing
from gateway.access.loopback import is_local
from gateway.access.rate_limits import CALLER, Caller, Callers, Limits
from gateway.api.error_bodies import shape_of
from gateway.errors import AuthenticationFailed, GatewayError, PermissionDenied, outcome_of
from gateway.telemetry.metrics import Metrics

DISCARD_SECONDS = 5.0  # a client that is refused mid-upload gets this long to hear why
SMALL_BODY_BYTES = 64 * 1024

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
    LOOPBACK = "a client on this machine"


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator has decided.

    Attributes:
        guarded: Keys are configured, so that speech needs one.
        has_admins: Some key is an administrator's.
        open_groups: Groups that need no key all the same.
        admin_groups: Groups that need an admin key.
    """

    guarded: bool
    has_admins: bool
    open_groups: frozenset[str] = frozenset({"health"})
    admin_groups: frozenset[str] = frozenset()

    def need(self, group: str) -> Need:
        """What a group's requests must show."""
        if group in self.open_groups:
            return Need.NOTHING
        if group == "admin" or group in self.admin_groups:
            # Without any key there is nobody to tell an administrator by but the machine itself.
            keyed = self.guarded or self.has_admins
            return Need.ADMIN_KEY if keyed else Need.LOOPBACK
        if group == "voice changes" and self.has_admins:
            return Need.ADMIN_KEY
        return Need.KEY if self.guarded else Need.NOTHING


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


class Door:
    """Knows the callers and lets them in.

    Args:
        keys: The keys in force.
        guarded: Speech needs a key, even if none is left.
        open_groups: Groups that need no key.
        admin_groups: Groups that need an admin key.
        limits: What every caller has a minute.
        replicas: Gateways that share the limits.
        metrics: Where refusals are counted.
    """

    def __init__(
        self,
        keys: KeyRing,
        *,
        guarded: bool,
        open_groups: Iterable[str],
        admin_groups: Iterable[str],
        limits: Limits,
        replicas: int,
        metrics: Metrics,
    ) -> None:
        self.callers = Callers(limits, metrics, replicas=replicas)
        self._keys = keys
        self._guarded = guarded
        self._open_groups = frozenset(open_groups)
        self._admin_groups = frozenset(admin_groups)

    @property
    def policy(self) -> Policy:
        """What holds now; the keys file may have changed it."""
        return Policy(self._guarded, self._keys.has_admins, self._open_groups, self._admin_groups)

    def caller_of(self, scope: Scope) -> Caller:
        """Who makes a request.

        Raises:
            AuthenticationFailed: Its path needs a key, and it shows none that is known.
            PermissionDenied: It may not do this.
        """
        if self._keys.reload():
            self.callers.keep(self._keys.names)
        shown = credentials_of(scope["headers"])
        key = next(filter(None, map(self._keys.find, shown)), None)
        self._check(self._need(scope), key, scope, bool(shown))
        return self.callers.get(key.name, key.limits) if key else self.callers.get()

    def _need(self, scope: Scope) -> Need:
        return self.policy.need(group_of(scope["method"], scope["path"]))

    @staticmethod
    def _check(need: Need, key: Key | None, scope: Scope, shown: bool) -> None:  # noqa: FBT001
        if need is Need.LOOPBACK and not is_local(scope):
            raise PermissionDenied("Without an admin key, this is only for clients on the machine.")
        if need in {Need.KEY, Need.ADMIN_KEY} and key is None:
            raise AuthenticationFailed(
                "The API key is not valid."
                if shown
                else "An API key is needed: send it as 'Authorization: Bearer KEY'."
            )
        if need is Need.ADMIN_KEY and key is not None and not key.admin:
            raise PermissionDenied("This needs an admin key.")


class AccessMiddleware:
    """Lets requests in, or refuses them in the shape of their surface.

    It stands inside of what adds request ids and CORS headers, so that refusals have them too; a
    browser's preflight, which never shows a key, is answered there already.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on as its caller's, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        runtime = scope["app"].state.runtime
        caller = None
        try:
            caller = runtime.door.caller_of(scope)
            CALLER.set(caller)
            if scope["method"] == "POST" and group_of("POST", scope["path"]) == "speech":
                caller.charge_request()
        except GatewayError as error:
            metrics: Metrics = runtime.metrics
            surface = shape_of(scope["path"]).surface
            metrics.requests.labels(surface, outcome_of(error)).inc()
            await refuse(error, caller.headers() if caller else {}, scope, receive, send)
            return

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(caller.headers())
            await send(message)

        await self._app(scope, receive, send_with_limits)


def brings_much(scope: Scope) -> bool:
    """Whether a request's body may be too long to read just to keep the connection."""
    headers = Headers(scope=scope)
    declared = headers.get("content-length", "0")
    small = declared.isdecimal() and int(declared[:20]) <= SMALL_BODY_BYTES
    return not small or "transfer-encoding" in headers


async def refuse(
    error: GatewayError, headers: Mapping[str, str], scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer at once, whatever of the body is still to come.

    The answer is complete for the client; the connection is kept for a moment while the rest is
    thrown away, as closing it on unread bytes would reset it under a client that has not read yet.
    """
    response = shape_of(scope["path"]).render(error)
    response.headers.update(headers)
    if isinstance(error, AuthenticationFailed):
        response.headers["WWW-Authenticate"] = "Bearer"  # RFC 9110 section 11.6.1
    if not brings_much(scope):  # the HTTP server reads past it
        await response(scope, receive, send)
        return
    response.headers["Connection"] = "close"
    await send(
        {"type": "http.response.start", "status": error.status, "headers": response.raw_headers}
    )
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    try:
        async with asyncio.timeout(DISCARD_SECONDS):
            while (await receive()).get("more_body", False):
                pass
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})
