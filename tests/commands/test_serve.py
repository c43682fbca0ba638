"""The `serve` process with its child engine: started, replaced, stopped, never orphaned."""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest
import uvloop

from gateway.commands.serve import make_folders
from gateway.settings import SettingsError, load_settings
from loadtest.peers.load import load
from loadtest.peers.proxies import PEERS, start_stub
from loadtest.processes import (
    ServeProcess,
    answers,
    free_port,
    running_engine,
    running_serve,
    wait_until,
)


def speak(serve: ServeProcess, text: str = "Hello there.") -> httpx.Response:
    """A short sentence as WAV."""
    return httpx.post(
        serve.url + "/v1/audio/speech",
        json={"model": "tts-1", "input": text, "response_format": "wav"},
        timeout=120,
    )


def children(serve: ServeProcess) -> list[psutil.Process]:
    """The processes that a gateway has started."""
    found: list[psutil.Process] = psutil.Process(serve.process.pid).children(recursive=True)
    return found


def engine_of(serve: ServeProcess) -> psutil.Process:
    """Its child engine."""
    return next(child for child in children(serve) if "engines.serve" in child.cmdline())


def gone(process: psutil.Process) -> bool:
    """Whether a process is over."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_sigkill_of_the_gateway_leaves_no_orphan() -> None:
    """Nobody is left to clean up: the engine must see it by itself."""
    with running_serve() as serve:
        left = children(serve)
        assert left
        serve.process.kill()
        serve.process.wait(120)
        wait_until(lambda: all(gone(child) for child in left), "no child is left")


def test_a_taken_port_is_one_clear_line() -> None:
    """No traceback, status 2."""
    port = free_port()
    with subprocess.Popen([sys.executable, "-m", "http.server", str(port), "-b", "127.0.0.1"]) as p:
        try:
            wait_until(lambda: answers(f"http://127.0.0.1:{port}/"), "the port is taken")
            done = subprocess.run(
                [sys.executable, "-m", "gateway", "serve", "--port", str(port)],
                env={**os.environ, "GATEWAY_UPSTREAMS": "http://127.0.0.1:1"},
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
        finally:
            p.kill()
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert str(port) in done.stderr
    assert "GATEWAY_PORT" in done.stderr


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_every_address_means_ipv4_as_well() -> None:
    """`::` alone would leave out most clients where IPv6 sockets take nothing else."""
    with running_serve("--host", "::", upstreams="http://127.0.0.1:9", ready=False,
                       allow_anonymous=True) as serve:  # fmt: skip
        port = serve.url.rpartition(":")[2]
        for host in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{host}:{port}/health").status_code == 200


@pytest.mark.parametrize("variable", ["GATEWAY_DATA_DIR", "GATEWAY_VOICES_DIR"])
def test_a_folder_that_cannot_be_written_is_told_at_the_start(variable: str) -> None:
    """Not at the first upload."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "serve", "--port", "0"],
        env={**os.environ, "GATEWAY_UPSTREAMS": "http://127.0.0.1:1", variable: "/proc/voices"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert f"{variable}: cannot write to /proc/voices" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_running_answer_is_finished_before_the_gateway_stops(number: signal.Signals) -> None:
    """An orderly stop cuts nobody off, and ends the engine too, with status 0."""
    text = "This sentence is still being spoken when the gateway is asked to stop. " * 20
    with running_serve() as serve:
        with (
            httpx.Client(timeout=120) as client,
            client.stream(
                "POST",
                serve.url + "/v1/audio/speech",
                json={"model": "tts-1", "input": text, "response_format": "pcm"},
            ) as answer,
        ):
            chunks = answer.iter_raw()
            got = len(next(chunks))
            engine = engine_of(serve)
            serve.process.send_signal(number)
            got += sum(map(len, chunks))
        assert got > 60 * 48_000
        assert serve.process.wait(120) == 0
        wait_until(lambda: gone(engine), "the engine is gone")


def test_settings_are_printed_with_secrets_masked() -> None:
    """What is in force, fit for a bug report."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "settings"],
        env={**os.environ, "GATEWAY_UPSTREAM_API_KEY": "very-secret"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "GATEWAY_UPSTREAM_API_KEY=********" in done.stdout
    assert "GATEWAY_PORT=8888" in done.stdout
    assert "very-secret" not in done.stdout


def test_a_library_that_nothing_changes_may_be_read_only(tmp_path: Path) -> None:
    """An engine's own folder, mounted read-only, is listed and used."""
    folders = {"data_dir": str(tmp_path), "voices_dir": "/proc/self"}
    make_folders(load_settings(**folders, voice_changes="off"))
    with pytest.raises(SettingsError, match="GATEWAY_VOICES_DIR"):
        make_folders(load_settings(**folders))


def test_without_upstreams_the_cpu_voice_speaks_and_is_started_again(tmp_path: Path) -> None:
    """The log says what speaks where, with a line to try; a crash costs a moment."""
    log = tmp_path / "log"
    with log.open("wb") as file, running_serve(stderr=file) as serve:
        told = log.read_text()
        assert f"listening on {serve.url}, before http://127.0.0.1:" in told
        assert "starting the CPU voice, English" in told
        assert "is ready: cpu, languages: en" in told
        (line,) = [line for line in told.splitlines() if "to try: " in line]
        command = line.partition("to try: ")[2]
        subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True, timeout=120)
        assert (tmp_path / "hello.mp3").read_bytes()[0] == 0xFF  # an MPEG frame's sync
        engine = engine_of(serve)
        engine.kill()
        answer = speak(serve)  # it waits for the next engine
        assert answer.status_code == 200
        assert answer.content[:4] == b"RIFF"
        assert len(answer.content) > 10_000
        assert engine_of(serve).pid != engine.pid


def test_a_default_voice_that_nobody_has_is_told_when_an_engine_is_ready(tmp_path: Path) -> None:
    """Not by every request that names none."""
    log = tmp_path / "log"
    with (
        log.open("wb") as file,
        running_engine("--voice", "simulated") as engine,
        running_serve(upstreams=engine.address, default_voice="nobody", stderr=file) as serve,
    ):
        wait_until(lambda: answers(serve.url + "/ready"), "it is ready")
        told = "GATEWAY_DEFAULT_VOICE: nobody has the voice 'nobody'"
        wait_until(lambda: told in log.read_text(), "it is told")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="has ways of its own to keep memory")
def test_memory_of_one_answer_is_kept_for_the_next() -> None:
    """Page by page taken again it was 45 faults an answer, a tenth of its processor time."""
    peer = next(peer for peer in PEERS if peer.name == "gateway, wav")
    with ExitStack() as stack:
        port = free_port()
        start_stub(port)(stack)
        running = peer.start(port, stack)
        assert running.process is not None
        stat = Path(f"/proc/{running.process.pid}/stat")
        uvloop.run(load(running.port, peer.body(), 16, 200))  # what is made once, and the heap
        before = minor_faults(stat)
        uvloop.run(load(running.port, peer.body(), 16, 200))
        assert minor_faults(stat) - before < 200 * 10


def minor_faults(stat: Path) -> int:
    """Pages that a process was given so far (proc_pid_stat(5), field 10)."""
    return int(stat.read_text().rpartition(")")[2].split()[7])
