"""Who reaches what: README, security notes, Compose, systemd and the defaults say one thing."""

from __future__ import annotations

import argparse
import configparser
import re
import shlex
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from engines.container.plan import make_plan
from engines.serve import add_engine_arguments
from gateway.access.loopback import is_loopback
from gateway.commands.serve import check_exposure
from gateway.settings import (
    CLIENT_VARIABLES,
    REMOVED,
    RENAMED,
    Settings,
    SettingsError,
    load_settings,
    variable_name,
)
from loadtest.processes import free_port, running_serve

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), DEPLOY / "rented/README.md"]
FILES = sorted(
    path
    for path in DEPLOY.rglob("*")
    if path.is_file() and path.suffix in {".yml", ".env", ".service", ".sh", ".cfg"}
)
KEYS = {
    "client": "sg-client-0123456789abcdef",
    "admin": "sg-admin-0123456789abcdef",
    "upstream": "sg-upstream-0123456789abcdef",
    "stranger": "sg-stranger-0123456789abcdef",
}

UNSHOWN = "what-nobody-may-read-0123456789"


def values() -> dict[str, str]:
    """What vllm.env sets."""
    text = (DEPLOY / "vllm.env").read_text("utf-8")
    return dict(re.findall(r"^([A-Z][A-Z_]+)=(.*)$", text, re.MULTILINE))


def services(file: str) -> dict[str, Any]:
    """The services of a Compose file, with the values of vllm.env."""
    text = re.sub(
        r"\$\{([A-Z_]+)\}", lambda found: values()[found[1]], (DEPLOY / file).read_text("utf-8")
    )
    # Compose's own tag stands before a list that it empties.
    found: dict[str, Any] = yaml.safe_load(text.replace("!reset ", ""))["services"]
    return found


def engine_defaults() -> argparse.Namespace:
    """What `speech-gateway engine` does without arguments."""
    parser = argparse.ArgumentParser()
    add_engine_arguments(parser)
    return parser.parse_args([])


def unit() -> configparser.SectionProxy:
    """What the systemd unit says of its service."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "speech-gateway.service")
    return parser["Service"]


@pytest.mark.parametrize("file", ["docker-compose.yml", "front.yml"])
def test_every_port_is_published_on_this_machine_alone(file: str) -> None:
    """Each with an address before it: Docker publishes a bare port to everybody."""
    ports = [port for service in services(file).values() for port in service.get("ports", ())]
    assert ports
    assert {port.rpartition(":")[0].rpartition(":")[0] for port in ports} == {"127.0.0.1"}
    hosts = {service.get("network_mode") for service in services(file).values()}
    assert "host" not in hosts


def test_the_gateway_of_compose_knows_the_address_that_its_port_is_published_on() -> None:
    """Whoever opens the port with SPEECH_GATEWAY_ADDRESS must set keys, as without Docker."""
    gateway = services("docker-compose.yml")["gateway"]
    front = services("front.yml")["front"]
    told = gateway["environment"]["GATEWAY_PUBLISHED_ADDRESS"]
    for port in (*gateway["ports"], *front["ports"]):
        assert port == f"{told}:{values()['SPEECH_GATEWAY_PORT']}:8888"
    lines = {name: text for name, text in values().items() if name.startswith("GATEWAY_")}
    started = {**lines, **gateway["environment"]}
    fields = {name.removeprefix("GATEWAY_").lower(): text for name, text in started.items()}
    check_exposure(load_settings(**fields))
    with pytest.raises(SettingsError, match="GATEWAY_ALLOW_ANONYMOUS"):
        check_exposure(load_settings(**{**fields, "published_address": "0.0.0.0"}))


def test_gateway_and_engines_listen_on_this_machine_by_default() -> None:
    """Without Docker, under systemd, and the engine alone; README and security notes say so."""
    assert is_loopback(load_settings().host)
    assert is_loopback(engine_defaults().host)
    assert is_loopback(str(urlsplit(make_plan({}).address).hostname))
    assert unit()["ExecStart"].endswith("/speech-gateway serve")
    assert "GATEWAY_HOST" not in (DEPLOY / "speech-gateway.service").read_text("utf-8")
    readme = " ".join(PAGES[0].read_text("utf-8").split())
    assert "It speaks plain HTTP, on 127.0.0.1 by default" in readme
    assert "Without keys the gateway serves this machine alone" in readme


def test_where_words_and_files_name_a_port_it_is_the_same_one() -> None:
    """Those of the gateway, the engine and Grafana."""
    ports = {
        *(str(load_settings().port), values()["HIGGS_PORT"], values()["SPEECH_GATEWAY_PORT"]),
        *(values()[f"{name}_PORT"] for name in ("GRAFANA", "PROMETHEUS", "ALERTMANAGER", "LOCUST")),
    }
    named = set(re.findall(r"http://(?:127\.0\.0\.1|localhost):(\d+)", PAGES[0].read_text("utf-8")))
    assert named
    assert named <= ports
    assert str(engine_defaults().port) == values()["HIGGS_PORT"]
    assert values()["SPEECH_GATEWAY_PORT"] == str(load_settings().port)


@pytest.mark.parametrize("path", [*PAGES, *FILES], ids=lambda path: path.name)
def test_every_variable_that_a_page_or_file_names_is_a_setting(path: Path) -> None:
    """The gateway refuses unknown names at its start, so a wrong one is a trap."""
    known = {variable_name(field) for field in Settings.model_fields}
    known |= CLIENT_VARIABLES | REMOVED.keys() | RENAMED.keys()
    named = set(re.findall(r"\bGATEWAY_[A-Z][A-Z_]*[A-Z]\b", path.read_text("utf-8")))
    assert named - known == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_sets_a_key_or_opens_the_gateway(path: Path) -> None:
    """Keys are the operator's; nothing that is shipped lets strangers in."""
    line = r"^\s*(?:- )?(?:GATEWAY_\w*KEYS?|GATEWAY_ALLOW_ANONYMOUS|HF_TOKEN) *[=:] *\S"
    assert re.findall(line, path.read_text("utf-8"), re.MULTILINE) == []


