"""A client that takes nothing of what it is sent is cut off; one that only takes it slowly is not.

What counts is what its machine acknowledges, not what this process could hand to the kernel: the
kernel takes data in large gulps, so that from here a slow reader looks like one that has stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import socket
import struct
import termios

logger = logging.getLogger("gateway.connection")

SEND_BUFFER_BYTES = 256 * 1024  # in the kernel; it would grow to megabytes for who does not read
LEAST_TAKEN_BYTES = 16 * 1024  # in each send timeout of 60 s: a quarter of the slowest codec's pace


class SlowReader:
    """Watches how a connection's client takes what is sent.

    Args:
        transport: The connection.
        timeout_seconds: In each of these, while it is behind, it must take some.
    """

    def __init__(self, transport: asyncio.Transport, timeout_seconds: float) -> None:
        self._transport = transport
        self._timeout_seconds = timeout_seconds
        self._socket = transport.get_extra_info("socket")
        self._timer: asyncio.TimerHandle | None = None
        self._untaken_bytes = 0
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    def watch(self) -> None:
        """Watch until `stop`; idempotent."""
        if self._timer is None:
            self._untaken_bytes = self._outstanding_bytes()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._timeout_seconds, self._judge)

    def stop(self) -> None:
        """It has caught up, or is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _judge(self) -> None:
        self._timer = None
        left = self._outstanding_bytes()
        if left and self._untaken_bytes - left < LEAST_TAKEN_BYTES:
            logger.warning("a client took nothing of its answer in time: connection aborted")
            self._transport.abort()
        else:
            self.watch()

    def _outstanding_bytes(self) -> int:
        """What the client's machine has not acknowledged, in this process and in the kernel."""
        size: int = self._transport.get_write_buffer_size()
        descriptor = self._socket.fileno()
        if descriptor >= 0:
            with contextlib.suppress(OSError):  # Linux tells; elsewhere the first number must do
                queued = fcntl.ioctl(descriptor, termios.TIOCOUTQ, struct.pack("i", 0))
                size += struct.unpack("i", queued)[0]
        return size
