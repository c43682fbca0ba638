"""Checks every request's key against what its path needs, before any of its body is read."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.access.keys import Key, KeyRing
from gateway.access.loopback import is_cross_origin
from gateway.access.policy import Need, Policy, credentials_of, group_of
from gateway.access.rate_limits import CALLER, Caller, Callers, Limits
from gateway.api.error_bodies import shape_of
from gateway.errors import (
    AuthenticationFailed,
    GatewayError,
    PermissionDenied,
    RouteNotFound,
    outcome_of,
)
from gateway.telemetry.metrics import Metrics

DISCARD_SECONDS = 5.0  # a client that is refused mid-upload gets this long to hear why
SMALL_BODY_BYTES = 64 * 1024


class Door:
    """Knows the callers and lets them in.

    Args:
        keys: The keys in force.
        policy: What the operator has decided; `has_admins` follows the keys file.
        limits: What every caller has a minute.
        replicas: Gateways that share the limits.
        hosts: Names of this machine, besides loopback names and addresses.
        metrics: Where refusals are counted.
    """

    def __init__(
        self,
        keys: KeyRing,
        policy: Policy,
        *,
        limits: Limits,
        replicas: int,
        hosts: frozenset[str],
        metrics: Metrics,
    ) -> None:
        self.callers = Callers(limits, metrics, replicas=replicas)
        self._keys = keys
        self._policy = policy
        self._hosts = hosts

    @property
    def policy(self) -> Policy:
        """What holds now; the keys file may have changed it."""
        return replace(self._policy, has_admins=self._keys.has_admins)

    def caller_of(self, scope: Scope) -> Caller:
        """Who makes a request.

        Raises:
            AuthenticationFailed: Its path needs a key, and it shows none that is known.
            PermissionDenied: It may not do this.
            RouteNotFound: No admin key is configured, so that there is no /admin.
        """
        if self._keys.reload():
            self.callers.keep(self._keys.names)
        shown = credentials_of(scope["headers"])
        key = next(filter(None, map(self._keys.find, shown)), None)
        self._check(self.policy.need(group_of(scope["method"], scope["path"])), key, scope)
        return self.callers.get(key.name, key.limits) if key else self.callers.get()

    def _check(self, need: Need, key: Key | None, scope: Scope) -> None:
        keyed = need in {Need.KEY, Need.ADMIN_KEY} or (need is Need.ABSENT and self._policy.guarded)
        if keyed and key is None:
            raise AuthenticationFailed(
                "The API key is not valid."
                if credentials_of(scope["headers"])
                else "An API key is needed: send it as 'Authorization: Bearer KEY'."
            )
        if need is Need.ADMIN_KEY and key is not None and not key.admin:
            raise PermissionDenied("This needs an admin key.")
        if need is Need.ABSENT:
            raise RouteNotFound(f"There is no route {scope['path'][:256]}.")
        if need is Need.OFF:
            raise PermissionDenied("Voices cannot be changed here (GATEWAY_VOICE_CHANGES=off).")
        if need is Need.OWN_ORIGIN and is_cross_origin(Headers(scope=scope), self._hosts):
            raise PermissionDenied(
                "Without keys, this gateway refuses voice changes and recordings to web pages of "
                "other origins, and under a host name that is not this machine's."
            )


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
