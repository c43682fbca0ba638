"""Any engine command under the gateway's care: started, replaced, heard, ended with all it has."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import httpx
import psutil
import pytest

from gateway.server.engine_process import (
    LONGEST_LINE_BYTES,
    Supervisor,
    command_supervisor,
    relay_output,
    restart_when_stuck,
)
from gateway.settings import SettingsError, load_settings
from loadtest.processes import ServeProcess, free_port, running_serve, wait_until
from tests.engines.container import hub

SIMULATOR = [sys.executable, "-m", "engines.serve", "--voice", "simulated", "--port"]


def speak(serve: ServeProcess) -> int:
    """Ask for a sentence; the status."""
    answer = httpx.post(
        serve.url + "/v1/audio/speech",
        json={"model": "tts-1", "input": "Hello there.", "response_format": "wav"},
        timeout=120,
    )
    return answer.status_code


def engine_of(serve: ServeProcess) -> psutil.Process:
    """The engine below a gateway."""
    below = psutil.Process(serve.process.pid).children(recursive=True)
    return next(
        p
        for p in below
        if "simulated" in p.cmdline() and "gateway.server.subreaper" not in p.cmdline()
    )


def test_a_command_is_started_replaced_after_a_crash_and_gone_with_the_gateway() -> None:
    """As the CPU engine is, though it knows nothing of the gateway."""
    port = free_port()
    command = shlex.join([*SIMULATOR, str(port)])
    with running_serve(
        "--engine-command", command, upstreams=f"http://127.0.0.1:{port}/v1"
    ) as serve:
        assert speak(serve) == 200
        first = engine_of(serve)
        first.kill()
        wait_until(lambda: not first.is_running(), "it is dead")
        wait_until(lambda: speak(serve) == 200, "another one speaks")
        second = engine_of(serve)
        assert second.pid != first.pid
        below = psutil.Process(serve.process.pid).children(recursive=True)
        assert serve.stop() == 0
        assert not any(child.is_running() for child in below)


def test_an_engine_that_stays_ejected_is_started_again_and_one_that_loads_is_not() -> None:
    """A hung engine accepts requests and answers none; only one that has worked is ended."""
    port = free_port()
    engine_address = f"http://127.0.0.1:{port}"
    with running_serve(
        engine_command=shlex.join([*SIMULATOR, str(port)]),
        upstreams=engine_address,
        engine_restart_seconds=0.5,
        first_audio_timeout_seconds=0.5,
        probe_interval_seconds=0.2,
    ) as serve:
        first = engine_of(serve)
        httpx.post(engine_address + "/simulator/faults", json={"always": "hang"}, timeout=120)
        assert speak(serve) >= 500
        wait_until(lambda: not first.is_running(), "the hung engine is ended")
        wait_until(lambda: speak(serve) == 200, "another one speaks")


class _Engine(Supervisor):
    """Counts what would be restarts."""

    def __init__(self) -> None:
        super().__init__(["true"])
        self.restarted = threading.Event()

    def restart(self) -> None:
        """Note it."""
        self.starts += 1
        self.restarted.set()


@pytest.mark.parametrize(
    ("history", "restarts"),
    [
        ([False] * 50, False),  # it loads
        ([True] * 50, False),
        ([True, *[False] * 50], True),
        ([True, *[False, False, True] * 16], False),  # never for so long
    ],
)
@pytest.mark.anyio
async def test_only_an_engine_that_worked_and_then_did_not_for_so_long_is_restarted(
    *, history: list[bool], restarts: bool
) -> None:
    """Looks at a made history as fast as it can; each look is 10 s by its clock."""
    engine, looks = _Engine(), iter(history)
    clock = iter(range(0, 10_000, 10))
    ended = asyncio.Event()

    def healthy() -> bool:
        try:
            return next(looks)
        except StopIteration:
            ended.set()
            return True

    watching = restart_when_stuck(engine, healthy, 40, 0, lambda: next(clock))
    task = asyncio.create_task(watching)
    await ended.wait()
    task.cancel()
    assert engine.restarted.is_set() is restarts


def test_sigkill_of_the_gateway_ends_the_command_too() -> None:
    """Nobody is left to end it but its keeper."""
    port = free_port()
    with running_serve(
        engine_command=shlex.join([*SIMULATOR, str(port)]),
        upstreams=f"http://127.0.0.1:{port}",
    ) as serve:
        below = psutil.Process(serve.process.pid).children(recursive=True)
        assert len(below) >= 2
        serve.process.kill()
        serve.process.wait(120)
        wait_until(lambda: not any(child.is_running() for child in below), "nothing is left")


FAMILY = textwrap.dedent(
    """
    import os, signal, subprocess, sys, time
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    deaf = [sys.executable, "-c", "import signal, sys, time;"
            "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True);"
            "time.sleep(600)"]
    subprocess.Popen(sleeper)
    escaped = subprocess.Popen(sleeper, start_new_session=True)
    stubborn = subprocess.Popen(deaf, start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(sys.executable, sleeper)
        os._exit(0)
    print("family", os.getpid(), flush=True)
    time.sleep(600)
    """
)


def living(process: psutil.Process) -> list[psutil.Process]:
    """All below a process that are no zombies."""
    below = process.children(recursive=True)
    return [one for one in below if one.status() != psutil.STATUS_ZOMBIE]


def test_a_stop_leaves_nothing_of_a_command_that_scatters_its_children(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Daemons, sessions of their own, and those that ignore SIGTERM: all are gone."""
    caplog.set_level(logging.INFO, "gateway.engine.output")
    supervisor = command_supervisor(shlex.join([sys.executable, "-c", FAMILY]), stop_seconds=0.5)
    supervisor.start()
    try:
        wait_until(lambda: "family" in caplog.text and "deaf" in caplog.text, "it runs")
        assert supervisor._process is not None
        keeper = psutil.Process(supervisor._process.pid)
        wait_until(lambda: len(living(keeper)) == 5, "all five run")
        family = living(keeper)
    finally:
        supervisor.stop()
    assert not keeper.is_running()
    assert not any(child.is_running() for child in family)


def test_a_command_that_does_not_exist_is_told_and_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its name is in the log, and the pauses grow."""
    caplog.set_level(logging.INFO, "gateway.engine")
    supervisor = command_supervisor("/nowhere/engine --port 1")
    supervisor.start()
    try:
        wait_until(lambda: supervisor.starts == 2, "it is tried again")
        assert "/nowhere/engine: No such file or directory" in caplog.text
        assert "the engine died with status 127" in caplog.text
    finally:
        supervisor.stop()


def test_output_is_passed_on_line_by_line_within_bounds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Progress bars, bytes that are no text, and a line without an end."""
    caplog.set_level(logging.INFO, "gateway.engine.output")
    endless = b"x" * (5 * LONGEST_LINE_BYTES)
    pipe = io.BufferedReader(io.BytesIO(b"one\n10%\r20%\r\n\xff\xfe\n\n" + endless + b"\nlast"))
    relay_output(pipe)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[:4] == ["one", "10%", "20%", "\ufffd\ufffd"]
    assert lines[-1] == "last"
    assert "".join(lines[4:-1]) == endless.decode()
    assert max(map(len, lines)) <= 2 * LONGEST_LINE_BYTES


@pytest.mark.parametrize("command", ["   ", "engine 'without end"])
def test_a_command_that_cannot_be_read_stops_the_start(command: str) -> None:
    """One line that names the variable."""
    with pytest.raises(SettingsError, match="GATEWAY_ENGINE_COMMAND"):
        load_settings(engine_command=command)


# The start script for rented machines

FAKE_ENGINE = str(Path(hub.__file__).parent / "fake_engine.py")
SCRIPT = Path(__file__).parents[2] / "deploy" / "rented" / "on-start.sh"


def fake_gpu(folder: Path, card: str) -> None:
    """An nvidia-smi that knows one card, and a gateway that is installed."""
    folder.mkdir(parents=True, exist_ok=True)
    smi = folder / "nvidia-smi"
    smi.write_text(
        "#!/bin/sh\ncase $1 in\n"
        f"*compute_cap*) echo '{card}' ;;\n"
        "*memory.used*) echo '0, 19874, 24564, 61' ;;\nesac\n"
    )
    smi.chmod(0o755)
    venv = folder / "venv" / "bin"
    venv.mkdir(parents=True)
    gateway = venv / "speech-gateway"
    gateway.write_text(f'#!/bin/sh\nexec {sys.executable} -m gateway "$@"\n')
    gateway.chmod(0o755)


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """What the rented container's environment holds."""
    return {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "HOME": os.environ.get("HOME", "/"),
        "SPEECH_GATEWAY_VENV": str(folder / "venv"),
        **settings,
    }


def refusal(folder: Path, **settings: str) -> str:
    """What the script says as it refuses to start."""
    done = subprocess.run(
        [str(SCRIPT)],
        env=environment(folder, **settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    return done.stderr


def test_the_start_script_refuses_what_cannot_work(tmp_path: Path) -> None:
    """Blackwell, a public port without keys, and no GPU: one sentence each, before any download."""
    fake_gpu(tmp_path / "new", "NVIDIA B200, 10.0, 183359")
    said = refusal(tmp_path / "new", GATEWAY_API_KEYS="me=sg-0123456789abcdef")
    assert "NVIDIA B200 has compute capability 10.0 (Blackwell or later)" in said
    fake_gpu(tmp_path / "old", "NVIDIA GeForce RTX 4090, 8.9, 24564")
    assert "public: set GATEWAY_API_KEYS" in refusal(tmp_path / "old")
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("bash", "dirname", "env"):
        (bare / name).symlink_to(f"/usr/bin/{name}")
    said = refusal(tmp_path, PATH=str(bare), GATEWAY_API_KEYS="me=sg-0123456789abcdef")
    assert "nvidia-smi is missing" in said


def test_the_start_script_runs_engine_and_gateway_and_ends_both(tmp_path: Path) -> None:
    """The engine gets what its makers document; the log tells of the GPU; SIGTERM ends all."""
    fake_gpu(tmp_path, "NVIDIA GeForce RTX 4090, 8.9, 24564")
    engine = tmp_path / "engine"
    engine.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        f"json.dump(sys.argv[1:], open({str(tmp_path / 'arguments')!r}, 'w'))\n"
        f"os.execv({sys.executable!r}, [sys.executable, {FAKE_ENGINE!r}, *sys.argv[1:]])\n"
    )
    engine.chmod(0o755)
    voices = tmp_path / "voices of mine"
    voices.mkdir()
    (voices / "config.json").write_text("{}")
    ports = free_port(), free_port()
    settings = environment(
        tmp_path,
        GATEWAY_API_KEYS="me=sg-0123456789abcdef",
        GATEWAY_PORT=str(ports[0]),
        GATEWAY_VOICES_DIR=str(voices),
        HIGGS_PORT=str(ports[1]),
        HIGGS_ENGINE_PROGRAM=str(engine),
        HF_HOME=str(tmp_path / "cache"),
        SPEECH_GATEWAY_PYTHON=sys.executable,
        SPEECH_GATEWAY_GPU_LOG_SECONDS="1",
    )
    log = tmp_path / "log"
    with (
        log.open("wb") as file,
        hub.running() as server,
        subprocess.Popen(
            [str(SCRIPT)], env={**settings, "HF_ENDPOINT": server.url}, stderr=file
        ) as run,
    ):
        try:
            serve = ServeProcess(f"http://127.0.0.1:{ports[0]}", run)
            wait_until(lambda: ready(serve) or run.poll() is not None, "it is ready")
            assert speak(serve) == 401
            below = psutil.Process(run.pid).children(recursive=True)
            run.send_signal(signal.SIGTERM)
            assert run.wait(120) == 0, log.read_text()
            wait_until(lambda: not any(p.is_running() for p in below), "nothing is left")
        finally:
            run.kill()
    assert json.loads((tmp_path / "arguments").read_text()) == [
        *("--served-model-name", "higgs-audio-v2-generation-3B-base"),
        *("--model", str(tmp_path / "cache" / "snapshots" / hub.MODEL_COMMIT)),
        *("--audio-tokenizer-type", str(tmp_path / "cache" / "snapshots" / hub.CODEC_COMMIT)),
        *("--limit-mm-per-prompt", "audio=50"),
        *("--max-model-len", "8192"),
        *("--host", "127.0.0.1"),
        *("--port", str(ports[1])),
        *("--gpu-memory-utilization", "0.8"),
        "--disable-mm-preprocessor-cache",
        "--disable-log-requests",
        *("--voice-presets-dir", str(voices)),
    ]
    assert "GPU 0: 19874 of 24564 MiB in use, 61 % busy" in log.read_text()


def test_the_start_script_runs_our_own_engine_on_any_card(tmp_path: Path) -> None:
    """Blackwell too, without the makers' weights, with the options that it is given."""
    for package in ("torch", "transformers"):
        pytest.importorskip(package, reason=f"needs {package}: scripts/install higgs-test")
    fake_gpu(tmp_path, "NVIDIA B200, 10.0, 183359")
    ports = free_port(), free_port()
    settings = environment(
        tmp_path,
        GATEWAY_API_KEYS="me=sg-0123456789abcdef",
        GATEWAY_PORT=str(ports[0]),
        GATEWAY_VOICES_DIR=str(tmp_path / "voices"),
        HIGGS_PORT=str(ports[1]),
        HIGGS_ENGINE_OPTIONS="--model random-tiny --device cpu",
        SPEECH_GATEWAY_ENGINE="higgs",
        SPEECH_GATEWAY_PYTHON=sys.executable,
    )
    log = tmp_path / "log"
    with (
        log.open("wb") as file,
        subprocess.Popen([str(SCRIPT)], env=settings, stderr=file) as run,
    ):
        try:
            serve = ServeProcess(f"http://127.0.0.1:{ports[0]}", run)
            wait_until(lambda: ready(serve) or run.poll() is not None, "it is ready")
            found = httpx.get(f"http://127.0.0.1:{ports[1]}/capabilities").json()
            assert found["engine"] == "higgs"
            run.send_signal(signal.SIGTERM)
            assert run.wait(120) == 0, log.read_text()
        finally:
            run.kill()


def ready(serve: ServeProcess) -> bool:
    """Whether a gateway says that it is."""
    try:
        return httpx.get(serve.url + "/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
