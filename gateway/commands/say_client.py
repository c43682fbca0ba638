"""The HTTP half of `say`: the answer goes into a sink as it comes.

A text that the gateway finds too long is spoken in parts; whatever fails becomes one line, in the
gateway's own words where it has some.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Self

import httpx
from tqdm import tqdm

from gateway.audio.pcm import ENGINE_SAMPLE_RATE_HZ
from gateway.commands.say import SayError, split_text
from gateway.commands.say_sinks import BYTES_PER_SAMPLE, Sink

# The gateway itself waits 30 s for a slot and 30 s for the first audio before it says no.
TIMEOUTS = httpx.Timeout(connect=5.0, write=30.0, read=90.0, pool=5.0)
PROBE_SECONDS = 2.0
START_SECONDS = 120.0  # a cold start of the CPU voice on a slow disk
STOP_SECONDS = 40.0  # above the gateway's own drain of 30 s
POLL_SECONDS = 0.1
ERROR_BODY_BYTES = 64 * 1024
PART_CHARACTERS = 4096  # OpenAI's API reference, speech endpoint: an `input` that any gateway takes
# Answers whose bytes may follow one another in one file; Ogg and FLAC files have one beginning.
JOINABLE_FORMATS = ("pcm", "mp3", "aac")


class _InputRefused(SayError):
    """The gateway does not take this text; it may be too long."""


@dataclass(frozen=True, slots=True)
class Voicing:
    """How to speak; None leaves it to the gateway.

    Attributes:
        response_format: As the API names it.
        voice: A voice's name.
        speed: Tempo factor.
        api_key: Bearer key.
    """

    response_format: str
    voice: str | None = None
    speed: float | None = None
    api_key: str | None = field(default=None, repr=False)

    def body(self, text: str) -> dict[str, object]:
        """The request's JSON."""
        body: dict[str, object] = {"input": text, "response_format": self.response_format}
        if self.voice is not None:
            body["voice"] = self.voice
        if self.speed is not None:
            body["speed"] = self.speed
        return body


def base_address(url: str) -> str:
    """A gateway's address without the `/v1` that OpenAI clients want at its end.

    Raises:
        SayError: It is no address.
    """
    if not url.startswith(("http://", "https://")):
        raise SayError(f"{url!r} is not an address like http://127.0.0.1:8888")
    return url.rstrip("/").removesuffix("/v1")


def speak(url: str, text: str, voicing: Voicing, sink: Sink) -> None:
    """Speak a text into the sink, in parts if need be.

    Raises:
        SayError: The gateway refused, failed or broke off.
    """
    address = base_address(url)
    headers = {"Authorization": f"Bearer {voicing.api_key}"} if voicing.api_key else {}
    try:
        with httpx.Client(headers=headers, timeout=TIMEOUTS) as client, _Progress(voicing) as bar:

            def say(part: str) -> None:
                _speak_part(client, address, voicing.body(part), sink, bar)

            try:
                say(text)
            except _InputRefused as refusal:
                parts = _parts_after(refusal, text, voicing.response_format)
                for index, part in enumerate(parts, 1):
                    bar.describe(f"part {index} of {len(parts)}")
                    say(part)
    except httpx.InvalidURL as error:
        raise SayError(f"{url!r} is not an address: {error}") from None
    except httpx.ConnectError as error:
        raise SayError(f"cannot reach {address}: {error}") from None
    except httpx.TimeoutException:
        raise SayError(f"{address} did not answer in time") from None
    except httpx.RemoteProtocolError:
        raise SayError(f"{address} broke off in the middle of the speech") from None
    except httpx.TransportError as error:
        raise SayError(f"the connection to {address} failed: {error}") from None


def _parts_after(refusal: _InputRefused, text: str, response_format: str) -> list[str]:
    """Parts of a text that was refused whole; the refusal again if its length was not the cause."""
    if len(text) <= PART_CHARACTERS:
        raise refusal
    if response_format not in JOINABLE_FORMATS:
        raise SayError(f"{refusal}; in parts it can be spoken as wav, pcm, mp3 or aac")
    return split_text(text, PART_CHARACTERS)


def _speak_part(
    client: httpx.Client, address: str, body: dict[str, object], sink: Sink, bar: _Progress
) -> None:
    received_bytes = 0
    with client.stream("POST", address + "/v1/audio/speech", json=body) as response:
        if response.status_code != httpx.codes.OK:
            raise _refusal(response)
        for data in response.iter_raw():
            sink.write(data)
            bar.advance(len(data))
            received_bytes += len(data)
    if not received_bytes:
        raise SayError(f"{address} answered without any audio")


def _refusal(response: httpx.Response) -> SayError:
    """What an error answer says: in OpenAI's envelope, or in whatever else it may be."""
    body = bytearray()
    for data in response.iter_raw():
        body += data
        if len(body) > ERROR_BODY_BYTES:
            break
    try:
        error = json.loads(body)["error"]
        message, param = error["message"], error.get("param")
    except (ValueError, LookupError, TypeError, AttributeError):
        message, param = response.reason_phrase or "no reason given", None
    # One line, and nothing that a terminal would obey.
    printable = "".join(c if c.isprintable() else " " for c in str(message)[:1000])
    kind = _InputRefused if param == "input" else SayError
    return kind(f"{printable} (status {response.status_code})")


class _Progress:
    """A bar on a terminal's stderr: seconds of audio where bytes tell them, else bytes."""

    def __init__(self, voicing: Voicing) -> None:
        raw = voicing.response_format == "pcm"
        self._unit_bytes = ENGINE_SAMPLE_RATE_HZ * BYTES_PER_SAMPLE if raw else 1024
        unit = "s of audio" if raw else "KiB"
        self._bar: tqdm[None] = tqdm(
            file=sys.stderr,
            disable=None,  # None: only where the stream is a terminal
            leave=False,
            bar_format="{desc}{n:.1f} " + unit + " in {elapsed}",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def describe(self, what: str) -> None:
        """Say which part is being spoken."""
        self._bar.set_description(what)

    def advance(self, received_bytes: int) -> None:
        """Count what came."""
        self._bar.update(received_bytes / self._unit_bytes)


def somebody_listens(url: str) -> bool:
    """Whether anything accepts connections there."""
    address = httpx.URL(url)
    try:
        with socket.create_connection((address.host, address.port or 80), PROBE_SECONDS):
            return True
    except OSError:
        return False


def _free_port() -> int:
    """A loopback port that nobody listens on now.

    Someone else may take it before the gateway does; the gateway then ends with a clear message.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def own_gateway() -> Iterator[str]:
    """Run a gateway for the block; yields its address when it is ready.

    Raises:
        SayError: It did not start.
    """
    port = _free_port()
    command = [sys.executable, "-m", "gateway", "serve", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--exit-with-parent"]
    with (
        tempfile.TemporaryFile() as log,
        # Its stdin is a pipe from here: should this process be killed, the gateway ends too.
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log) as process,  # noqa: S603
    ):
        try:
            _wait_until_ready(process, f"http://127.0.0.1:{port}", log)
            yield f"http://127.0.0.1:{port}"
        finally:
            _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], address: str, log: BinaryIO) -> None:
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(timeout=PROBE_SECONDS) as client:
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if client.get(address + "/ready").status_code == httpx.codes.OK:
                    return
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
                break
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    last = lines[-1] if lines else "it said nothing"
    raise SayError(f"the gateway for this call did not start: {last}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
