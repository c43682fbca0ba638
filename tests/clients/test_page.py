"""The page in headless Chromium, against a real gateway with the CPU engine."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clients.scripts import NODE, chromium, result, started
from tests.running import running_engine, running_gateway
from tests.voices.recordings import tone, wav

KEYS = "page=sg-for-the-page-0123456789"
LARGEST_BYTES = 250 * 1024
PAGE = Path(__file__).parents[2] / "gateway" / "api" / "page"


def browser() -> str:
    """The path of Chromium; skips where what looks at the page in it is missing."""
    path = chromium()
    if not (NODE / "node_modules" / "axe-core").exists():
        pytest.skip("needs the npm packages: `scripts/install test`")
    return path


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    """The CPU voice."""
    with running_engine() as engine:
        yield engine.address


@pytest.fixture(scope="module")
def seen(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What a person sees who tries everything."""
    path, folder = browser(), tmp_path_factory.mktemp("page")
    (folder / "voice.wav").write_bytes(wav(tone(4.0, 24_000)))
    with (
        running_gateway(upstreams=engine) as gateway,
        started(["node", "page.mjs", gateway.url, path, str(folder)], NODE) as process,
    ):
        yield result(process)


pytestmark = [pytest.mark.node, pytest.mark.browser]


def test_it_loads_from_one_host_without_a_script_error(seen: dict[str, Any]) -> None:
    """No request to another host, no violation of its own policy."""
    assert len(seen["hosts"]) == 1
    assert seen["errors"] == []
    assert seen["loaded"]["voices"] > 8
    assert seen["loaded"]["paint"] > 0


def test_it_speaks_every_way_of_playing(seen: dict[str, Any]) -> None:
    """Samples, MediaSource and whole files; figures, a waveform and a download."""
    spoken = seen["spoken"]
    assert spoken["painted"], spoken
    for response_format, figures in spoken["figures"].items():
        assert 0.8 < figures["duration"] < 4
        assert figures["firstAudio"] > 0
        assert figures["file"] == f"speech.{response_format}"


def test_it_plays_before_the_answer_ends_and_stop_frees_the_engine(seen: dict[str, Any]) -> None:
    """Escape closes the connection, and nothing runs on the upstream any more."""
    streamed = seen["streamedAndStopped"]
    assert streamed["before"]["running"] > 0
    assert streamed["before"]["result"] is False
    assert streamed["free"] is True


def test_tags_are_shown_and_requests_are_copied(seen: dict[str, Any]) -> None:
    """Only tags that mean something; what is copied can be pasted."""
    assert seen["highlighted"] == ["[SPEAKER0]", "[laugh]"]
    assert "'\\''s" in seen["copied"]["curl"]
    assert 'input="It\'s \\"quoted\\"."' in seen["copied"]["python"]
    compile(seen["copied"]["python"], "copied", "exec")
    assert "/v1" in seen["copied"]["javascript"]


def test_a_dialogue_names_a_voice_for_each_speaker(seen: dict[str, Any]) -> None:
    """Two speakers, two voices."""
    dialogue = seen["dialogue"]
    assert dialogue["speakers"] == 2
    assert dialogue["body"]["input"].startswith("[SPEAKER0] ")
    assert len(set(dialogue["body"]["voices"].values())) == 2


def test_a_voice_is_uploaded_used_heard_and_deleted(seen: dict[str, Any]) -> None:
    """Its transcript stays text; a recording of the microphone is a voice, too."""
    assert seen["voiceUploadedAndUsed"] == {"status": 200, "hostile": True}
    assert seen["voiceRecorded"] == ""


def test_a_job_goes_to_its_end_and_is_downloaded(seen: dict[str, Any]) -> None:
    """Its title stays text."""
    assert seen["job"]["title"].startswith("<img")
    assert seen["job"]["bytes"] > 10_000


def test_the_status_is_drawn(seen: dict[str, Any]) -> None:
    """Figures and charts."""
    assert "Slots in use" in seen["status"]["figures"]
    assert seen["status"]["charts"] == 4


def test_what_a_user_writes_never_becomes_a_page(seen: dict[str, Any]) -> None:
    """Neither now nor from the history of an earlier visit."""
    assert seen["hostile"] == {"hacked": None, "images": 0, "scripts": 1}


def test_everybody_can_use_it_on_every_screen(seen: dict[str, Any]) -> None:
    """Axe finds nothing serious, light or dark; nothing is cut off on a phone."""
    assert seen["accessible"] == []
    assert seen["narrow"] == []


def test_with_keys_it_asks_for_one_and_keeps_it_in_the_tab(engine: str, tmp_path: Path) -> None:
    """Session storage alone."""
    path = browser()
    key = KEYS.partition("=")[2]
    with (
        running_gateway(upstreams=engine, api_keys=KEYS) as gateway,
        started(["node", "page.mjs", gateway.url, path, str(tmp_path), key], NODE) as process,
    ):
        found = result(process)
    assert "API key" in found["withoutKey"]
    assert found["withKey"] == {"session": True, "local": False, "cookies": ""}


def test_the_page_is_small_and_strict(engine: str) -> None:
    """Its weight, its policy, and JSON to programs; unknown files are 404."""
    weight = sum(len(gzip.compress(path.read_bytes())) for path in PAGE.iterdir())
    assert weight < LARGEST_BYTES
    with running_gateway(upstreams=engine) as gateway, httpx.Client(base_url=gateway.url) as client:
        answer = client.get("/", headers={"Accept": "text/html,*/*"})
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        again = client.get(
            "/", headers={"Accept": "text/html", "If-None-Match": answer.headers["etag"]}
        )
        assert again.status_code == 304
        assert client.get("/").json()["docs"] == "/docs"
        for name in ("nothing.js", "..%2f..%2fsettings.py", "__init__.py", ".."):
            assert client.get(f"/page/{name}").status_code in {200, 404}
            assert "import" not in client.get(f"/page/{name}").text[:20]
        assert "<script>" not in answer.text


def test_without_the_surface_there_is_no_page(engine: str) -> None:
    """`/` is JSON to everybody."""
    with (
        running_gateway(upstreams=engine, surfaces="openai") as gateway,
        httpx.Client(base_url=gateway.url) as client,
    ):
        assert client.get("/", headers={"Accept": "text/html"}).json()["docs"] == "/docs"
        assert client.get("/page/app.js").status_code == 404
