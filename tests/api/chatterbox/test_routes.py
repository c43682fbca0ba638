"""Every route of both Chatterbox servers, called once: the table that clients rely on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.errors import AuthenticationFailed
from tests.api.chatterbox.conftest import RECORDING
from tests.api.chatterbox.test_long import BASE
from tests.api.chatterbox.test_long import ROUTES as LONG
from tests.running import Gateway

AUDIO = "audio"
EVENTS = "events"
SAY = {"json": {"input": "Hello."}}
SAY_FORM = {"data": {"input": "Hello."}, "files": {"voice_file": ("a.wav", RECORDING)}}
UPLOAD = {"data": {"voice_name": "anna"}, "files": {"voice_file": ("anna.wav", RECORDING)}}
FILES = {"files": [("files", ("Gianna.wav", RECORDING))]}
VOICE = {"name", "filename", "file_size", "upload_date", "language", "aliases", "exists"}
STATISTICS = {
    "total_requests",
    "completed_requests",
    "error_requests",
    "success_rate",
    "average_duration_seconds",
    "average_text_length",
    "is_processing",
}
HEALTH = {
    "status",
    "model_loaded",
    "device",
    "config",
    "memory_info",
    "initialization_state",
    "initialization_progress",
    "initialization_error",
    "vllm_healthy",
    "model",
    "stats",
}

Row = tuple[str, tuple[str, ...], dict[str, Any], int, Any]


def v1(*paths: str) -> tuple[str, ...]:
    """Paths and their twins under `/v1`."""
    return (*paths, *(f"/v1{path}" for path in paths))


# Method, paths, request, status, keys of the answer (or what else it is).
TRAVISVN: tuple[Row, ...] = (
    ("POST", ("/audio/speech", "/tts"), SAY, 200, AUDIO),
    ("POST", (*v1("/audio/speech/upload"), "/tts/upload"), SAY_FORM, 200, AUDIO),
    ("POST", (*v1("/audio/speech/stream"), "/tts/stream"), SAY, 200, AUDIO),
    ("POST", (*v1("/audio/speech/stream/upload"), "/tts/stream/upload"), SAY_FORM, 200, AUDIO),
    ("POST", ("/v1/audio/speech",), SAY, 200, AUDIO),
    ("POST", ("/audio/speech",), {"json": {**SAY["json"], "stream_format": "sse"}}, 200, EVENTS),
    ("GET", (*v1("/voices"), "/voice-library", "/voice_library"), {}, 200, {"voices", "count"}),
    ("POST", ("/voices",), UPLOAD, 201, {"message", "voice"}),
    ("POST", ("/v1/voices", "/voice-library", "/voice_library"), UPLOAD, 409, {"error"}),
    ("GET", v1("/voices/anna"), {}, 200, {"voice"}),
    ("GET", v1("/voices/nobody"), {}, 404, {"error"}),
    ("GET", v1("/voices/anna/download"), {}, 200, AUDIO),
    ("GET", v1("/voices/all-names"), {}, 200, {"voice_names", "count"}),
    (
        "POST",
        ("/voices/anna/aliases",),
        {"data": {"alias": "ann"}},
        201,
        {"message", "voice_name", "alias", "aliases"},
    ),
    ("POST", ("/v1/voices/anna/aliases",), {"data": {"alias": "ann"}}, 409, {"error"}),
    ("GET", v1("/voices/anna/aliases"), {}, 200, {"voice_name", "aliases", "count"}),
    (
        "DELETE",
        ("/voices/anna/aliases/ann",),
        {},
        200,
        {"message", "voice_name", "alias", "aliases"},
    ),
    ("DELETE", ("/v1/voices/anna/aliases/ann",), {}, 404, {"error"}),
    (
        "POST",
        (*v1("/voices/default"), "/default-voice"),
        {"data": {"voice_name": "anna"}},
        200,
        {"message", "default_voice", "voice_info"},
    ),
    (
        "GET",
        (*v1("/voices/default"), "/default-voice"),
        {},
        200,
        {"default_voice", "source", "voice_info"},
    ),
    (
        "DELETE",
        (*v1("/voices/default"), "/default-voice"),
        {},
        200,
        {"message", "default_voice", "source", "path"},
    ),
    (
        "PUT",
        v1("/voices/anna"),
        {"data": {"new_name": "anna"}},
        200,
        {"message", "old_name", "new_name"},
    ),
    ("DELETE", ("/voices/anna",), {}, 200, {"message", "voice_name"}),
    ("DELETE", ("/v1/voices/anna",), {}, 404, {"error"}),
    ("POST", v1("/voices/cleanup"), {}, 200, {"message", "removed_voices", "count"}),
    ("GET", v1("/languages"), {}, 200, {"languages", "count", "model_type"}),
    ("GET", (*v1("/health"), "/status"), {}, 200, HEALTH),
    ("GET", v1("/ping"), {}, 200, {"status", "message"}),
    ("GET", v1("/models"), {}, 200, {"object", "data"}),
    (
        "GET",
        v1("/config"),
        {},
        200,
        {"api_info", "server", "model", "defaults", "memory_management"},
    ),
    (
        "GET",
        (*v1("/endpoints"), "/routes"),
        {},
        200,
        {"total_endpoints", "total_aliases", "mappings"},
    ),
    (
        "GET",
        (*v1("/info"), "/api/info"),
        {},
        200,
        {"api_name", "version", "status", "tts_status", "statistics", "recent_requests"},
    ),
    (
        "GET",
        ("/v1/status", "/processing", "/processing/status"),
        {},
        200,
        {"status", "is_processing", "total_requests", "message"},
    ),
    ("GET", (*v1("/status/progress"), "/progress"), {}, 200, {"is_processing", "status"}),
    (
        "GET",
        (*v1("/status/history"), "/history"),
        {},
        200,
        {"request_history", "total_records", "limit"},
    ),
    ("GET", (*v1("/status/statistics"), "/stats"), {}, 200, STATISTICS),
    ("POST", v1("/status/history/clear"), {}, 200, {"message", "warning"}),
    ("GET", v1("/memory"), {}, 200, {"memory_info", "cleanup_performed"}),
    ("GET", v1("/memory/config"), {}, 200, {"memory_cleanup_interval", "memory_info"}),
    ("POST", v1("/memory/config"), {"json": {}}, 200, {"status", "message"}),
    ("GET", v1("/memory/recommendations"), {}, 200, {"memory_info", "recommendations"}),
    ("POST", v1("/memory/reset"), {}, 200, {"message", "warning"}),
)
UPDATED = {"message", "restart_needed"}
DEVNEN: tuple[Row, ...] = (
    (
        "POST",
        ("/tts",),
        {"json": {"text": "Hello.", "predefined_voice_id": "belinda.wav"}},
        200,
        AUDIO,
    ),
    (
        "POST",
        ("/v1/audio/speech",),
        {"json": {"input": "Hello.", "voice": "Mabel.wav"}},
        200,
        AUDIO,
    ),
    ("GET", ("/get_predefined_voices",), {}, 200, [{"display_name", "filename"}]),
    (
        "POST",
        ("/upload_reference",),
        FILES,
        200,
        {"message", "uploaded_files", "all_reference_files", "errors"},
    ),
    ("GET", ("/get_reference_files",), {}, 200, [str]),
    (
        "POST",
        ("/upload_predefined_voice",),
        FILES,
        200,
        {"message", "uploaded_files", "all_predefined_voices", "errors"},
    ),
    (
        "GET",
        ("/api/ui/initial-data",),
        {},
        200,
        {
            "config",
            "reference_files",
            "predefined_voices",
            "presets",
            "initial_gen_result",
            "model_info",
        },
    ),
    ("GET", ("/api/model-info",), {}, 200, {"loaded", "type", "class_name", "device"}),
    ("POST", ("/save_settings",), {"json": {"server": {"port": 1}}}, 200, UPDATED),
    ("POST", ("/reset_settings", "/restart_server", "/api/unload"), {}, 200, UPDATED),
)


def check_answer(answer: httpx.Response, status: int, expected: Any) -> None:
    """Status and shape."""
    place = f"{answer.request.method} {answer.request.url.path}"
    assert answer.status_code == status, f"{place}: {answer.text[:300]}"
    content_type = answer.headers["content-type"]
    if expected == AUDIO:
        assert content_type.startswith("audio/"), place
        assert len(answer.content) > 44, place
    elif expected == EVENTS:
        assert content_type.startswith("text/event-stream"), place
    elif isinstance(expected, list):
        body = answer.json()
        assert body, place
        for item in body:
            if expected == [str]:
                assert isinstance(item, str), place
            else:
                assert set(item) == expected[0], place
    else:
        assert expected <= set(answer.json()), place


@pytest.mark.parametrize("table", [TRAVISVN, DEVNEN], ids=["travisvn", "devnen"])
def test_every_route_answers_in_its_shape(client: httpx.Client, table: tuple[Row, ...]) -> None:
    """A client that was written for either server finds all of it, under every name."""
    for method, paths, request, status, expected in table:
        for path in paths:
            check_answer(client.request(method, path, **request), status, expected)


def test_no_route_is_missing_from_the_tables(gateway: Gateway) -> None:
    """What is mounted is called above, and what the server lists is mounted."""
    called = {(method, path) for method, paths, *_ in (*TRAVISVN, *DEVNEN) for path in paths}
    called |= {
        (method, prefix + BASE + path) for method, path, *_ in LONG for prefix in ("", "/v1")
    }
    first = {(route.method, route.path): route for route in reversed(gateway.routes)}
    for route in first.values():  # of two with one path, the first holds
        if route.surface.name != "chatterbox":
            continue
        path = route.path.replace("{voice_name}", "anna").replace("{alias}", "ann")
        path = path.replace("{job_id}", "{id}")
        assert (route.method, path) in called


def paths_by_name(client: httpx.Client) -> dict[str, list[str]]:
    """All paths of travisvn's server, by their first name."""
    listed = client.get("/endpoints").json()
    assert listed["total_endpoints"] == len(listed["mappings"]) == 39
    return {name: [name, *row["aliases"]] for name, row in listed["mappings"].items()}


