"""The front end of travisvn's server from its own sources, in Chromium against the gateway.

Part of `make prove`, which fetches it (`scripts/install-clients prove`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.simulator.waveform import expected_pcm
from tests.clients.openai_scenario import TEXT
from tests.clients.scripts import NODE, ROOT, chromium, require_fetched, result, started
from tests.running import running_engine, running_gateway

FOLDER = ROOT / ".cache" / "clients" / "travisvn_front_end"
LONG_TEXT = " ".join([TEXT] * 50)
BYTES = len(expected_pcm(TEXT, "en_woman"))

pytestmark = [pytest.mark.prove, pytest.mark.browser]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What its services and its hook found."""
    browser = chromium()
    require_fetched(FOLDER)
    folder: Path = tmp_path_factory.mktemp("voices")
    with (
        running_engine("--voice", "simulated", "--tokens-per-second", "1000") as engine,
        running_gateway(upstreams=engine.address, voices_dir=folder) as gateway,
        started(
            ["node", "front_end.mjs", gateway.url + "/v1", browser, str(FOLDER), TEXT, LONG_TEXT],
            NODE,
        ) as process,
    ):
        yield result(process)


def test_the_streaming_hook_plays_and_keeps_the_whole_answer(found: dict[str, Any]) -> None:
    """Events with audio info, as it reads them, become one WAV file."""
    hook = found["hook"]
    assert hook["error"] is None
    assert hook["audioInfo"]["sample_rate"] == 24_000
    assert hook["bytes"] == 44 + BYTES
    assert hook["chunks"] > 1


def test_its_service_speaks_in_every_way(found: dict[str, Any]) -> None:
    """As a form, as JSON, with a file, as a stream."""
    services = found["services"]
    for way in ("plain", "json", "streamed", "cloned"):
        assert services[way] == 44 + BYTES, way
    assert services["health"]["model_loaded"] is True


def test_its_service_keeps_voices(found: dict[str, Any]) -> None:
    """Upload, alias, default, rename, download, delete; and what it says of a second deletion."""
    services = found["services"]
    assert services["info"]["name"] == services["default"] == "my voice"
    assert services["aliases"] == ["me"]
    assert {"my voice", "me", "alloy"} <= set(services["names"])
    assert services["voices"] == ["mine"]
    assert services["downloaded"] > 44
    assert services["left"] == 0
    assert "mine" in services["twice"]


def test_its_service_speaks_long_texts(found: dict[str, Any]) -> None:
    """Events to the end, the file, notes, history, and another try that is paused and ended."""
    long = found["long"]
    assert long["events"][-1] == "completed"
    assert long["status"] == "completed"
    assert long["bytes"] > 40 * BYTES
    assert (long["archived"], long["found"]) == (1, 1)
    assert long["listed"] == ["A name"]
    assert long["paused"] == "paused"
    assert long["cancelled"]["success"] is True
    assert long["deleted"] == 2


def test_no_error_reached_the_console_but_the_one_asked_for(found: dict[str, Any]) -> None:
    """A second deletion is a 404, which the browser logs."""
    assert all("404" in error for error in found["errors"])
