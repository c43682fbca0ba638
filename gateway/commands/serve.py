"""The `serve` process: it owns the listening socket and the engine that it started."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import importlib.util
import logging
import logging.config
import os
import resource
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from types import FrameType

import uvicorn

from gateway.server.connections import Crowd
from gateway.server.engine_process import EngineSupervisor, Supervisor, command_supervisor
from gateway.server.http_protocol import bounded_protocol
from gateway.server.shutdown import Drain, DrainingServer
from gateway.server.signals import stop_signals_handled
from gateway.settings import Settings, SettingsError, load_settings, old_names, variable_name
from gateway.telemetry.logging import log_config

logger = logging.getLogger("gateway.serve")

KEEP_ALIVE_SECONDS = 75  # above that of clients' pools: they close first, so no request is lost
BACKLOG = 2048
SPARE_DESCRIPTORS = 512  # refused connections, log, libraries, voice files, pipes of encoders
STATUS_USAGE = 2
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
KEPT_BYTES = 64 << 20  # of freed memory, at most
LARGE_BYTES = 16 << 20  # what is as large as that is given back at once
COMMAND_ADDRESS = "http://127.0.0.1:8000"  # of an engine's command: the container's own port


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `speech-gateway serve`; everything else is a GATEWAY_ variable."""
    parser.add_argument("--host", help="address to listen on (GATEWAY_HOST)")
    parser.add_argument("--port", type=int, help="port to listen on (GATEWAY_PORT)")
    parser.add_argument(
        "--engine-command", help="start and watch over this engine (GATEWAY_ENGINE_COMMAND)"
    )


