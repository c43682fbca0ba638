"""What a request must show, decided without a socket."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from starlette.datastructures import Headers

from gateway.access.loopback import is_cross_origin
from gateway.access.policy import Need, Policy, credentials_of
from gateway.api.routes import RouteTable
from gateway.commands.serve import check_exposure
from gateway.settings import SettingsError, load_settings
from tests.asking import KEY
from tests.running import running_gateway


@pytest.fixture(scope="module")
def table() -> Iterator[RouteTable]:
    """All routes of a gateway with every surface."""
    with running_gateway(upstreams="http://127.0.0.1:9", ready=False) as gateway:
        yield RouteTable(gateway.routes)


EVERYTHING = (
    *("health", "metrics", "stats", "docs", "voices", "speech"),
    *("recordings", "jobs", "voice changes", "admin"),
)


@pytest.mark.parametrize(
    ("method", "path", "group"),
    [
        ("GET", "/", "health"),
        ("HEAD", "/health", "health"),
        ("GET", "/ready", "health"),
        ("POST", "/health", "speech"),
        ("GET", "/metrics", "metrics"),
        ("GET", "/metrics/", "metrics"),
        ("GET", "//v1//models/", "voices"),
        ("GET", "/metrics/more", "speech"),
        ("POST", "//admin/upstreams/drain", "admin"),
        ("GET", "/openapi.json", "docs"),
        ("GET", "/v1/models/tts-1", "voices"),
        ("GET", "/v1/audio/voices", "voices"),
        ("GET", "/voices/anna/download", "recordings"),
        ("POST", "/v1/audio/voices", "voice changes"),
        ("DELETE", "/v1/audio/voices/some", "voice changes"),
        ("PUT", "/voices/some", "voice changes"),
        ("POST", "/v1/voices/default", "voice changes"),
        ("POST", "/voice-library", "voice changes"),
        ("POST", "/upload_reference", "voice changes"),
        ("POST", "/status/history/clear", "voice changes"),
        ("GET", "/admin", "admin"),
        ("POST", "/admin/upstreams/0/drain", "admin"),
        ("POST", "/admin/line\nbreak", "admin"),
        ("POST", "/administration", "speech"),
        ("POST", "/v1/audio/speech", "speech"),
        ("POST", "/tts", "speech"),
        ("POST", "/v1/audio/jobs", "jobs"),
        ("GET", "/v1/audio/jobs/some/download", "jobs"),
        ("PUT", "/audio/speech/long/some/pause", "jobs"),
        ("GET", "/nothing/here", "speech"),
    ],
)
def test_every_path_is_about_something(
    table: RouteTable, method: str, path: str, group: str
) -> None:
    """What is not there needs a key like speech."""
    assert table.find(method, path).group == group


NOTHING, ANY, ADMIN_KEY, ABSENT = Need.NOTHING, Need.KEY, Need.ADMIN_KEY, Need.ABSENT
OWN, OFF = Need.OWN_ORIGIN, Need.OFF


@pytest.mark.parametrize(
    ("policy", "needs"),
    [
        (Policy(False, False), [NOTHING] * 6 + [OWN, OWN, OWN, ABSENT]),
        (Policy(False, False, voice_changes="off"), [NOTHING] * 6 + [OWN, OWN, OFF, ABSENT]),
        (Policy(True, False, voice_changes="admin"), [NOTHING] + [ANY] * 7 + [ADMIN_KEY, ABSENT]),
        (Policy(True, True, voice_changes="admin"), [NOTHING] + [ANY] * 7 + [ADMIN_KEY] * 2),
        (Policy(True, True, voice_changes="open"), [NOTHING] + [ANY] * 8 + [ADMIN_KEY]),
        (
            Policy(True, True, frozenset({"metrics", "voices"}), "off"),
            [ANY, NOTHING, ANY, ANY, NOTHING, ANY, ANY, ANY, OFF, ADMIN_KEY],
        ),
    ],
)
def test_what_a_request_must_show_follows_from_the_keys_there_are(
    policy: Policy, needs: list[Need]
) -> None:
    """No keys, keys, admin keys, and what the operator opens or closes."""
    assert [policy.need(group) for group in EVERYTHING] == needs


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        ([(b"authorization", b"Bearer k")], [b"k"]),
        ([(b"authorization", b"bEARER   k ")], [b"k"]),
        ([(b"x-api-key", b"k")], [b"k"]),
        ([(b"api-key", b"k")], [b"k"]),
        ([(b"authorization", b"Basic k"), (b"x-api-key", b"j")], [b"j"]),
        ([(b"authorization", b"Bearer k"), (b"x-api-key", b"j")], [b"k", b"j"]),
        ([(b"authorization", b"Bearer k"), (b"authorization", b"Bearer k")], []),
        ([(b"x-api-key", b"k"), (b"x-api-key", b"j")], []),
        ([(b"authorization", b"Bearer ")], []),
        ([(b"authorization", b"Bearer")], []),
        ([(b"authorization", b"k")], []),
        ([(b"authorization", b"")], []),
        ([(b"cookie", b"authorization=Bearer k")], []),
    ],
)
def test_a_key_is_shown_in_one_of_three_headers(
    headers: list[tuple[bytes, bytes]], shown: list[bytes]
) -> None:
    """The scheme's case does not matter; a header that comes twice counts as none."""
    assert credentials_of(headers) == shown


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({"host": "127.0.0.1:8888"}, False),
        ({"host": "localhost"}, False),
        ({"host": "LOCALHOST.:8888"}, False),
        ({"host": "[::1]:8888"}, False),
        ({"host": "192.0.2.7:8888"}, False),
        ({"host": "studio:8888"}, False),
        ({"host": "localhost", "sec-fetch-site": "none"}, False),
        ({"host": "localhost:8888", "origin": "http://localhost:8888"}, False),
        ({"host": "localhost:8888", "origin": "http://localhost:8888",
          "sec-fetch-site": "same-origin"}, False),
        ({"host": "127.0.0.1", "origin": "http://127.0.0.1:4321",
          "sec-fetch-site": "same-origin"}, False),  # through nginx with `Host $host`
        ({"host": "evil.example:8888"}, True),
        ({"host": "127.0.0.1.evil.example"}, True),
        ({"host": "localhost.evil.example"}, True),
        ({"host": "evil.example:8888", "origin": "http://evil.example:8888",
          "sec-fetch-site": "same-origin"}, True),
        ({"host": "user@evil.example"}, True),
        ({"host": "[::1"}, True),
        ({"host": ""}, True),
        ({}, True),
        ({"host": "localhost:8888", "origin": "http://evil.example"}, True),
        ({"host": "localhost:8888", "origin": "http://localhost:3000"}, True),
        ({"host": "localhost:8888", "origin": "null"}, True),
        ({"host": "localhost:8888", "sec-fetch-site": "cross-site"}, True),
        ({"host": "localhost:8888", "origin": "chrome-extension://abc",
          "sec-fetch-site": "none"}, True),
        ({"host": "localhost:8888", "sec-fetch-site": "same-site"}, True),
    ],
)  # fmt: skip
def test_a_web_page_of_another_origin_is_known_by_its_headers(
    headers: dict[str, str],
    foreign: bool,  # noqa: FBT001
) -> None:
    """Also where its name was made to resolve to this machine."""
    assert is_cross_origin(Headers(headers), {"studio"}) is foreign


