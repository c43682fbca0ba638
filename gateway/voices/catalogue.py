"""Every voice that a request may name, with its recording: what surfaces ask and change.

The library's changes run one at a time, in a thread of their own: a change decodes a stranger's
file and may wait for another process; streams that need the codecs' threads must not wait with it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Concatenate, ParamSpec, TypeVar

from gateway.errors import LibraryUnusable, QueueFull, VoiceNotFound
from gateway.text.sanitise import sanitise_text
from gateway.upstream.dialect import Reference
from gateway.voices.aliases import fold
from gateway.voices.library.config_entry import LibraryVoice
from gateway.voices.library.config_file import Snapshot
from gateway.voices.library.library import VoiceLibrary
from gateway.voices.resolve import ChosenVoice, choose_voice, names_of_voices, recorded_voice

logger = logging.getLogger("gateway.voices")

MOST_CHANGES = 16  # that run or wait; each holds an upload of at most 10 MiB
RETRY_AFTER_SECONDS = 2.0
PURGE_INTERVAL_SECONDS = 600.0
MOST_REMEMBERED_NAMES = 1024

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass
class VoiceCatalogue:
    """The library's voices, the engines' presets, and the aliases of both.

    Attributes:
        default: The voice of requests that name none: a preset or an alias.
        aliases: From the settings.
        everywhere: Whether all engines have a preset.
        library: The voice library.
        threads: Where recordings are read.
    """

    default: str
    aliases: Mapping[str, str]
    everywhere: Callable[[str], bool]
    library: VoiceLibrary
    threads: Executor
    _told: bool = False
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)
    _changes: int = 0

    def __post_init__(self) -> None:
        """Remember what names mean, as long as library and engines stay the same."""
        self._find = partial(choose_voice, default=self.default, aliases=self.aliases)
        self._found = lru_cache(MOST_REMEMBERED_NAMES)(self._find)
        self._found_in = self.snapshot

    @property
    def snapshot(self) -> Snapshot:
        """The library's voices as they are now."""
        return self.library.snapshot

    @property
    def names(self) -> list[str]:
        """Every name that may stand as a request's voice."""
        return names_of_voices(self.aliases, self.library.listed(), self.snapshot)

    async def change(
        self,
        work: Callable[Concatenate[VoiceLibrary, Parameters], Result],
        *arguments: Parameters.args,
        **named: Parameters.kwargs,
    ) -> Result:
        """Run one of the library's methods that block.

        Raises:
            QueueFull: Too many changes wait.
            GatewayError: What the method raises.
        """
        if self._changes >= MOST_CHANGES:
            raise QueueFull(
                "Too many voices are being changed.", retry_after_seconds=RETRY_AFTER_SECONDS
            )
        self._changes += 1
        try:
            async with self._one_at_a_time:
                return await asyncio.to_thread(work, self.library, *arguments, **named)
        finally:
            self._changes -= 1

    async def run(self, interval_seconds: float = PURGE_INTERVAL_SECONDS) -> None:
        """Delete the library's files that are past their grace, now and then, until cancelled."""
        while True:
            await asyncio.sleep(interval_seconds)
            if self.snapshot.removed:
                try:
                    await asyncio.to_thread(self.library.purge)
                except LibraryUnusable as error:
                    logger.warning("voice library: %s", error.message)

    def choose(self, name: str | None) -> ChosenVoice:
        """What a client's word for a voice means; None is the default voice.

        Raises:
            VoiceNotFound: With the list of names that work.
        """
        listed, library = tuple(self.library.listed()), self.snapshot
        if library is not self._found_in:
            self._found_in = library
            self._found.cache_clear()  # or each name would keep the whole library of its time
        find = self._find if library.gone else self._found  # what vanished is hidden for a time
        found = find(name, listed, library)
        if isinstance(found, LibraryVoice):
            return recorded_voice(found, listed, library, time.time())
        wanted = fold(self.default if name is None else name)
        if wanted in self.aliases and not self.everywhere(found):
            # Engines with other voices: the name goes along, and each has its own voice for it.
            return ChosenVoice(wanted)
        return ChosenVoice(found)

    @property
    def default_name(self) -> str | None:
        """The preset or library voice that is the default one; None where nobody has it."""
        with suppress(VoiceNotFound):
            found = self._find(None, self.library.listed(), self.snapshot)
            return found.name if isinstance(found, LibraryVoice) else found
        return None

    def check_default(self) -> None:
        """Log, once, that no engine and no library has the default voice."""
        if self._told or not self.library.listed() or self.default_name is not None:
            return
        self._told = True
        logger.error("GATEWAY_DEFAULT_VOICE: nobody has the voice %r", self.default)

    async def recording_of(self, voice: LibraryVoice) -> Reference:
        """A library voice as a reference.

        Raises:
            VoiceNotFound: It was removed in between.
            InvalidRequest: A file put there by hand that cannot be a reference.
        """
        return Reference(await self.read_audio(voice), sanitise_text(voice.prompt_transcript))

    async def read_audio(self, voice: LibraryVoice) -> bytes:
        """A library voice's recording, a WAV file.

        Raises:
            VoiceNotFound, InvalidRequest.
        """
        read = partial(self.library.read_audio, voice)
        return await asyncio.get_running_loop().run_in_executor(self.threads, read)
