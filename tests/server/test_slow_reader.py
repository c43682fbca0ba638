"""Who takes some of an answer is waited for, who takes nothing is cut off."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast

import pytest

from gateway.server.slow_reader import LEAST_TAKEN_BYTES, SlowReader

TIMEOUT_SECONDS = 0.02


class Line:
    """A transport whose client takes some bytes whenever it is looked at."""

    def __init__(self, connection: socket.socket, outstanding: int, taken: int) -> None:
        self.aborted = asyncio.Event()
        self.looks = 0
        self._connection = connection
        self._outstanding = outstanding
        self._taken = taken

    def get_extra_info(self, name: str) -> socket.socket:
        """The socket."""
        assert name == "socket"
        return self._connection

    def get_write_buffer_size(self) -> int:
        """What is left."""
        self.looks += 1
        left = self._outstanding
        self._outstanding = max(0, left - self._taken)
        return left

    def abort(self) -> None:
        """Note that the gateway has given up."""
        self.aborted.set()


@pytest.fixture
def connection() -> Iterator[socket.socket]:
    """One end of a connection on which nothing is outstanding."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        yield client


def run(connection: socket.socket, outstanding: int, taken: int) -> Line:
    """Watch until the client is cut off, or has been looked at several times."""

    async def main() -> Line:
        line = Line(connection, outstanding, taken)
        reader = SlowReader(cast("Any", line), TIMEOUT_SECONDS)
        reader.watch()
        reader.watch()
        assert line.looks == 1
        with suppress(TimeoutError):
            await asyncio.wait_for(line.aborted.wait(), 6 * TIMEOUT_SECONDS)
        reader.stop()
        return line

    return asyncio.run(main())


@pytest.mark.parametrize("taken", [0, 1, LEAST_TAKEN_BYTES - 1])
def test_who_takes_less_than_any_player_is_cut_off(connection: socket.socket, taken: int) -> None:
    """At the first look."""
    line = run(connection, 10 * LEAST_TAKEN_BYTES, taken)
    assert line.aborted.is_set()
    assert line.looks == 2


@pytest.mark.parametrize("taken", [LEAST_TAKEN_BYTES, 3 * LEAST_TAKEN_BYTES])
def test_who_takes_enough_is_waited_for(connection: socket.socket, taken: int) -> None:
    """However long it takes."""
    assert not run(connection, 100 * LEAST_TAKEN_BYTES, taken).aborted.is_set()


def test_who_has_taken_everything_is_not_cut_off(connection: socket.socket) -> None:
    """The last bytes are fewer than what is asked for."""
    assert not run(connection, 10, 10).aborted.is_set()