def test_no_key_is_in_what_a_gateway_and_its_engine_print(tmp_path: Path) -> None:
    """At the most talkative level, with keys that fit and one that does not, until the end."""
    port, log = free_port(), tmp_path / "log"
    command = [sys.executable, "-m", "engines.serve", "--voice", "simulated", "--port", str(port)]
    settings: dict[str, Any] = {
        "api_keys": f"a={KEYS['client']}, b={KEYS['admin']} admin",
        "upstream_api_key": KEYS["upstream"],
        "engine_command": shlex.join(command),
        "upstreams": f"http://127.0.0.1:{port}",
        "log_level": "debug",
    }
    with log.open("wb") as file, running_serve(stderr=file, **settings) as serve:
        for name, status in {"client": 200, "admin": 200, "stranger": 401}.items():
            answer = httpx.post(
                f"{serve.url}/v1/audio/speech",
                params={"key": KEYS["stranger"]},
                json={"model": "tts-1", "input": "Hello."},
                headers={"Authorization": f"Bearer {KEYS[name]}"},
                timeout=120,
            )
            assert answer.status_code == status
        shown = {"X-API-Key": KEYS["admin"]}
        upstreams = httpx.get(f"{serve.url}/admin/upstreams", headers=shown, timeout=120)
        assert upstreams.status_code == 200
        assert serve.stop() == 0
    told = log.read_text("utf-8")
    assert "status=200" in told
    assert "is ready" in told
    assert [name for name, key in KEYS.items() if key in told + upstreams.text] == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GATEWAY_API_KEYS", f"a={UNSHOWN}, a={UNSHOWN}"),
        ("GATEWAY_API_KEYS", f"a={UNSHOWN} nonsense"),
        ("GATEWAY_API_KEYS", f"a b={UNSHOWN}"),
        ("GATEWAY_API_KEYS_FILE", UNSHOWN),
        ("GATEWAY_API_KEY", UNSHOWN),
        ("GATEWAY_UPSTREAMS", f"http://me:{UNSHOWN}@127.0.0.1:8000"),
        ("GATEWAY_ENGINE_ADDRESS", f"http://me:{UNSHOWN}@127.0.0.1:8000"),
    ],
)
def test_a_start_that_is_refused_shows_no_secret(
    variable: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line names the variable; what stood in it may be a key."""
    if variable == "GATEWAY_API_KEYS_FILE":
        (tmp_path / "keys.txt").write_text(f"a={value}\n")
        value = str(tmp_path / "keys.txt")
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=variable) as refused:
        load_settings()
    assert len(str(refused.value).splitlines()) == 1
    assert UNSHOWN not in str(refused.value)
