"""docs/proxies.md: its configurations, run with the real proxies."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from engines.simulator.waveform import expected_pcm
from loadtest.processes import free_port
from tests.asking import TEXT, VOICE, plan_faults
from tests.running import Gateway, answers, wait_until

PAGE = (Path(__file__).parents[2] / "docs" / "proxies.md").read_text()
PCM = expected_pcm(TEXT, VOICE)
SAY = {"input": TEXT, "voice": VOICE, "model": "tts-1", "response_format": "pcm"}
BARE = "server { listen 80; location / { proxy_pass http://127.0.0.1:8888; } }"
AROUND_NGINX = """
daemon off; user root; pid {folder}/pid; error_log {folder}/error.log;
events {{ }}
http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
{configuration}
}}
"""
PROXIES = ("nginx", "nginx, bare", "caddy", "haproxy")


@pytest.fixture(scope="module")
def gateway_settings() -> dict[str, Any]:
    """It waits long enough for an engine that stalls to be looked at."""
    return {"idle_timeout_seconds": 5}


@pytest.fixture(scope="module", params=PROXIES)
def proxy(
    request: pytest.FixtureRequest, gateway: Gateway, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A proxy's address."""
    name: str = request.param
    program = name.partition(",")[0]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    folder, port = tmp_path_factory.mktemp("proxy"), free_port()
    found = re.search(rf"```{program}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    text = BARE if name == "nginx, bare" else found[1]
    text = text.replace("127.0.0.1:8888", gateway.url.removeprefix("http://"))
    text = re.sub(r"(listen |bind :|^:)80\b", rf"\g<1>{port}", text, flags=re.MULTILINE)
    if program == "nginx":
        text = AROUND_NGINX.format(folder=folder, configuration=text)
    file = folder / "configuration"
    file.write_text(text)
    commands: dict[str, list[str | Path]] = {
        "nginx": ["nginx", "-e", folder / "error.log", "-p", folder, "-c", file],
        "caddy": ["caddy", "run", "--adapter", "caddyfile", "--config", file],
        "haproxy": ["haproxy", "-db", "-f", file],
    }
    process = subprocess.Popen(commands[program], stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(url + "/health") or process.poll() is not None, name)
        assert process.poll() is None, f"{name} ended"
        yield url
    finally:
        process.terminate()
        process.wait(30)


def caddy_hides_aborts() -> bool:
    """Whether the Caddy at hand is older than caddyserver/caddy#5951."""
    shown = subprocess.run(["caddy", "version"], capture_output=True, text=True, check=True).stdout
    major, minor = re.findall(r"\d+", shown)[:2]
    return (int(major), int(minor)) < (2, 8)


def test_a_whole_answer_comes_through(proxy: str) -> None:
    """Every byte of a stream, and an error with its status."""
    answer = httpx.post(proxy + "/v1/audio/speech", json=SAY, timeout=120)
    assert answer.content == PCM
    refused = httpx.post(proxy + "/v1/audio/speech", json={**SAY, "voice": "nobody"}, timeout=120)
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "voice_not_found")


def test_audio_passes_as_it_comes_and_an_abort_is_an_error(
    proxy: str, gateway: Gateway, engine: str, request: pytest.FixtureRequest
) -> None:
    """The engine stalls behind a second of audio: that second is here while it does."""
    if request.node.callspec.params["proxy"] == "caddy" and caddy_hides_aborts():
        pytest.skip("this Caddy ends what breaks off as if it were whole, as the page says")
    plan_faults(engine, "stall-48000", match="striking")
    with httpx.stream("POST", proxy + "/v1/audio/speech", json=SAY, timeout=120) as answer:
        parts = answer.iter_raw()
        heard = next(parts)
        assert gateway.runtime.service.in_flight == 1
        with pytest.raises(httpx.RemoteProtocolError):
            heard += b"".join(parts)
    assert heard
    assert PCM.startswith(heard)


def test_a_client_that_leaves_frees_the_engine(proxy: str, gateway: Gateway, engine: str) -> None:
    """Through the proxy, while the engine stalls."""
    counted = {"surface": "openai", "outcome": "cancelled"}
    before = gateway.metric("gateway_requests_total", **counted)
    plan_faults(engine, "stall-48000", match="striking")
    with httpx.stream("POST", proxy + "/v1/audio/speech", json=SAY, timeout=120) as answer:
        next(answer.iter_raw())
    wait_until(
        lambda: gateway.metric("gateway_requests_total", **counted) > before, "it is cancelled"
    )
