"""The proxies that are compared, each as a process in front of one engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from loadtest.peers.load import KEY
from loadtest.processes import answers, free_port, running_serve, wait_until

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".cache" / "peers"
PACKAGES = ("litellm[proxy]", "vllm-router")
SENTENCE = (
    "Line %06d: fifteen plain words make up this sentence, which a voice reads to us right now."
)


@dataclass(frozen=True, slots=True)
class Running:
    """A proxy that serves.

    Attributes:
        port: Where.
        process: Its process; its children count with it. None is the engine itself.
    """

    port: int
    process: psutil.Process | None

    def cpu_seconds(self) -> float:
        """What the process tree has used, by the operating system's accounting."""
        if self.process is None:
            return 0.0
        tree = [self.process, *self.process.children(recursive=True)]
        return float(sum(each.cpu_times().user + each.cpu_times().system for each in tree))

    def resident_mib(self) -> float:
        """Memory of the process tree."""
        if self.process is None:
            return 0.0
        tree = [self.process, *self.process.children(recursive=True)]
        return float(sum(each.memory_info().rss for each in tree)) / 2**20


@dataclass(frozen=True, slots=True)
class Peer:
    """A proxy to compare with.

    Attributes:
        name: In the table.
        start: Serves in front of an engine's port; raises LookupError with what is missing.
        response_format: What is asked for.
        share: Of the requests, where it is too slow for all of them.
    """

    name: str
    start: Callable[[int, ExitStack], Running]
    response_format: str = "wav"
    share: float = 1.0

    def body(self) -> bytes:
        """The request, with `%06d` where its number belongs."""
        fields = {"model": "stub", "voice": "en_woman", "input": SENTENCE}
        return json.dumps({**fields, "response_format": self.response_format}).encode()


@contextmanager
def _process(command: list[str], port: int, path: str, **environment: str) -> Iterator[Running]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=log, stderr=log
        )
        try:
            url = f"http://127.0.0.1:{port}{path}"
            wait_until(lambda: answers(url) or process.poll() is not None, url, 120)
            if process.poll() is not None:
                log.seek(0)
                said = log.read()[-400:].decode(errors="replace")
                raise LookupError(f"{command[0]} ended: {said}")
            yield Running(port, psutil.Process(process.pid))
        finally:
            process.terminate()
            process.wait(30)


def start_stub(port: int, *options: str) -> Callable[[ExitStack], Running]:
    """The engine: see `loadtest.peers.stub`."""
    command = [sys.executable, "-m", "loadtest.peers.stub", str(port), *options]
    return lambda stack: stack.enter_context(_process(command, port, "/health"))


def _direct(engine: int, _: ExitStack) -> Running:
    return Running(engine, None)


def _nginx(engine: int, stack: ExitStack) -> Running:
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        raise LookupError("nginx is not installed (apt-get install nginx-light)")
    port = free_port()
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="nginx-"))
    config = Path(folder, "nginx.conf")
    config.write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;\n"
        "events { worker_connections 16384; }\n"
        f"http {{ access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};\n"
        f" fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};\n"
        f" upstream engine {{ server 127.0.0.1:{engine}; keepalive 256; }}\n"
        f" keepalive_requests 1000000;\n"
        f" server {{ listen 127.0.0.1:{port} backlog=8192; location / {{\n"
        "  proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection '';\n"
        "  proxy_buffering off; }}}\n".replace("}}}", "} } }")
    )
    return stack.enter_context(_process([nginx, "-c", str(config)], port, "/health"))


def _module(name: str) -> Callable[[int, ExitStack], Running]:
    def start(engine: int, stack: ExitStack) -> Running:
        port = free_port()
        address = f"http://127.0.0.1:{engine}"
        command = [sys.executable, "-m", f"loadtest.peers.{name}", str(port), address]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        wait_until(lambda: _listens(port), f"{name} listens")
        return Running(port, psutil.Process(process.pid))

    return start


def _listens(port: int) -> bool:
    import socket  # noqa: PLC0415

    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def start_gateway(engine: int, stack: ExitStack) -> Running:
    """The gateway, with a key, and more slots than there are streams."""
    log = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  (the stack closes it)
    serve = stack.enter_context(
        running_serve(
            stderr=log,
            upstreams=f"http://127.0.0.1:{engine}",
            api_keys=f"load={KEY}",
            max_in_flight=8192,
            max_connections=16_384,
        )
    )
    return Running(int(serve.url.rpartition(":")[2]), psutil.Process(serve.process.pid))


def install() -> None:
    """Put the peers that come from PyPI into an environment of their own."""
    if (VENV / "installed").exists():
        return
    print(f"Installing {', '.join(PACKAGES)} into {VENV} (some minutes)")
    subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    subprocess.run([str(VENV / "bin" / "pip"), "install", "-q", *PACKAGES], check=True)
    (VENV / "installed").touch()


def _installed(command: str) -> str:
    path = VENV / "bin" / command
    if not path.exists():
        raise LookupError(f"{command} is not installed (run without --offline)")
    return str(path)


def _vllm_router(engine: int, stack: ExitStack) -> Running:
    port, metrics = free_port(), free_port()
    address = f"http://127.0.0.1:{engine}"
    command = [_installed("vllm-router"), "--worker-urls", address, "--policy", "round_robin",
               "--host", "127.0.0.1", "--port", str(port),
               "--prometheus-port", str(metrics)]  # fmt: skip
    return stack.enter_context(_process(command, port, "/health"))


def _litellm(engine: int, stack: ExitStack) -> Running:
    port = free_port()
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="litellm-"))
    config = Path(folder, "config.yaml")
    config.write_text(
        "model_list:\n  - model_name: stub\n    litellm_params:\n      model: openai/stub\n"
        f"      api_base: http://127.0.0.1:{engine}/v1\n      api_key: none\n"
        f"general_settings:\n  master_key: {KEY}\n"
    )
    command = [_installed("litellm"), "--config", str(config), "--host", "127.0.0.1",
               "--port", str(port), "--num_workers", "1", "--telemetry", "False"]  # fmt: skip
    return stack.enter_context(
        _process(command, port, "/health/liveliness", LITELLM_LOG="ERROR", NO_DOCS="True")
    )


PEERS = (
    Peer("direct", _direct, "pcm"),
    Peer("nginx, unbuffered", _nginx),
    Peer("vllm-router", _vllm_router),
    Peer("bare ASGI relay", _module("bare_relay")),
    Peer("gateway, pcm", start_gateway, "pcm"),
    Peer("gateway, wav", start_gateway),
    Peer("gateway, mp3", start_gateway, "mp3", 0.1),
    Peer("LiteLLM proxy", _litellm, "wav", 0.2),
    Peer("naive proxy", _module("naive_proxy"), "wav", 0.1),
)
