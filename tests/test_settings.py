"""The settings: what the environment says is what holds, and what is wrong is said in one line."""

from __future__ import annotations

import argparse
import os

import pytest

from gateway.commands.settings import STATUS_USAGE, describe, run_settings
from gateway.settings import (
    Settings,
    SettingsError,
    check_names,
    load_settings,
    old_names,
    variable_name,
)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("GATEWAY_"):
            monkeypatch.delenv(name)


def test_comma_separated_lists_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists are written with commas, not as JSON; the base address of an OpenAI client works."""
    monkeypatch.setenv("GATEWAY_UPSTREAMS", "http://a:8000/v1/, http://b:8000")
    assert load_settings().upstreams == ("http://a:8000", "http://b:8000")


def test_aliases_add_to_the_openai_voices(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator's alias moves or adds a name; the 13 OpenAI names stay."""
    monkeypatch.setenv("GATEWAY_VOICE_ALIASES", "Narrator=vex,alloy=mabel")
    aliases = load_settings().voice_aliases
    assert aliases["narrator"] == "vex"
    assert aliases["alloy"] == "mabel"
    assert len(aliases) == 14


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "70000"),
        ("UPSTREAMS", "localhost:8000"),
        ("UPSTREAMS", "http://a,http://a/"),
        ("VOICE_ALIASES", "bob"),
        ("MAX_IN_FLIGHT", "0"),
        ("QUEUE_TIMEOUT_SECONDS", "-1"),
        ("STREAM_PROFILE", "fast"),
        ("DEFAULT_RESPONSE_FORMAT", "ogg"),
    ],
)
def test_a_wrong_value_stops_the_start_with_one_line_that_names_the_variable(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody should have to read a traceback to find a typing error."""
    monkeypatch.setenv(f"GATEWAY_{name}", value)
    assert run_settings(argparse.Namespace(json=False)) == STATUS_USAGE
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert f"GATEWAY_{name}" in printed.err


def test_more_replicas_than_slots_is_refused() -> None:
    """A replica without a slot could never speak."""
    with pytest.raises(SettingsError, match="GATEWAY_REPLICAS"):
        load_settings(replicas=8, max_in_flight=4)


def test_a_setting_that_was_taken_away_stops_the_start_and_names_what_to_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Several workers are several replicas now."""
    monkeypatch.setenv("GATEWAY_WORKERS", "2")
    with pytest.raises(SettingsError, match=r"deploy/front\.yml.*GATEWAY_REPLICAS=N"):
        load_settings()
    monkeypatch.delenv("GATEWAY_WORKERS")
    monkeypatch.setenv("GATEWAY_WORKER_THREADS", "2")
    with pytest.raises(SettingsError, match="is fixed"):
        load_settings()


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """`speech-gateway settings` may be pasted into a bug report."""
    monkeypatch.setenv("GATEWAY_UPSTREAM_API_KEY", "very-secret")
    settings = load_settings()
    assert describe(settings)["GATEWAY_UPSTREAM_API_KEY"] == "********"
    assert "very-secret" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("GATEWAY_UPSTREAM", "GATEWAY_UPSTREAMS"),
        ("GATEWAY_APIKEYS", "GATEWAY_API_KEYS"),
        ("GATEWAY_LOGLEVEL", "GATEWAY_LOG_LEVEL"),
        ("GATEWAY_XYZZY", None),
    ],
)
def test_an_unknown_variable_stops_the_start_and_the_nearest_is_named(
    name: str, meant: str | None
) -> None:
    """A misspelt upstream must not start the CPU voice."""
    check_names({"gateway_port": "1", "GATEWAY_KEY": "for locust", "PATH": "/bin", "HTTP_A": ""})
    with pytest.raises(SettingsError, match=name) as caught:
        check_names({name: "http://a", "GATEWAY_PORT": "1"})
    assert str(caught.value).endswith(f"did you mean {meant}?") == (meant is not None)


def test_old_names_work_for_one_version_and_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new name goes before its old one."""
    assert old_names(os.environ) == []
    monkeypatch.setenv("GATEWAY_API_KEYS", "alice=k1")
    monkeypatch.setenv("GATEWAY_ADMIN_KEYS", "root=k2, k3")
    monkeypatch.setenv("GATEWAY_UNAUTHENTICATED", "metrics")
    settings = load_settings()
    keys = {key.name: key.admin for key in settings.key_ring().keys}
    assert keys == {"alice": False, "root": True, "key-3": True}
    assert settings.public_routes == ("metrics",)
    told = old_names(os.environ)
    assert [sentence.split()[0] for sentence in told] == [
        "GATEWAY_UNAUTHENTICATED", "GATEWAY_ADMIN_KEYS",
    ]  # fmt: skip
    monkeypatch.setenv("GATEWAY_PUBLIC_ROUTES", "stats")
    assert load_settings().public_routes == ("stats",)


def test_replicas_divide_slots_and_queue_places_and_nothing_else() -> None:
    """N replicas together never run more generations than one gateway would."""
    one, third = load_settings(max_queued=100), load_settings(max_queued=100, replicas=3)
    assert (one.slots, one.queue_places) == (64, 100)
    assert (third.slots, third.queue_places) == (21, 34)
    others = {"replicas"}
    assert third.model_dump(exclude=others) == one.model_dump(exclude=others)


def test_every_setting_has_a_description() -> None:
    """The table in docs/settings.md is made of them."""
    for field, info in Settings.model_fields.items():
        assert info.description, variable_name(field)
        assert info.description.endswith(".")
