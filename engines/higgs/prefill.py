"""Prefill: prompts into slots, in chunks that mix several requests, with shared prefixes kept.

A prompt's shared prefix (a voice's references) is always a chunk of its own, whether its keys are
computed or copied: the same request gets the same bits either way.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engines.higgs.generation import Generation, Prompt
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


@dataclass(slots=True)
class PrefillJob:
    """A prompt on its way into its slot.

    Attributes:
        done: Positions in the cache.
        prefix_key: Hash of the shared prefix, or None.
    """

    generation: Generation
    slot: int
    token_ids: Tensor
    audio_rows: Tensor
    audio_before: Tensor
    prefix_key: bytes | None
    done: int = 0

    @property
    def prompt(self) -> Prompt:
        """The request's prompt."""
        return self.generation.request.prompt

    def segment(self, budget: int) -> Segment:
        """Return the next positions, ending where the shared prefix does."""
        shared = self.prompt.shared_positions if self.prefix_key else 0
        stop = shared if self.done < shared else len(self.token_ids)
        end = min(stop, self.done + budget)
        rows = self.audio_rows[self.audio_before[self.done] : self.audio_before[end]]
        return Segment(self.slot, self.done, self.token_ids[self.done : end], rows)


def prefix_key(prompt: Prompt, audio_positions: int) -> bytes:
    """Return a hash of what stands in the shared positions."""
    content = hashlib.blake2b(prompt.token_ids[: prompt.shared_positions].tobytes())
    content.update(prompt.audio_rows[:audio_positions].tobytes())
    return content.digest()


class Prefiller:
    """Takes jobs in order and runs them chunk by chunk.

    Args:
        decoder: Computes.
        cache: Is filled.
        prefixes: Kept between requests.
        chunk_positions: Most positions of a chunk.
        coalesce: Mix jobs in a chunk. Without it a request's bits do not depend on its neighbours.
    """

    def __init__(
        self,
        decoder: Decoder,
        cache: Cache,
        prefixes: PrefixStore,
        *,
        chunk_positions: int,
        coalesce: bool,
    ) -> None:
        self._decoder = decoder
        self._cache = cache
        self._prefixes = prefixes
        self._chunk_positions = chunk_positions
        self._coalesce = coalesce
        self.jobs: deque[PrefillJob] = deque()
        self.positions_total = 0

    def add(self, generation: Generation, slot: int) -> None:
        """Queue a generation's prompt for a slot."""
        prompt = generation.request.prompt
        config = self._decoder.config
        token_ids = np.ascontiguousarray(prompt.token_ids)
        audio = np.isin(token_ids, (config.audio_token_id, config.audio_delay_token_id))
        before = np.concatenate(([0], audio.cumsum()))
        key = (
            prefix_key(prompt, before[prompt.shared_positions]) if prompt.shared_positions else None
        )
        self.jobs.append(
            PrefillJob(
                generation,
                slot,
                torch.from_numpy(token_ids),
                torch.from_numpy(np.ascontiguousarray(prompt.audio_rows)),
                torch.from_numpy(before),
                key,
            )
        )

    def warm_up(self) -> None:
        """Run every pair of buckets once in the scratch slot: each loads kernels at its first use.

        A size that the first request met would cost it some 100 ms (H100).
        """
        scratch, config = self._cache.keys.shape[1] - 1, self._decoder.config
        for texts in (0, *PREFILL_BUCKETS):
            for audios in (0, *PREFILL_BUCKETS):
                count = texts + audios
                if 0 < count <= min(PREFILL_BUCKETS[-1], self._cache.keys.shape[3]):
                    ids = torch.zeros(count, dtype=torch.int32)
                    ids[texts:] = config.audio_token_id
                    rows = torch.zeros(audios, config.codebooks, dtype=torch.int16)
                    self._decoder.prefill([Segment(scratch, 0, ids, rows)], self._cache)

    def run_chunk(self) -> list[PrefillJob]:
        """Prefill the next positions; return the jobs whose prompts are complete."""
        chosen: list[tuple[PrefillJob, Segment]] = []
        computed: set[bytes] = set()
        budget = self._chunk_positions
        waiting = sum(len(job.token_ids) - job.done for job in self.jobs)
        if self._coalesce and waiting >= 2 * budget:
            budget *= 2  # less of a chunk's time goes to reading the weights
        for job in self.jobs:
            if job.prefix_key and job.done < job.prompt.shared_positions:
                if job.prefix_key in computed:
                    continue  # a job before it computes the same prefix
                self._look_up(job)
                if job.done < job.prompt.shared_positions:
                    computed.add(job.prefix_key)
            segment = job.segment(budget)
            chosen.append((job, segment))
            budget -= len(segment.token_ids)
            if budget <= 0 or not self._coalesce:
                break
        self._decoder.prefill([segment for _, segment in chosen], self._cache)
        for job, segment in chosen:
            job.done += len(segment.token_ids)
            self.positions_total += len(segment.token_ids)
            if job.prefix_key and job.done == job.prompt.shared_positions:
                self._prefixes.keep(job.prefix_key, self._cache, job.slot, job.done)
        complete = [job for job, _ in chosen if job.done == len(job.token_ids)]
        for job in complete:
            self.jobs.remove(job)
        return complete

    def _look_up(self, job: PrefillJob) -> None:
        """Copy a stored prefix, until the job has begun to compute it itself."""
        if job.done or not job.prefix_key:
            return
        if self._prefixes.restore(job.prefix_key, self._cache, job.slot):
            job.done = job.prompt.shared_positions
