"""One declaration of a route: what is mounted is what is described, and how paths are found."""

from __future__ import annotations

import inspect
import re

import httpx
import pytest

from tests.running import Gateway

METHODS = {"get", "post", "put", "patch", "delete"}


def test_the_document_describes_exactly_what_is_mounted(gateway: Gateway) -> None:
    """Every route, and no other; each answers its method with something else than 404 and 405."""
    document = httpx.get(gateway.url + "/openapi.json").json()
    described = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item
    }
    mounted = {(route.method, re.sub(r":path\}", "}", route.path)) for route in gateway.routes}
    assert described == mounted
    for method, path in described:
        # Without an admin key, /admin hides itself.
        if method in {"GET", "POST"} and "{" not in path and not path.startswith("/admin"):
            answer = httpx.request(method, gateway.url + path)
            assert answer.status_code not in {404, 405}, (method, path)


def test_what_answers_a_path_takes_its_parameters_and_no_others(gateway: Gateway) -> None:
    """They are handed to it by name: another name in its signature would be an internal error."""
    for route in gateway.routes:
        _, *taken = inspect.signature(route.endpoint).parameters
        if taken != ["receive", "send"]:  # an ASGI application
            assert set(taken) == set(re.findall(r"\{(\w+)", route.path)), route.path


def test_a_surface_that_is_off_is_neither_mounted_nor_described(engine: str) -> None:
    """A client that reads the document is told of nothing that it would not find."""
    from tests.running import running_gateway  # noqa: PLC0415

    with running_gateway(upstreams=engine, surfaces="generate") as gateway:
        paths = httpx.get(gateway.url + "/openapi.json").json()["paths"]
        assert "/generate" in paths
        assert not [path for path in paths if path.startswith(("/v1", "/voices", "/tts"))]
        assert httpx.get(gateway.url + "/v1/models").status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models/"),
        ("GET", "//v1//models"),
        ("GET", "/health//"),
        ("POST", "/v1/audio/speech/"),
        ("POST", "//v1/audio///speech"),
        ("GET", "/v1/models/tts-1/"),
    ],
)
def test_doubled_and_trailing_slashes_are_taken_without_a_redirect(
    gateway: Gateway, method: str, path: str
) -> None:
    """Base addresses with a slash too many are common; a redirect would lose the body."""
    body = {"model": "tts-1", "input": "Hello.", "voice": "mabel"} if method == "POST" else None
    assert httpx.request(method, gateway.url + path, json=body).status_code == 200


def test_a_page_in_the_private_network_may_ask(gateway: Gateway) -> None:
    """Chromium asks before a page of the internet reaches a machine of the local network."""
    answer = httpx.options(
        gateway.url + "/v1/audio/speech/",
        headers={
            "Origin": "http://localhost:3000",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Private-Network": "true",
        },
    )
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-private-network"] == "true"
