"""The disk of the voice library is full: what is there stays whole, and speech goes on."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.running import Gateway, running_gateway
from tests.voices.recordings import tone, wav

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk"),
]

DISK_BYTES = 512 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    made = subprocess.run(mount, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no disk can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def gateway(disk: Path, engine: str) -> Iterator[Gateway]:
    """A gateway whose library lies on it."""
    voices = disk / "voices"
    voices.mkdir()
    with running_gateway(upstreams=engine, voices_dir=voices) as running:
        yield running


def add(gateway: Gateway, name: str) -> httpx.Response:
    """Upload a voice of three seconds (144 kB)."""
    return httpx.post(
        gateway.url + "/v1/audio/voices",
        data={"name": name},
        files={"audio_sample": ("a.wav", wav(tone(3.0, 24_000)), "audio/wav")},
        timeout=120,
    )


def speaks(gateway: Gateway, voice: str) -> bool:
    """Whether a request is answered with audio."""
    body = {"model": "tts-1", "input": "Hello there.", "voice": voice, "response_format": "pcm"}
    answer = httpx.post(gateway.url + "/v1/audio/speech", json=body, timeout=120)
    return answer.status_code == 200 and len(answer.content) > 10_000


def test_a_full_disk_loses_nothing_and_is_told(gateway: Gateway, disk: Path) -> None:
    """An honest 5xx for the upload alone; when there is room again, it works again."""
    assert add(gateway, "first").is_success
    (disk / "filler").write_bytes(bytes(DISK_BYTES - 144_000 * 2))
    before = (disk / "voices" / "config.json").read_bytes()
    refused = add(gateway, "second")
    assert refused.status_code in {503, 507}, refused.text
    assert refused.json()["error"]["message"]
    assert str(disk) not in refused.text
    assert (disk / "voices" / "config.json").read_bytes() == before
    assert json.loads(before).keys() == {"first"}
    assert speaks(gateway, "first")
    assert speaks(gateway, "belinda")
    (disk / "filler").unlink()
    assert add(gateway, "second").is_success
    assert speaks(gateway, "second")