def test_what_is_refused_at_the_door_has_the_shape_of_its_path(
    gateway: Gateway, client: httpx.Client
) -> None:
    """A key that is missing is told in travisvn's or devnen's words, or in OpenAI's where it is."""
    error = AuthenticationFailed("A key is needed.")
    shared = {"/health", "/stats", "/v1/models", "/v1/audio/speech"}
    surfaces = {route.path: route.surface for route in reversed(gateway.routes)}
    for paths in paths_by_name(client).values():
        for path in {*paths} - shared - {"/tts"}:
            body = json.loads(bytes(surfaces[path].render(error).body))
            assert body == {
                "error": {"message": "A key is needed.", "type": "authentication_error"}
            }, path
    for path in {path for _, paths, *_ in DEVNEN for path in paths} - shared:
        assert json.loads(bytes(surfaces[path].render(error).body)) == {
            "detail": "A key is needed."
        }, path


def test_the_documentation_has_every_route(client: httpx.Client) -> None:
    """Whoever changes over finds what differs: each path by its first name, or its last part."""
    text = (Path(__file__).parents[3] / "docs" / "compatibility.md").read_text()
    paths = [*paths_by_name(client), *(path for _, paths, *_ in DEVNEN for path in paths)]
    for path in paths:
        last = path.rpartition("{job_id}")[2] if "{job_id}" in path else path
        assert f"{last}`" in text or f"{last} " in text or f"{last} (" in text, path


def test_endpoints_lists_only_what_is_there(client: httpx.Client) -> None:
    """A client that reads the list finds every path of it."""
    for row in client.get("/endpoints").json()["mappings"].values():
        for path in (row["primary"], *row["aliases"]):
            plain = (
                path.replace("{voice_name}", "x").replace("{alias}", "x").replace("{job_id}", "x")
            )
            answer = client.options(plain)
            assert answer.status_code == 405, plain
            assert "allow" in answer.headers, plain


def test_a_page_of_this_machine_may_call(client: httpx.Client) -> None:
    """As with both servers; of other machines' pages, those that GATEWAY_CORS_ORIGINS names."""
    answer = client.get("/voices", headers={"Origin": "http://localhost:4321"})
    assert answer.headers["access-control-allow-origin"] == "http://localhost:4321"