def run_serve(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status."""
    try:
        settings = load_settings(
            host=arguments.host,
            port=arguments.port,
            engine_command=arguments.engine_command,
        )
        logging.config.dictConfig(log_config(settings.log_level, settings.log_format))
        for sentence in old_names(os.environ):
            logger.warning(sentence)
        check_exposure(settings)
        check_engine(settings)
        make_folders(settings)
        listener = _listen(settings)
    except SettingsError as error:
        print(f"speech-gateway: {error}", file=sys.stderr)
        return STATUS_USAGE
    raise_descriptor_limit(settings)
    keep_freed_memory()
    with stop_signals_handled(_stop), ExitStack() as scope:
        scope.enter_context(listener)
        settings, engine = _start_engine(settings, scope)
        _serve(settings, listener, engine)
    return 0


def raise_descriptor_limit(settings: Settings) -> None:
    """Let this process open as many files as it may, and say so if that is too few.

    Every connection is a descriptor; many systems start processes with 1,024 and let them ask
    for more.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # macOS has a lower limit than it tells
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    needed = settings.max_connections + settings.slots + SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        logger.warning(
            "this process may open %d files, but GATEWAY_MAX_CONNECTIONS needs %d: raise the "
            "limit (ulimit -n) or lower the setting",
            soft,
            needed,
        )


def keep_freed_memory() -> None:
    """Have the C library keep the memory of one buffer of audio for the next.

    glibc gives it back to the system and takes it again page by page: 45 page faults for an answer
    of four seconds, a tenth of its processor time.
    """
    with contextlib.suppress(AttributeError):  # another C library, which has its own ways
        set_option = ctypes.CDLL(None).mallopt
        set_option(M_TRIM_THRESHOLD, KEPT_BYTES)
        set_option(M_MMAP_THRESHOLD, LARGE_BYTES)  # else it stays at 128 KiB once the other is set


def _start_engine(settings: Settings, scope: ExitStack) -> tuple[Settings, Supervisor | None]:
    """Start what engine this gateway is to start, and name its address in the settings."""
    engine: Supervisor
    if settings.engine_command:
        engine = command_supervisor(settings.engine_command)
        addresses = settings.upstreams or (COMMAND_ADDRESS,)
    elif not settings.upstreams:
        logger.info("no engine is configured (GATEWAY_UPSTREAMS): starting the CPU voice, English")
        engine = own = EngineSupervisor(relay=True)
        addresses = (own.address,)
    else:
        return settings, None
    scope.callback(engine.stop)
    engine.start()
    return settings.model_copy(update={"upstreams": addresses}), engine


def check_exposure(settings: Settings) -> None:
    """Refuse, or where that was allowed log, anonymous use from other machines.

    Raises:
        SettingsError: Other machines reach the gateway, it asks for no key, and nothing allows it.
    """
    if settings.guarded and not settings.key_ring().keys:
        logger.warning("keys are needed but there is none: nobody may use this gateway")
    if not (settings.exposed and settings.anonymous):
        return
    where = settings.published_address or settings.host
    if not settings.allow_anonymous:
        raise SettingsError(
            f"other machines reach {where} and no key would be asked for: make one with "
            "`speech-gateway keys new NAME --file keys.txt`, set GATEWAY_API_KEYS_FILE=keys.txt, "
            "or set GATEWAY_ALLOW_ANONYMOUS=true"
        )
    logger.warning("ANYBODY WHO REACHES %s MAY USE THIS GATEWAY without a key", where)


def check_engine(settings: Settings) -> None:
    """Refuse a start that would have no engine.

    Raises:
        SettingsError: None is named, and the CPU voice is not installed.
    """
    own_voice = not settings.upstreams and not settings.engine_command
    if own_voice and importlib.util.find_spec("hibari") is None:
        raise SettingsError(
            "GATEWAY_UPSTREAMS is empty and the CPU voice is not installed; "
            "name an engine's address, or install higgs-speech-gateway[cpu]"
        )


def make_folders(settings: Settings) -> None:
    """Make the folders that the gateway writes to, and write to them.

    Raises:
        SettingsError: One of them cannot be written; the message names its variable.
    """
    voices = "voices_dir" if settings.voices_dir else "data_dir"
    folders = [("data_dir", settings.data_dir), (voices, settings.voices_folder)]
    # A library that nothing changes may be read-only.
    for field, folder in folders[: 1 if settings.voice_changes == "off" else None]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise SettingsError(
                f"{variable_name(field)}: cannot write to {folder}: {error.strerror}"
            ) from None


def _listen(settings: Settings) -> socket.socket:
    """Open the listening socket; on `::` it takes IPv4 as well, where the system can.

    Raises:
        SettingsError: The address is not this machine's, or the port is taken.
    """
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            (host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both
        )
    except OSError as error:
        field = "port" if error.errno in {errno.EADDRINUSE, errno.EACCES} else "host"
        raise SettingsError(
            f"{variable_name(field)}: cannot listen on {host}, port {port}: {error.strerror}"
        ) from None


def _stop(number: int, frame: FrameType | None) -> None:
    """End the process; as process 1 of a container it would not end without a handler at all."""
    del number, frame
    raise SystemExit(0)


def greeting(settings: Settings, host: str, port: int) -> Iterator[str]:
    """The log lines of the start: the address, who may change voices, and a command to try.

    Args:
        settings: Those in force.
        host: The address that the socket is bound to.
        port: Its port.
    """
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    yield f"listening on {address}, before {', '.join(settings.upstreams)}"
    if settings.access_policy.voice_changes == "open":
        yield (
            "GATEWAY_VOICE_CHANGES is open: behind a proxy, everybody whom it lets in may change "
            "voices"
        )
    key = " -H 'Authorization: Bearer KEY'" if not settings.anonymous else ""
    yield (
        f"to try: curl {address}/v1/audio/speech{key} -H 'Content-Type: application/json' "
        """-d '{"model": "tts-1", "input": "Hello."}' -o hello.mp3"""
    )


def _serve(settings: Settings, listener: socket.socket, engine: Supervisor | None) -> None:
    """Serve in this process until a signal."""
    # Only here: whatever command is called, this module tells its arguments.
    from gateway.app import Application  # noqa: PLC0415  (start-up time)

    for line in greeting(settings, *listener.getsockname()[:2]):
        logger.info(line)
    drain = Drain()
    config = uvicorn.Config(
        partial(Application, settings, drain, engine),
        factory=True,
        log_config=log_config(settings.log_level, settings.log_format),
        access_log=False,
        http=bounded_protocol(Crowd(settings)),
        ws="none",
        lifespan="on",
        server_header=False,
        proxy_headers=False,  # nothing depends on a client's address or a proxy's scheme
        reset_contextvars=True,  # no context of one request leaks into the next one
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    DrainingServer(config, drain, settings.drain_seconds).run(sockets=[listener])
