"""Changes of the library within a gateway: bounded, one at a time, and tidied up in time."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.errors import QueueFull
from gateway.voices.catalogue import MOST_CHANGES, VoiceCatalogue
from gateway.voices.library.config_file import Snapshot
from gateway.voices.library.library import VoiceLibrary
from tests.running import until
from tests.voices.recordings import tone, wav

pytestmark = pytest.mark.anyio
SAMPLE = wav(tone(1.5, 24_000))


def catalogue_of(library: VoiceLibrary) -> VoiceCatalogue:
    """A catalogue of a library alone."""
    threads = ThreadPoolExecutor(1)
    return VoiceCatalogue("alloy", {}, lambda _: True, library, threads)


async def test_changes_wait_for_each_other_and_too_many_are_refused(tmp_path: Path) -> None:
    """Uploads are held in memory: the seventeenth hears 429 with a time to come back."""
    catalogue = catalogue_of(VoiceLibrary(tmp_path))
    end, running, most = threading.Event(), [], []

    def work(_: VoiceLibrary) -> None:
        running.append(1)
        most.append(len(running))
        assert end.wait(120)
        running.pop()

    changes = [asyncio.create_task(catalogue.change(work)) for _ in range(MOST_CHANGES)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFull) as refusal:
        await catalogue.change(work)
    assert refusal.value.retry_after_seconds
    end.set()
    await asyncio.gather(*changes)
    assert most == [1] * MOST_CHANGES
    assert await catalogue.change(lambda _: "again") == "again"


async def test_a_cancelled_change_gives_its_place_back(tmp_path: Path) -> None:
    """A client that leaves while it waits keeps nobody out."""
    catalogue = catalogue_of(VoiceLibrary(tmp_path))
    end = threading.Event()
    changes = [
        asyncio.create_task(catalogue.change(lambda _: end.wait())) for _ in range(MOST_CHANGES)
    ]
    await asyncio.sleep(0)
    for change in changes:
        change.cancel()
    end.set()
    await asyncio.gather(*changes, return_exceptions=True)
    assert await catalogue.change(lambda _: 1) == 1


async def test_a_removed_recording_goes_without_any_further_change(tmp_path: Path) -> None:
    """Whoever takes a voice out wants its recording gone, also where nothing else happens."""
    library = VoiceLibrary(tmp_path, grace_seconds=0)
    library.add("Anna", SAMPLE)
    voice = library.add("Ben", SAMPLE)
    held = VoiceLibrary(tmp_path)  # its grace is longer: the removal alone deletes nothing
    held.remove("ben")
    assert (tmp_path / voice.audio_file).exists()
    task = asyncio.create_task(catalogue_of(library).run(0.01))
    await until(lambda: not (tmp_path / voice.audio_file).exists())
    task.cancel()


async def test_a_damaged_folder_does_not_end_the_upkeep(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told in the log, and goes on when the file is mended."""
    library, held = VoiceLibrary(tmp_path, grace_seconds=0), VoiceLibrary(tmp_path)
    voice = library.add("Anna", SAMPLE)
    held.remove("anna")
    good = (tmp_path / "config.json").read_bytes()
    assert library.snapshot.removed
    (tmp_path / "config.json").write_text("{")
    task = asyncio.create_task(catalogue_of(library).run(0.01))
    await until(lambda: "damaged" in caplog.text)
    (tmp_path / "config.json").write_bytes(good)
    held.add("Ben", SAMPLE)
    await until(lambda: not (tmp_path / voice.audio_file).exists())
    task.cancel()


async def test_no_earlier_state_of_the_library_is_kept(tmp_path: Path) -> None:
    """A thousand voices that are added and spoken one by one would keep half a million."""
    library = VoiceLibrary(tmp_path)
    catalogue = catalogue_of(library)

    def snapshots() -> int:
        gc.collect()
        return sum(type(entry) is Snapshot for entry in gc.get_objects())  # asks no proxy

    before = snapshots()
    for number in range(5):
        library.add(f"Anna {number}", SAMPLE)
        for _ in range(2):
            chosen = catalogue.choose(f"Anna {number}")
            assert chosen.recorded is not None
            assert chosen.recorded.name == f"Anna {number}"
    assert snapshots() <= before + 1
