"""What the decode step knows of each slot, on the device.

State belongs to a slot, never to a row of the batch: a row only names the slot it works for.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engines.higgs.generation import CODEBOOKS, STREAM_BOS, Sampling

# Scores divided by what lies beyond are infinite, or not numbers. The first is vLLM's bound.
COLDEST, HOTTEST = 0.01, 100.0
MOST_TOP_K = 1 << 16  # of what int32 holds; more than there are codes


class Field(IntEnum):
    """Columns of `SlotState.integers`."""

    POSITION = 0  # where the step writes the keys of the newest row
    LAST_ROW = 1  # index of the newest row in `rows`
    STATUS = 2
    COUNTDOWN = 3  # -1, or steps since a codebook first drew EOS
    END_ROW = 4  # the generation ends when this row of `rows` is written
    NO_EOS_BEFORE = 5  # EOS is not drawn for rows before this one
    TOP_K = 6
    SEED_LOW = 7
    SEED_HIGH = 8
    WINDOW = 9
    REPEAT_LIMIT = 10
    TEMPERATURE = 11  # float32 bits
    TOP_P = 12  # float32 bits


class Status(IntEnum):
    """How a slot stands after a step."""

    IDLE = 0
    RUNNING = 1
    STOPPED = 2  # the end countdown is through
    FULL = 3  # END_ROW is written
    NOT_A_NUMBER = 4


FIELDS = 16
# Row 0 of a generation stands here; before it the last rows of the prompt's references, which
# repetition-aware sampling looks at.
FIRST_ROW = 16


@dataclass(slots=True)
class SlotState:
    """Tensors of all slots; the last slot is a scratch one for unused rows of a batch.

    Attributes:
        integers: int32 [slots, 16], columns as in `Field`.
        rows: int32 [slots, 16 + rows, 8], delayed code rows; -1 where there is none.
    """

    integers: Tensor
    rows: Tensor

    @classmethod
    def empty(cls, slots: int, context: int, device: torch.device) -> SlotState:
        """Return idle slots."""
        integers = torch.zeros(slots, FIELDS, dtype=torch.int32, device=device)
        integers[:, Field.LAST_ROW] = FIRST_ROW
        rows = torch.zeros(slots, FIRST_ROW + context, CODEBOOKS, dtype=torch.int32, device=device)
        return cls(integers, rows)


def new_slot_fields(
    sampling: Sampling, *, seed: int, position: int, max_frames: int, never_stop: bool
) -> npt.NDArray[np.int32]:
    """Return the int32 [16] state of a slot whose prompt of `position` positions is cached."""
    fields = np.zeros(FIELDS, np.int32)
    # Row 0 is all BOS by the delay pattern, whatever the logits say: it is there from the start.
    fields[Field.POSITION] = position
    fields[Field.LAST_ROW] = FIRST_ROW
    fields[Field.STATUS] = Status.RUNNING
    fields[Field.COUNTDOWN] = -1
    fields[Field.END_ROW] = FIRST_ROW + max_frames + CODEBOOKS - 1
    fields[Field.NO_EOS_BEFORE] = fields[Field.END_ROW] + 1 if never_stop else 0
    fields[Field.TOP_K] = min(sampling.top_k, MOST_TOP_K)
    seed_words = np.array([seed & 0xFFFFFFFF, seed >> 32], np.uint32).view(np.int32)
    fields[[Field.SEED_LOW, Field.SEED_HIGH]] = seed_words
    fields[Field.WINDOW] = sampling.repetition_window
    fields[Field.REPEAT_LIMIT] = sampling.repetition_limit
    temperature = sampling.temperature and min(max(sampling.temperature, COLDEST), HOTTEST)
    floats = np.array([temperature, sampling.top_p], np.float32).view(np.int32)
    fields[[Field.TEMPERATURE, Field.TOP_P]] = floats
    return fields


def first_rows(prompt_rows: npt.NDArray[np.int16]) -> npt.NDArray[np.int32]:
    """Return int32 [17, 8]: the prompt's last rows (-1 where there is none), then all BOS."""
    rows = np.full((FIRST_ROW + 1, CODEBOOKS), -1, np.int32)
    tail = prompt_rows[-FIRST_ROW:]
    if len(tail):
        rows[FIRST_ROW - len(tail) : FIRST_ROW] = tail
    rows[FIRST_ROW] = STREAM_BOS
    return rows
