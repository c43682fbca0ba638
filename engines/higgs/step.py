"""The decode step: one CUDA graph for each size of batch, and its results read back behind it.

A graph holds embedding, layers, head, sampling, delay pattern and end countdown. Nothing in it
waits for the host: it names slots by a small tensor, and its output is copied to pinned memory
while the next step runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engines.higgs.generation import STREAM_BOS, STREAM_EOS
from engines.higgs.kernels.sampler import advance, sample_rows
from engines.higgs.model import Cache, Decoder, to_device
from engines.higgs.progress import shown
from engines.higgs.state import SlotState

READ_BEHIND_STEPS = 2  # the host may be this many steps behind before the loop waits for it,
READ_BLOCK_STEPS = 4  # and so many more where it reads several at once


def batch_sizes(slots: int, *, fixed: bool) -> list[int]:
    """Return the sizes of batch with a graph: powers of two and the number of slots."""
    sizes = [] if fixed else [1 << n for n in range(slots.bit_length()) if 1 << n < slots]
    return [*sizes, slots]


class StepResult:
    """Output of one step on its way to the host."""

    def __init__(self, host: Tensor, event: Any) -> None:
        self._host = host
        self._event = event

    def wait(self) -> npt.NDArray[np.int32]:
        """Return int32 [batch, 10] as `advance` gives it, once the device has written it."""
        if self._event is not None:
            self._event.synchronize()
        rows: npt.NDArray[np.int32] = self._host.numpy()
        return rows


class StepRunner:
    """Runs decode steps of any number of rows up to the number of slots.

    Args:
        decoder: Computes.
        state: Of all slots and the scratch slot, which is the last.
        cache: Of the same slots.
        sizes: Sizes of batch; the largest is the number of slots.
    """

    def __init__(
        self, decoder: Decoder, state: SlotState, cache: Cache, sizes: Sequence[int]
    ) -> None:
        self._decoder = decoder
        self._state = state
        self._cache = cache
        self._sizes = sorted(sizes)
        self._scratch = state.integers.shape[0] - 1
        device = decoder.device
        self._graphed = device.type == "cuda"
        self._graphs: dict[int, tuple[Any, Tensor]] = {}
        self._slots = {
            size: torch.full((size,), self._scratch, dtype=torch.int32, device=device)
            for size in self._sizes
        }
        self._size = 0
        # The ring is longer than the steps that can be unread.
        ring = [
            torch.empty(self._sizes[-1], 10, dtype=torch.int32, pin_memory=self._graphed)
            for _ in range(READ_BEHIND_STEPS + READ_BLOCK_STEPS + 1)
        ]
        self._ring = cycle(ring)

    def capture(self) -> None:
        """Compile the kernels and record the graphs; the current stream must be the loop's."""
        if not self._graphed:
            return
        pool = torch.cuda.graph_pool_handle()
        # The largest first: the smaller ones find their memory in the pool.
        for size in shown(self._sizes[::-1], "graphs"):
            slots = self._slots[size]
            for _ in range(2):
                self._step(slots)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, stream=torch.cuda.current_stream()):
                out = self._step(slots)
            self._graphs[size] = (graph, out)

    def choose(self, slots: Sequence[int]) -> None:
        """Name the slots of the steps to come, row by row."""
        self._size = next(size for size in self._sizes if size >= len(slots))
        named = [*slots, *[self._scratch] * (self._size - len(slots))]
        tensor = torch.tensor(named, dtype=torch.int32)
        self._slots[self._size].copy_(to_device(tensor, self._decoder.device))

    def run(self) -> StepResult:
        """Start one step of the slots chosen; returns at once on a GPU."""
        host = next(self._ring)[: self._size]
        if not self._graphed:
            host.copy_(self._step(self._slots[self._size]))
            return StepResult(host, None)
        graph, out = self._graphs[self._size]
        graph.replay()
        host.copy_(out, non_blocking=True)
        event = torch.cuda.Event(blocking=True)
        event.record()
        return StepResult(host, event)

    def _step(self, slots: Tensor) -> Tensor:
        state = self._state
        logits = self._decoder.decode(slots, state, self._cache)
        drawn = sample_rows(logits, slots, state, stream_bos=STREAM_BOS, stream_eos=STREAM_EOS)
        return advance(drawn, slots, state, stream_eos=STREAM_EOS)
