"""The CPU voice: real speech without a GPU, for a first run, for tests and for small loads.

Each stream has one piece in a bounded pool of threads and at most one ahead of its client, so a
long text never blocks a short one and a client that leaves costs no more than the piece in hand.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from engines.cpu.pitch import UnreadableAudioError, reference_pitch_hz
from engines.cpu.presets import Cast, Timbre
from engines.cpu.synth import CpuSynthesiser, CpuVoiceUnavailableError
from engines.cpu.text import Piece, has_sound, pieces, readable, refusal
from engines.voice import BYTES_PER_TOKEN, PRESETS, Job, UnspeakableError, Voice, cut_frames
from gateway.text.cuts import SPEAKER_TAG

SILENCE_TOKENS = 8  # 0.32 s, for a text without a sound

__all__ = ["CpuVoice", "CpuVoiceUnavailableError"]


def available_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class CpuVoice(Voice):
    """A `Voice` (engines/voice.py) that speaks English on the CPU.

    Args:
        threads: Worker threads; default: one a core. Pieces of all streams are worked off first
            come, first served.

    Attributes:
        running: Streams that are being generated.
        pieces_synthesised_total: Pieces turned into sound, also those that nobody waited for.
        aborted_total: Streams whose client left before the end.
        audio_tokens_total: Audio tokens handed out.
    """

    def __init__(self, threads: int | None = None) -> None:
        self.model_id: str = "hibari-cpu"
        self.presets: tuple[str, ...] = PRESETS
        self.threads = threads or available_cores()
        self.running = 0
        self.pieces_synthesised_total = 0
        self.aborted_total = 0
        self.audio_tokens_total = 0
        self._counting = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._synthesiser: CpuSynthesiser | None = None

    def __repr__(self) -> str:
        """Tell what it is doing."""
        return (
            f"CpuVoice(threads={self.threads}, running={self.running},"
            f" pieces={self.pieces_synthesised_total}, aborted={self.aborted_total})"
        )

    async def start(self) -> None:
        """Load the model (half a second) and say a first sentence.

        Raises:
            CpuVoiceUnavailableError: The extra `cpu` is not installed.
        """
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="cpu-voice")
        try:
            self._synthesiser = await asyncio.get_running_loop().run_in_executor(
                pool, CpuSynthesiser
            )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        self._pool = pool

    def capabilities(self) -> dict[str, Any]:
        """English, and of a reference only the pitch."""
        return {"engine": "cpu", "languages": ["en"], "references": "pitch"}

    async def stop(self) -> None:
        """Let the pieces in hand end, drop the others, release the model."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown, wait=True, cancel_futures=True)
        self._synthesiser = None

    async def generate(self, job: Job) -> AsyncGenerator[bytes, None]:
        """Yield the job's speech, one piece of text an item, each of whole audio tokens.

        Raises:
            UnspeakableError: Before the first item: the text is (in more than a small part) of a
                script that the voice cannot say, or a reference is no readable audio.
        """
        if self._pool is None or self._synthesiser is None:
            raise RuntimeError("CpuVoice.start() comes before generate()")
        self.running += 1
        stream = _Stream(self, self._pool, self._synthesiser, job)
        try:
            while pcm := await stream.next_item():
                self.audio_tokens_total += len(pcm) // BYTES_PER_TOKEN
                yield pcm
        except (asyncio.CancelledError, GeneratorExit):
            self.aborted_total += 1
            raise
        finally:
            stream.drop()
            self.running -= 1

    def count_piece(self) -> None:
        """Count a synthesised piece; called by worker threads."""
        with self._counting:
            self.pieces_synthesised_total += 1


class _Stream:
    """One job's way through the pool; holds at most one piece there."""

    def __init__(
        self, voice: CpuVoice, pool: ThreadPoolExecutor, synthesiser: CpuSynthesiser, job: Job
    ) -> None:
        self._voice = voice
        self._pool = pool
        self._synthesiser = synthesiser
        self._job = job
        self._left_bytes = cut_frames(job.max_tokens) * BYTES_PER_TOKEN
        self._script: Iterator[tuple[Piece, Timbre]] | None = None
        self._in_hand: asyncio.Future[bytes] | None = None
        self._silent = True

    async def next_item(self) -> bytes:
        """The next piece's sound, bounded by the job's max_tokens; empty at the end."""
        if self._script is None:
            loop = asyncio.get_running_loop()
            self._script = await loop.run_in_executor(self._pool, _prepare, self._job)
            self._submit(self._script)
        while self._in_hand is not None:
            pcm = (await self._in_hand)[: self._left_bytes]
            self._in_hand = None
            self._left_bytes -= len(pcm)
            self._submit(self._script)
            if pcm:
                self._silent = False
                return pcm
        if self._silent:  # emoji, arrows, decoration: nothing to pronounce is no fault
            self._silent = False
            return bytes(min(SILENCE_TOKENS * BYTES_PER_TOKEN, max(0, self._left_bytes)))
        return b""

    def drop(self) -> None:
        """Forget the piece in the pool: it does not start, or its sound is thrown away."""
        if self._in_hand is not None:
            self._in_hand.cancel()
            self._in_hand = None

    def _submit(self, script: Iterator[tuple[Piece, Timbre]]) -> None:
        following = next(script, None) if self._left_bytes > 0 else None
        if following is not None:
            loop = asyncio.get_running_loop()
            self._in_hand = loop.run_in_executor(self._pool, self._say, *following)

    def _say(self, piece: Piece, timbre: Timbre) -> bytes:
        pcm = self._synthesiser.pcm(piece.text, timbre, piece.pause_seconds)
        self._voice.count_piece()
        return pcm


def _prepare(job: Job) -> Iterator[tuple[Piece, Timbre]]:
    """Read the text and the references, which may take some milliseconds; the rest is lazy."""
    text = readable(job.text)
    reason = refusal(text)
    if reason is not None:
        raise UnspeakableError(reason)
    try:
        pitches_hz = [reference_pitch_hz(audio) for _, audio in job.references]
        speakers = [SPEAKER_TAG.match(transcript) for transcript, _ in job.references]
    except UnreadableAudioError as error:
        raise UnspeakableError("The reference audio cannot be read.") from error
    numbers = [int(tag[1]) if tag else place for place, tag in enumerate(speakers)]
    # The first reference of a speaker holds: those behind it are context of a long dialogue.
    by_speaker = dict(zip(reversed(numbers), reversed(pitches_hz), strict=True))
    cast = Cast(job.preset, job.system_prompt, by_speaker)
    return ((piece, cast.timbre(piece.speaker)) for piece in pieces(text) if has_sound(piece.text))