@pytest.mark.parametrize(
    ("path", "surface"),
    [
        ("/generate", "generate"),
        ("/generate/batch", "generate"),
        ("/generate/nothing", "generate"),
        ("/stats", "generate"),
        ("/", "operations"),
        ("/metrics", "operations"),
        ("/admin/x", "operations"),
        ("/voices/nobody", "chatterbox"),
        ("/voices/nobody/nothing/at/all", "chatterbox"),
        ("/v1/audio/speech", "openai"),
        ("/no\nthing", "openai"),
        ("", "operations"),
    ],
)
def test_every_path_has_one_shape(table: RouteTable, path: str, surface: str) -> None:
    """What is not there has the shape of what is above it, else OpenAI's."""
    assert table.find("POST", path).surface.name == surface


EXPOSED: list[dict[str, str]] = [
    {"host": "0.0.0.0"},
    {"host": "::"},
    {"host": "192.0.2.7"},
    {"host": "gateway.example"},
    {"published_address": "0.0.0.0"},
    {"host": "::", "api_keys": KEY, "public_routes": "speech"},
]


@pytest.mark.parametrize("settings", EXPOSED)
def test_an_open_gateway_beyond_this_machine_does_not_start_unless_it_is_allowed(
    settings: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody opens their GPU to the world by accident."""
    with pytest.raises(SettingsError, match=r"keys new.*GATEWAY_ALLOW_ANONYMOUS"):
        check_exposure(load_settings(**settings))
    check_exposure(load_settings(**settings, allow_anonymous=True))
    # Other tests' gateways log in threads of this process.
    told = [record.levelno for record in caplog.records if record.name == "gateway.serve"]
    assert told == [logging.WARNING]
    assert "ANYBODY" in caplog.text


@pytest.mark.parametrize(
    "settings",
    [
        {"host": "::", "api_keys": KEY},
        {"host": "127.0.0.1"},
        {"host": "localhost"},
        {"host": "::1"},
        {"host": "0.0.0.0", "published_address": "127.0.0.1"},
    ],
)
def test_a_gateway_with_keys_or_on_this_machine_alone_starts_in_silence(
    settings: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Also in a container whose port is published on loopback."""
    check_exposure(load_settings(**settings))
    assert caplog.records == []
