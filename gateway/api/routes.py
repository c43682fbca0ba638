"""What a path is, declared once: a `Route`, or `get` and the like, beside the code that answers it.

The dispatcher, the access check, the log and the OpenAPI document all read this one declaration.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.access.policy import ADMIN, SPEECH, VOICE_CHANGES
from gateway.api.error_bodies import OPENAI, Surface
from gateway.audio.encoders import ENCODERS
from gateway.errors import GatewayError, MethodNotAllowed, RouteNotFound

SHOWN_PATH_CHARACTERS = 256
_SLASHES = re.compile("//+")
BodySchema = type[BaseModel] | Mapping[str, Any] | Callable[[], Mapping[str, Any]]
Json = Mapping[str, Any] | Sequence[Any]  # the body of an answer
Handler = Callable[..., Awaitable[Response | Json]]
JSON = "application/json"
REFERENCE = "#/components/schemas/{model}"  # to a schema of the OpenAPI document
EVENTS_TYPE = "text/event-stream"
AUDIO_TYPES = tuple(encoder.content_type for encoder in ENCODERS.values())


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path.

    Attributes:
        method: GET (which answers HEAD, too), POST and so on.
        path: With parameters in braces, as Starlette writes them.
        endpoint: A coroutine function from a request, and the parameters of its path by name, to a
            response, or to the JSON of a good one; or an ASGI application.
        surface: Whose errors it speaks.
        group: What a client must be allowed to do; see `gateway.access.policy`.
        summary: For the OpenAPI document.
        bodies: What it reads, by content type: a model, a schema, or what makes a schema.
        query: What its query may hold, or None.
        produces: Content types of a good answer.
        description: More for the OpenAPI document.
    """

    method: str
    path: str
    endpoint: Handler | ASGIApp
    surface: Surface
    group: str
    summary: str
    bodies: Mapping[str, BodySchema] = field(default_factory=dict)
    query: type[BaseModel] | None = None
    produces: tuple[str, ...] = (JSON,)
    description: str = ""

    def application(self) -> ASGIApp:
        """The endpoint as an ASGI application."""
        if "scope" in inspect.signature(self.endpoint).parameters:
            return cast("ASGIApp", self.endpoint)
        handler = cast("Handler", self.endpoint)

        async def respond(scope: Scope, receive: Receive, send: Send) -> None:
            answer = await handler(Request(scope, receive, send), **scope["path_params"])
            response = answer if isinstance(answer, Response) else JSONResponse(answer)
            await response(scope, receive, send)

        return respond


Method = TypeVar("Method", bound=Callable[..., object])


def declare(
    method: str,
    path: str,
    group: str,
    summary: str,
    *,
    check: Callable[[Scope], None] | None = None,
    **more: Any,
) -> Callable[[Method], Method]:
    """Declares a surface's method as what answers a path; arguments as those of `Route`.

    With a `check`, the method reads a request for speech, behind this look at its head, and the
    answer is what it reads, spoken: see `SpeechSurface.endpoint`.
    """

    def declared(handler: Method) -> Method:
        fields = {"method": method, "group": group, "summary": summary, **more}
        vars(handler).setdefault("declared", []).append((path, check, fields))
        return handler

    return declared


get, post = partial(declare, "GET"), partial(declare, "POST")
put, patch, delete = partial(declare, "PUT"), partial(declare, "PATCH"), partial(declare, "DELETE")


def declared_routes(
    owner: Any,
    surface: Surface,
    paths_of: Callable[[str], Iterable[str]] = lambda path: (path,),
) -> list[Route]:
    """The routes that the methods of an object are declared for.

    Args:
        owner: Its methods are the endpoints.
        surface: Whose errors they speak, where the declaration does not say otherwise.
        paths_of: All names of a declared path.
    """
    routes = []
    for name, handler in vars(type(owner)).items():
        for declared, check, fields in getattr(handler, "declared", ()):
            method = getattr(owner, name)
            endpoint = owner.endpoint(method, check) if check else method
            common = {"endpoint": endpoint, "surface": surface, **fields}
            routes += [Route(path=path, **common) for path in paths_of(declared)]
    return routes


@dataclass(frozen=True, slots=True)
class FoundRoute:
    """What a request asks for.

    Attributes:
        surface: Whose errors it is answered with.
        group: What the client must be allowed to do.
        application: Answers it; or raises that there is no such route.
        path_params: Of the path, by name.
    """

    surface: Surface
    group: str
    application: ASGIApp
    path_params: Mapping[str, Any] = field(default_factory=dict)


class RouteTable:
    """All routes of the gateway.

    Args:
        routes: Of two with one method and path, the first holds; a path without parameters goes
            before one with.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._fixed: dict[str, dict[str, FoundRoute]] = {}
        self._patterns: dict[str, tuple[re.Pattern[str], dict[str, FoundRoute]]] = {}
        self._surfaces: dict[str, tuple[Surface, str]] = {}  # by the beginnings of paths
        for route in routes:
            found = FoundRoute(route.surface, route.group, route.application())
            if "{" in route.path:
                pattern = compile_path(route.path)[0]
                methods = self._patterns.setdefault(route.path, (pattern, {}))[1]
            else:
                methods = self._fixed.setdefault(route.path, {})
            for method in (route.method, "HEAD") if route.method == "GET" else (route.method,):
                methods.setdefault(method, found)
            for beginning in _beginnings(route.path.partition("{")[0].rstrip("/") or "/"):
                self._surfaces.setdefault(beginning, (route.surface, route.group))

    def find(self, method: str, path: str) -> FoundRoute:
        """What answers a request; doubled slashes are one, and one at the end is none."""
        shown = path[:SHOWN_PATH_CHARACTERS]
        path = _SLASHES.sub("/", path).rstrip("/") or "/"
        others: dict[str, FoundRoute] = {}
        if methods := self._fixed.get(path):
            if found := methods.get(method):
                return found
            others |= methods
        for pattern, methods in self._patterns.values():
            if match := pattern.match(path):
                if found := methods.get(method):
                    return FoundRoute(
                        found.surface, found.group, found.application, match.groupdict()
                    )
                others |= methods
        surface, group = next(
            (self._surfaces[each] for each in _beginnings(path) if each in self._surfaces),
            (OPENAI, SPEECH),
        )
        # What is not there is told to those alone who may do such things.
        groups = {group} if group == ADMIN else {found.group for found in others.values()}
        group = next((each for each in (ADMIN, VOICE_CHANGES) if each in groups), SPEECH)
        error: GatewayError = RouteNotFound(f"There is no route {shown}.")
        if others:
            error = MethodNotAllowed(f"{shown} does not take the method {method[:16]}.", others)
        return FoundRoute(surface, group, _raising(error))


def _beginnings(path: str) -> list[str]:
    """A path and the paths above it, the longest first: `/a/b`, `/a`."""
    parts = path.split("/")
    return ["/".join(parts[:count]) or "/" for count in range(len(parts), 1, -1)]


def _raising(error: GatewayError) -> ASGIApp:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive, send
        raise error

    return refuse
