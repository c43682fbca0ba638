"""How operators see the upstreams, and what a wrong call is told."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from gateway.audio.pcm import BYTES_PER_SAMPLE, ENGINE_SAMPLE_RATE_HZ
from gateway.text.estimate import speech_seconds
from loadtest.prose import prose
from tests.asking import AS_ADMIN, KEY, WITH_ADMIN, get
from tests.running import Gateway, running_gateway


@pytest.fixture(scope="module")
def engine_arguments() -> tuple[str, ...]:
    """It takes a few seconds for a long text."""
    return ("--tokens-per-second", "1000")


@pytest.fixture(scope="module")
def gateway_settings() -> dict[str, Any]:
    """One slot, and an /admin."""
    return {"max_in_flight": 1, **WITH_ADMIN}


def states(gateway: Gateway) -> list[dict[str, Any]]:
    """What the gateway tells of its upstreams."""
    answer = httpx.get(gateway.url + "/admin/upstreams", headers=AS_ADMIN, timeout=5)
    assert answer.status_code == 200
    listed = answer.json()["upstreams"]
    assert isinstance(listed, list)
    return listed


def test_the_state_of_an_upstream_is_told_in_full(gateway: Gateway) -> None:
    """Where it is, how it does, what it lists, and when it is looked at next."""
    (state,) = states(gateway)
    assert state.pop("next_probe_seconds") >= 0
    assert state.pop("voices")[0] == "belinda"
    (upstream,) = gateway.runtime.pool.upstreams
    assert state == {
        "upstream": upstream.address,
        "state": "ready",
        "in_flight": 0,
        "failures": 0,
        "fault": None,
        "context_tokens": 8192,
        "models": list(upstream.models),
    }


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "upstream"),
        ({"upstream": ""}, "upstream"),
        ({"upstream": 5}, "upstream"),
        ({"upstream": "http://nobody:1"}, "upstream"),
        ({"upstream": "x" * 3000}, "upstream"),
    ],
)
@pytest.mark.parametrize("action", ["drain", "resume"])
def test_a_wrong_address_changes_nothing(
    gateway: Gateway, action: str, body: dict[str, Any], param: str
) -> None:
    """A typing error must never be taken for a drained upstream."""
    answer = httpx.post(
        f"{gateway.url}/admin/upstreams/{action}", json=body, headers=AS_ADMIN, timeout=5
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert states(gateway)[0]["state"] == "ready"


def test_only_the_right_methods_and_bodies_are_taken(gateway: Gateway) -> None:
    """GET drains nothing, and neither does what is not JSON or too long."""
    url = gateway.url + "/admin/upstreams/drain"
    with httpx.Client(base_url=gateway.url, headers=AS_ADMIN, timeout=5) as client:
        assert client.get(url).status_code == 405
        assert client.post("/admin/upstreams", json={}).status_code == 405
    headers = {"Content-Type": "application/json", **AS_ADMIN}
    assert httpx.post(url, content=b"{", headers=headers, timeout=5).status_code == 400
    assert httpx.post(url, content=b" " * 5000, headers=headers, timeout=5).status_code == 413
    form = {"upstream": gateway.runtime.pool.upstreams[0].address}
    assert httpx.post(url, data=form, headers=AS_ADMIN, timeout=5).status_code == 415
    assert states(gateway)[0]["state"] == "ready"


def test_a_long_text_is_heard_to_its_end_although_its_only_upstream_is_drained(
    gateway: Gateway,
) -> None:
    """Its later segments are new generations, but nothing new to who listens."""
    text = prose(350)
    body = {"model": "tts-1", "input": text, "voice": "belinda", "response_format": "pcm"}
    url, admin = gateway.url + "/v1/audio/speech", gateway.url + "/admin/upstreams"
    (upstream,) = gateway.runtime.pool.upstreams
    named = {"upstream": upstream.address + "/"}
    labels = {"upstream": upstream.address, "outcome": "ok"}
    before = gateway.metric("gateway_upstream_requests_total", **labels)
    with httpx.stream("POST", url, json=body, timeout=120) as answer:
        parts = answer.iter_raw()
        heard = len(next(parts))
        drained = httpx.post(admin + "/drain", json=named, headers=AS_ADMIN, timeout=5).json()
        assert drained["state"] == "draining"
        assert drained["in_flight"] == 1
        refused = httpx.post(url, json=body, timeout=120)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert httpx.get(gateway.url + "/ready", timeout=5).status_code == 503
        begun = gateway.metric("gateway_upstream_requests_total", **labels)
        heard += sum(map(len, parts))
    assert gateway.metric("gateway_upstream_requests_total", **labels) > max(begun, before + 1)
    wanted = speech_seconds(text).likely_seconds * ENGINE_SAMPLE_RATE_HZ * BYTES_PER_SAMPLE
    assert heard > 0.5 * wanted
    resumed = httpx.post(admin + "/resume", json=named, headers=AS_ADMIN, timeout=5).json()
    assert resumed["state"] == "ready"
    assert states(gateway)[0]["in_flight"] == 0


def test_without_an_admin_key_there_is_no_admin_route(gateway: Gateway) -> None:
    """Not for programs on this machine either; with other keys a stranger learns nothing."""
    (upstream,) = gateway.runtime.pool.upstreams
    for keys, key, status in (
        (None, None, 404),
        (f"alice={KEY}", None, 401),
        (f"alice={KEY}", KEY, 404),
    ):
        with running_gateway(ready=False, upstreams=upstream.address, api_keys=keys) as plain:
            for path in ("/admin/upstreams", "/admin/upstreams/drain", "/admin/nothing"):
                assert get(plain, path, key).status_code == status
