"""The check of every request: its caller, and what the caller may do."""

from __future__ import annotations

from dataclasses import replace

from starlette.datastructures import Headers
from starlette.types import Scope

from gateway.access.keys import Key, KeyRing
from gateway.access.loopback import is_cross_origin
from gateway.access.policy import JOBS, SPEECH, Need, Policy, credentials_of
from gateway.access.rate_limits import CALLER, Caller, Callers, Limits
from gateway.errors import AuthenticationFailed, PermissionDenied, RouteNotFound
from gateway.telemetry.metrics import Metrics


class AccessControl:
    """Authenticates requests and applies the policy to them.

    Args:
        keys: The keys in force.
        policy: The access settings; `has_admins` follows the keys file.
        limits: What every caller has a minute.
        replicas: Gateways that share the limits.
        hosts: Names of this machine, besides loopback names and addresses.
        metrics: Where refusals are counted.

    Attributes:
        callers: Who has asked, with what is left of their limits.
        policy: The one in force; a change of the keys file changes it.
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
        self.policy = replace(policy, has_admins=keys.has_admins)
        self._keys = keys
        self._hosts = hosts

    def admit(self, scope: Scope, group: str) -> None:
        """Let a request in, and charge its caller; `CALLER` is the caller from now on.

        Args:
            scope: The request.
            group: Of its route.

        Raises:
            AuthenticationFailed: The group needs a key, and the request shows none that is known.
            PermissionDenied: Its caller may not do this.
            RouteNotFound: No admin key is configured, so that there is no /admin.
            RateLimited: Its caller has had its share of this minute.
        """
        if self._keys.reload():
            self.callers.keep(self._keys.names)
            self.policy = replace(self.policy, has_admins=self._keys.has_admins)
        shown = credentials_of(scope["headers"])
        key = next(filter(None, map(self._keys.find, shown)), None)
        need = self.policy.need(group)
        if need is not Need.KEY or key is None:
            self._check(need, key, scope)
        caller: Caller = self.callers.get(key.name, key.limits) if key else self.callers.get()
        CALLER.set(caller)
        if scope["method"] == "POST" and group in {SPEECH, JOBS}:
            caller.charge_request()

    def _check(self, need: Need, key: Key | None, scope: Scope) -> None:
        if key is None and (
            need in {Need.KEY, Need.ADMIN_KEY} or (need is Need.ABSENT and self.policy.guarded)
        ):
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
                "Without keys, this gateway refuses voice changes, recordings and jobs to web "
                "pages of other origins, and under a host name that is not this machine's."
            )
