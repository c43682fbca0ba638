"""Health, readiness, metrics and the description of the API."""

from __future__ import annotations

import json

import httpx
import pytest

from gateway.api.docs_page import docs_page
from gateway.api.openapi import openapi_document
from tests.running import Gateway, running_gateway


def test_health_is_live_and_has_the_fields_of_every_client_family(gateway: Gateway) -> None:
    """Always 200 while the process lives; never an address of the inner network."""
    answer = httpx.get(gateway.url + "/health")
    assert answer.status_code == 200
    health = answer.json()
    assert health["status"] == "healthy"
    assert health["vllm_healthy"] is True
    assert health["model"] == "higgs-audio-v2-generation-3B-base"
    assert {"total_requests", "avg_generation_time"} <= set(health["stats"])
    assert "127.0.0.1" not in answer.text


def test_without_an_engine_the_gateway_is_live_but_not_ready() -> None:
    """A load balancer sees the difference."""
    with running_gateway(upstreams="http://127.0.0.1:9", ready=False) as running:
        assert httpx.get(running.url + "/health").json()["status"] == "degraded"
        answer = httpx.get(running.url + "/ready")
        assert answer.status_code == 503
        assert answer.headers["retry-after"]


def test_metrics_are_prometheus_text(gateway: Gateway) -> None:
    """Every name has the prefix, counters alone end in _total, labels hold no client text."""
    httpx.post(
        gateway.url + "/v1/audio/speech", json={"model": "tts-1", "input": "Hi.", "voice": "x<y"}
    )
    answer = httpx.get(gateway.url + "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    kinds = dict(
        line.split()[2:4] for line in answer.text.splitlines() if line.startswith("# TYPE")
    )
    assert len(kinds) > 20
    for name, kind in kinds.items():
        assert name.startswith("gateway_")
        assert name.endswith("_total") == (kind == "counter"), name
    assert "x<y" not in answer.text
    assert 'gateway_upstream_healthy{upstream="' in answer.text


def test_the_api_is_described(gateway: Gateway) -> None:
    """An OpenAPI document whose references resolve, and a page that needs no foreign host."""
    document = httpx.get(gateway.url + "/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    schemas = document["components"]["schemas"]
    text = json.dumps(document)
    for part in text.split('"$ref": "')[1:]:
        assert part.split('"')[0].removeprefix("#/components/schemas/") in schemas
    page = httpx.get(gateway.url + "/docs").text
    assert "/v1/audio/speech" in page
    assert "reference_audio_base64" in page
    assert "http://" not in page
    assert "https://" not in page
    assert page == docs_page(openapi_document(gateway.routes))


@pytest.mark.parametrize("path", ["/", "/health", "/v1/models", "/v1/audio/voices", "/metrics"])
def test_head_is_answered_where_get_is(gateway: Gateway, path: str) -> None:
    """Probes and proxies ask with HEAD."""
    answer = httpx.head(gateway.url + path)
    assert answer.status_code == 200
    assert answer.content == b""
