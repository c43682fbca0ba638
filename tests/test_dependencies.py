"""What the gateway uses of dependencies beyond their documentation is still there.

A release that moves one of these names breaks the gateway in a way that only this list explains:
read the file that is named, adapt it, and raise the bound in pyproject.toml.
"""

from __future__ import annotations

import importlib
import inspect
import re
import tomllib
from pathlib import Path

import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.audio.ffmpeg_switches import ffmpeg_function
from gateway.server.http_protocol import BoundedProtocol
from gateway.server.shutdown import DrainingServer
from gateway.telemetry.logging import ABORT_MESSAGE

ROOT = Path(__file__).parent.parent
PROTOCOL, SHUTDOWN = "gateway/server/http_protocol.py", "gateway/server/shutdown.py"
# File that uses it, module, names within it.
NAMES = (
    (PROTOCOL, "uvicorn.protocols.http.httptools_impl", "HttpToolsProtocol"),
    (PROTOCOL, "uvicorn.protocols.http.httptools_impl", "RequestResponseCycle"),
    (PROTOCOL, "uvicorn.protocols.http.httptools_impl", "STATUS_LINE"),
    (PROTOCOL, "uvicorn.protocols.http.flow_control", "HIGH_WATER_LIMIT"),
    (PROTOCOL, "uvicorn.server", "ServerState"),
    ("gateway/api/routes.py", "starlette.routing", "compile_path"),
    ("gateway/api/multipart.py", "starlette.formparsers", "MultiPartParser"),
    ("gateway/api/multipart.py", "starlette.formparsers", "MultiPartException"),
    ("gateway/telemetry/metrics.py", "prometheus_client", "disable_created_metrics"),
    ("gateway/audio/ffmpeg_switches.py", "av", "_core"),
)
# What the protocol reads or sets of its base class and of a request's cycle.
PROTOCOL_STATE = (
    *("app", "connections", "cycle", "flow", "headers", "logger", "loop", "parser", "pipeline"),
    *("tasks", "timeout_keep_alive", "timeout_keep_alive_task", "transport"),
)
CYCLE_STATE = (
    *("body", "disconnected", "keep_alive", "message_event", "more_body", "response_complete"),
    *("response_started", "scope"),
)
# Methods that are overridden: if one is renamed, the override is never called.
OVERRIDES = {
    BoundedProtocol: (
        *("connection_made", "connection_lost", "eof_received", "data_received"),
        *("timeout_keep_alive_handler", "on_message_begin", "on_header"),
        *("on_headers_complete", "on_body", "on_message_complete", "on_response_complete"),
        *("pause_writing", "resume_writing"),
    ),
    DrainingServer: ("capture_signals", "handle_exit", "on_tick", "shutdown", "startup"),
}
BOUNDED = ("av", "httptools", "prometheus-client", "starlette", "uvicorn")


@pytest.mark.parametrize(("file", "module", "name"), NAMES)
def test_a_name_that_is_used_is_there(file: str, module: str, name: str) -> None:
    """Else the gateway would not start."""
    found = importlib.import_module(module)
    if not hasattr(found, name):
        found = importlib.import_module(f"{module}.{name}")
    assert found is not None, f"{file} needs {module}.{name}"


@pytest.mark.parametrize("kind", OVERRIDES)
def test_an_overridden_method_exists(kind: type) -> None:
    """Else the gateway would run without a bound, and nobody would notice."""
    base = kind.__mro__[1]
    for name in OVERRIDES[kind]:
        assert name in vars(kind), f"{kind.__name__}.{name} is gone; take it off this list"
        assert hasattr(base, name), f"{base.__name__} no longer calls {name}: see {kind.__module__}"
    own = {
        name
        for name, value in vars(kind).items()
        if inspect.isfunction(value) and not name.startswith("_") and hasattr(base, name)
    }
    assert own == set(OVERRIDES[kind]), "the list above is not complete"


@pytest.mark.parametrize(
    ("base", "names"),
    [(HttpToolsProtocol, PROTOCOL_STATE), (RequestResponseCycle, CYCLE_STATE)],
)
def test_state_that_is_read_is_kept(base: type, names: tuple[str, ...]) -> None:
    """Uvicorn sets these in its constructors."""
    source = inspect.getsource(base)
    for name in names:
        assert re.search(rf"self\.{name}\b\W", source), f"{base.__name__} has no {name}: {PROTOCOL}"


def test_uvicorn_works_as_the_overrides_expect() -> None:
    """Each of these was read in its source; see the files that rely on it."""
    protocol = inspect.getsource(HttpToolsProtocol)
    assert "_unset_keepalive_if_required" in protocol
    assert "self.pipeline.appendleft((self.cycle, app))" in protocol, f"order of {PROTOCOL}"
    assert "reset_contextvars" in inspect.signature(uvicorn.Config).parameters, SHUTDOWN
    assert ABORT_MESSAGE in inspect.getsource(RequestResponseCycle), "telemetry/logging.py"
    assert {"pause_reading", "resume_reading"} <= vars(FlowControl).keys()
    server = inspect.getsource(uvicorn.Server)
    for name in ("server_state", "servers", "lifespan", "force_exit", "should_exit"):
        assert f"self.{name}" in server, f"{SHUTDOWN} needs uvicorn.Server.{name}"


def test_ffmpeg_has_the_switches() -> None:
    """Without them, each stream would own idle threads, and a file could ask for any memory."""
    for name in ("av_cpu_force_count", "av_max_alloc"):
        assert ffmpeg_function(name) is not None, f"FFmpeg without {name}"


def test_versions_are_bounded_where_more_is_used_than_is_documented() -> None:
    """An upper bound stands in pyproject.toml, and the tested version is within it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = re.findall(r"^([\w-]+)([^;\n]*)", "\n".join(project["dependencies"]), re.MULTILINE)
    ranges: dict[str, str] = dict(found)
    for name in BOUNDED:
        assert re.fullmatch(r">=[\d.]+,<[\d.]+", ranges[name]), f"{name}{ranges[name]}"
