"""Prefill: prompts into slots, in chunks that mix several requests, with shared prefixes kept.

A prompt's shared prefix (a voice's references) is always a segment of its own, and where requests
must not change each other's bits a chunk of its own: they are the same, computed or copied.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engines.higgs.generation import CODEBOOKS, Generation, Prompt
from engines.higgs.model import PREFILL_BUCKETS, Cache, Decoder, Segment


class PrefixStore:
    """Keys and values of prompt prefixes, the least recently used going first.

    Args:
        most_positions: Positions of all prefixes together.
    """

    def __init__(self, most_positions: int) -> None:
        self._most_positions = most_positions
        self._stored: OrderedDict[bytes, tuple[Tensor, Tensor]] = OrderedDict()
        self.positions = 0
        self.hits_total = 0
        self.misses_total = 0

    def restore(self, key: bytes, cache: Cache, slot: int) -> bool:
        """Copy a prefix into a slot; False where it is not stored."""
        stored = self._stored.get(key)
        if stored is None:
            self.misses_total += 1
            return False
        self.hits_total += 1
        self._stored.move_to_end(key)
        count = stored[0].shape[2]
        cache.keys[:, slot, :, :count] = stored[0]
        cache.values[:, slot, :, :count] = stored[1]
        return True

    def keep(self, key: bytes, cache: Cache, slot: int, count: int) -> None:
        """Copy the first `count` positions of a slot, if there is room for them at all."""
        if count > self._most_positions or key in self._stored:
            return
        while self.positions + count > self._most_positions:
            _, (keys, _) = self._stored.popitem(last=False)
            self.positions -= keys.shape[2]
        self._stored[key] = (
            cache.keys[:, slot, :, :count].clone(),
            cache.values[:, slot, :, :count].clone(),
        )
        self.positions += count


@dataclass(slots=True, eq=False)
class PrefillJob:
    """A prompt on its way into its slot.

    Attributes:
        audio_before: How many audio positions stand before each position, and before the end.
        prefix_key: Hash of what stands in the shared positions.
        done: Positions in the cache.
    """

    generation: Generation
    prompt: Prompt
    audio_before: NDArray[np.int64]
    prefix_key: bytes
    done: int = 0

    def segments(self, budget: int) -> Iterator[Segment]:
        """Yield the next positions, one segment to the end of the shared prefix and one behind."""
        prompt, shared = self.prompt, self.prompt.shared_positions
        start, last = self.done, min(len(prompt.token_ids), self.done + budget)
        while start < last:
            end = min(shared, last) if start < shared else last
            rows = prompt.audio_rows[self.audio_before[start] : self.audio_before[end]]
            yield Segment(self.generation.slot, start, prompt.token_ids[start:end], rows)
            start = end


@dataclass(slots=True)
class Prefiller:
    """Takes jobs in order and runs them chunk by chunk.

    Attributes:
        decoder: Computes.
        cache: Is filled.
        prefixes: Kept between requests.
        chunk_positions: Most positions of a chunk.
        coalesce: Mix jobs in a chunk. Without it a request's bits do not depend on its neighbours.
        jobs: Those that are not complete.
        positions_total: Computed so far.
    """

    decoder: Decoder
    cache: Cache
    prefixes: PrefixStore
    chunk_positions: int
    coalesce: bool
    jobs: deque[PrefillJob] = field(default_factory=deque)
    positions_total: int = 0

    def add(self, generation: Generation) -> None:
        """Queue a generation's prompt for its slot."""
        prompt, config = generation.request.prompt, self.decoder.config
        audio = np.isin(prompt.token_ids, (config.audio_token_id, config.audio_delay_token_id))
        before = np.concatenate(([0], audio.cumsum()))
        content = hashlib.blake2b(prompt.token_ids[: prompt.shared_positions].tobytes())
        content.update(prompt.audio_rows[: before[prompt.shared_positions]].tobytes())
        self.jobs.append(PrefillJob(generation, prompt, before, content.digest()))

    def warm_up(self) -> None:
        """Run every pair of buckets once in the scratch slot: each loads kernels at its first use.

        A size that the first request met would cost it some 100 ms (H100).
        """
        scratch, config = self.cache.keys.shape[1] - 1, self.decoder.config
        for texts in (0, *PREFILL_BUCKETS):
            for audios in (0, *PREFILL_BUCKETS):
                count = texts + audios
                if 0 < count <= min(self.chunk_positions, self.cache.keys.shape[3]):
                    ids = np.zeros(count, np.int32)
                    ids[texts:] = config.audio_token_id
                    rows = np.zeros((audios, CODEBOOKS), np.int16)
                    self.decoder.prefill([Segment(scratch, 0, ids, rows)], self.cache)

    def run_chunk(self) -> list[Generation]:
        """Prefill the next positions; return the generations whose prompts are complete."""
        chosen: list[tuple[PrefillJob, Segment]] = []
        computed: set[bytes] = set()
        budget = self.chunk_positions
        for job in self.jobs:
            if not self._may_run(job, computed):
                continue
            for segment in job.segments(budget):
                chosen.append((job, segment))
                budget -= len(segment.token_ids)
                if not self.coalesce:
                    break
            if budget <= 0 or not self.coalesce:
                break
        self.decoder.prefill([segment for _, segment in chosen], self.cache)
        for job, segment in chosen:
            job.done += len(segment.token_ids)
            self.positions_total += len(segment.token_ids)
            if job.done == job.prompt.shared_positions:
                self.prefixes.keep(job.prefix_key, self.cache, job.generation.slot, job.done)
        complete = [job for job in self.jobs if job.done == len(job.prompt.token_ids)]
        for job in complete:
            self.jobs.remove(job)
        return [job.generation for job in complete]

    def _may_run(self, job: PrefillJob, computed: set[bytes]) -> bool:
        """Copy a stored prefix; False where a job before this one computes the same prefix."""
        shared, slot = job.prompt.shared_positions, job.generation.slot
        if job.done >= shared:
            return True
        if job.prefix_key in computed:
            return False
        # Looked up until the job has begun to compute it itself.
        if not job.done and self.prefixes.restore(job.prefix_key, self.cache, slot):
            job.done = shared
        else:
            computed.add(job.prefix_key)
        return True
