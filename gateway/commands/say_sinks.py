"""Where `say` puts the audio: a file that appears only when it is complete, or a player.

A sink is a context: leaving it in peace completes it, leaving it with an error removes what there
is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, Protocol, Self

from gateway.audio.pcm import ENGINE_SAMPLE_RATE_HZ
from gateway.commands.say import SayError

BYTES_PER_SAMPLE = 2
PLAYER_END_SECONDS = 5.0  # a player that is stopped gets this long to close the sound device

# The players that read raw samples from a pipe, best first. ffplay's s16le is mono unless told
# otherwise, in every release; the option for it changed its name.
_RATE = str(ENGINE_SAMPLE_RATE_HZ)
PIPE_PLAYERS: dict[str, tuple[str, ...]] = {
    "ffplay": (
        *("-nodisp", "-autoexit", "-loglevel", "error"),
        *("-f", "s16le", "-sample_rate", _RATE, "-i", "-"),
    ),
    "aplay": ("-q", "-t", "raw", "-f", "S16_LE", "-c", "1", "-r", _RATE, "-"),
    "paplay": ("--raw", "--format=s16le", "--channels=1", f"--rate={_RATE}"),
}
FILE_PLAYERS = ("afplay",)


class Sink(Protocol):
    """A place for audio."""

    def __enter__(self) -> Self:
        """Open it."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Complete it, or remove what there is."""

    def write(self, data: bytes) -> None:
        """Take some bytes."""


class FileSink:
    """A file that takes its name only when it is complete.

    Args:
        path: The file; what stands there is replaced.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._file: BinaryIO | None = None
        self._append: Callable[[bytes], object]

    def __enter__(self) -> Self:
        """Open it beside its final place, so that a rename completes it.

        Raises:
            SayError: It cannot be written.
        """
        try:
            if self._path.is_dir():
                raise IsADirectoryError(0, "is a folder")
            self._file = self._part.open("wb")
        except OSError as error:
            raise SayError(f"cannot write {self._path}: {error.strerror}") from None
        self._begin(self._file)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give it its name, or remove it after an error."""
        file = self._file
        if file is None:
            return
        try:
            self._end()
            if kind is None:
                file.close()
                self._part.replace(self._path)
        except OSError as failure:
            if kind is None:
                raise SayError(f"cannot write {self._path}: {failure.strerror}") from None
        finally:
            with contextlib.suppress(OSError):
                file.close()
            self._part.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """Append.

        Raises:
            SayError: The disk is full, or the like.
        """
        try:
            self._append(data)
        except OSError as error:
            raise SayError(f"cannot write {self._path}: {error.strerror}") from None

    def _begin(self, file: BinaryIO) -> None:
        self._append = file.write

    def _end(self) -> None:
        pass


class WavSink(FileSink):
    """A WAV file of the samples that are written; its sizes are exact, as strict players want.

    Args:
        path: The file; what stands there is replaced.
    """

    def _begin(self, file: BinaryIO) -> None:
        self._wave = wave.open(file, "wb")  # noqa: SIM115  (`_end` closes it)
        self._wave.setparams((1, BYTES_PER_SAMPLE, ENGINE_SAMPLE_RATE_HZ, 0, "NONE", ""))
        self._append = self._wave.writeframesraw

    def _end(self) -> None:
        self._wave.close()  # goes back and writes the sizes


class PipePlayer:
    """A player that is fed with raw samples while they come.

    Args:
        name: What people call it.
        command: The program and its options.
    """

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self._name = name
        self._command = command

    def __enter__(self) -> Self:
        """Start it."""
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE)  # noqa: S603
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait until the last sample is heard; after an error, stop it.

        Raises:
            SayError: The player failed.
        """
        if kind is not None:
            self._process.terminate()
        with contextlib.suppress(OSError):
            self._pipe.close()
        try:
            status = self._process.wait(None if kind is None else PLAYER_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        if kind is None:
            check_player(self._name, status)

    def write(self, data: bytes) -> None:
        """Play; waits when the player is behind.

        Raises:
            SayError: The player has ended.
        """
        try:
            self._pipe.write(data)
            self._pipe.flush()
        except OSError:
            raise SayError(f"the player {self._name} ended before the speech did") from None

    @property
    def _pipe(self) -> IO[bytes]:
        if self._process.stdin is None:
            raise RuntimeError("the player has no pipe")
        return self._process.stdin


class FilePlayer(WavSink):
    """A player that wants a whole file.

    Args:
        name: What people call it.
        program: Its path.
    """

    def __init__(self, name: str, program: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="speech-gateway-")
        self._name = name
        self._command = (program, str(Path(self._folder.name) / "speech.wav"))
        super().__init__(Path(self._command[1]))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Play what came.

        Raises:
            SayError: The player failed.
        """
        with self._folder:
            super().__exit__(kind, error, traceback)
            if kind is None:
                status = subprocess.run(self._command, check=False).returncode  # noqa: S603
                check_player(self._name, status)


def check_player(name: str, status: int) -> None:
    """Look at a player's exit status.

    Raises:
        SayError: It is not 0.
    """
    if status:
        raise SayError(f"the player {name} failed with status {status}")


def find_player() -> Sink:
    """The first player that is installed.

    Raises:
        SayError: There is none.
    """
    for name, options in PIPE_PLAYERS.items():
        if program := shutil.which(name):
            return PipePlayer(name, (program, *options))
    for name in FILE_PLAYERS:
        if program := shutil.which(name):
            return FilePlayer(name, program)
    known = ", ".join([*PIPE_PLAYERS, *FILE_PLAYERS])
    raise SayError(f"no player found ({known}): write a file with -o")
