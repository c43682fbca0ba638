"""One gateway for most tests of the Chatterbox surface: a simulated engine and a voice library."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.running import Gateway, running_engine, running_gateway
from tests.voices.recordings import tone, wav

RECORDING = wav(tone(2.0, 24_000))


@pytest.fixture(scope="package")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that keeps voices."""
    folder = tmp_path_factory.mktemp("voices")
    with (
        running_engine("--voice", "simulated", "--tokens-per-second", "4000") as engine,
        running_gateway(upstreams=engine.address, voices_dir=folder, show_texts=True) as running,
    ):
        yield running


@pytest.fixture
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    """A client of it, with an empty library."""
    with httpx.Client(base_url=gateway.url, timeout=120) as client:
        yield client
        for voice in client.get("/voices").json()["voices"]:
            client.delete(f"/voices/{voice['name']}").raise_for_status()


@pytest.fixture
def bob(client: httpx.Client) -> str:
    """A voice of the library."""
    form = {"voice_name": "bob", "language": "en"}
    answer = client.post("/voices", data=form, files={"voice_file": ("bob.wav", RECORDING)})
    assert answer.status_code == 201, answer.text
    return "bob"
