"""Draws the next code row of every slot and moves the slots on, inside the step's graph.

The rules are those of transformers' `generation_higgs_audio_v2.py`: the delay pattern forces BOS at
the start and EOS at the end, temperature, top-k and top-p apply per codebook, and
repetition-aware sampling draws a code again from the plain softmax where the window holds it too
often. One difference: codes that tie at a threshold of top-k or top-p all stay.

A draw is the largest of score + Gumbel noise (which is a draw from the softmax). The noise is
Philox of the request's seed, the row and the code, so it depends on nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engines.higgs.generation import CODEBOOKS
from engines.higgs.kernels.triton_import import runs_kernels, tl, triton
from engines.higgs.state import FIRST_ROW, Field, SlotState, Status

_RAW_DRAW = CODEBOOKS  # the second draw's noise counts on from the eight codebooks' own
_NOISE_STRIDE = 2048  # codes of a codebook, rounded up


def sample_rows(
    logits: Tensor, slots: Tensor, state: SlotState, *, stream_bos: int, stream_eos: int
) -> Tensor:
    """Draw the next row of each slot of the batch; changes nothing.

    Args:
        logits: [batch, 8 * codebook_size].
        slots: int32 [batch].
        state: Of all slots.
        stream_bos: The code of the delay's start.
        stream_eos: The code of the end.

    Returns:
        int32 [batch, 8]; -1 where the logits are not numbers.
    """
    if not runs_kernels(logits):
        return sample_rows_twin(logits, slots, state, stream_bos=stream_bos, stream_eos=stream_eos)
    size = logits.shape[1] // CODEBOOKS
    out = torch.empty(logits.shape[0], CODEBOOKS, dtype=torch.int32, device=logits.device)
    _sample_rows[(logits.shape[0], CODEBOOKS)](
        logits, slots, state.integers, state.rows, out, state.rows.stride(0),
        SIZE=size, BOS=stream_bos, EOS=stream_eos, BOOKS=CODEBOOKS, FIELDS=state.integers.shape[1],
        BLOCK=triton.next_power_of_2(size), FIRST=FIRST_ROW, num_warps=2,
    )  # fmt: skip
    return out


@triton.jit
def _order(x):
    """Map float32 to int32 with the same order."""
    bits = x.to(tl.int32, bitcast=True)
    return tl.where(bits >= 0, bits, bits ^ 0x7FFFFFFF)


@triton.jit
def _threshold(ordered, weights, limit, low):
    """Find the smallest key from `low` on above which less than `limit` of the weights stands."""
    high = tl.max(ordered, axis=0)
    for _ in range(32):
        middle = (low & high) + ((low ^ high) >> 1)
        above = tl.sum(tl.where(ordered > middle, weights, 0), axis=0)
        low = tl.where(above < limit, low, tl.minimum(middle + 1, high))
        high = tl.where(above < limit, middle, high)
    return high


@triton.jit
def _gumbel(seed, offsets):
    uniform = tl.maximum(tl.rand(seed, offsets), 1e-12)
    return -tl.log(-tl.log(uniform))


@triton.jit
def _sample_rows(
    logits, slots, integers, rows, out, rows_stride,
    SIZE: tl.constexpr, BOS: tl.constexpr, EOS: tl.constexpr, BOOKS: tl.constexpr,
    FIELDS: tl.constexpr, BLOCK: tl.constexpr, FIRST: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    book = tl.program_id(1)
    slot = tl.load(slots + row).to(tl.int64)
    fields = integers + slot * FIELDS
    last_row = tl.load(fields + 1)
    countdown = tl.load(fields + 3)
    row_index = last_row + 1 - FIRST
    codes = tl.arange(0, BLOCK)
    raw = tl.load(
        logits + row * BOOKS * SIZE + book * SIZE + codes, mask=codes < SIZE, other=float("-inf")
    ).to(tl.float32)
    is_nan = raw != raw  # noqa: PLR0124 - Triton has no isnan of its own
    broken = tl.sum(is_nan.to(tl.int32), axis=0) > 0
    raw = tl.where(is_nan, 0.0, raw)  # whatever is drawn of it is not used
    if last_row + 1 < tl.load(fields + 5):
        raw = tl.where(codes == EOS, float("-inf"), raw)

    temperature = tl.load(fields + 11).to(tl.float32, bitcast=True)
    top_p = tl.load(fields + 12).to(tl.float32, bitcast=True)
    top_k = tl.load(fields + 6)
    seed = (tl.load(fields + 8).to(tl.uint32, bitcast=True).to(tl.uint64) << 32) | tl.load(
        fields + 7
    ).to(tl.uint32, bitcast=True).to(tl.uint64)
    stream = row_index * (2 * BOOKS) + book
    greedy = temperature == 0.0
    scores = raw / tl.where(greedy, 1.0, temperature)
    ordered = _order(scores)
    kth = tl.min(_order(tl.full([BLOCK], float("-inf"), tl.float32)), axis=0)
    if (top_k > 0) & (top_k < SIZE):
        kth = _threshold(ordered, tl.full([BLOCK], 1, tl.int32), top_k, kth)
    kept = (ordered >= kth) & (codes < SIZE)
    peak = tl.max(scores, axis=0)
    mass = tl.where(kept, tl.exp(scores - peak), 0.0)
    if top_p < 1.0:
        limit = top_p * tl.sum(mass, axis=0)
        kept = kept & (ordered >= _threshold(ordered, mass, limit, kth))
    noise = _gumbel(seed, stream * BLOCK + codes)
    drawn = tl.argmax(tl.where(kept, scores + tl.where(greedy, 0.0, noise), float("-inf")), axis=0)
    forced_bos = row_index <= book
    forced_eos = (countdown >= 0) & (book <= countdown)
    drawn = tl.where(forced_bos, BOS, tl.where(forced_eos, EOS, drawn))

    window = tl.load(fields + 9)
    if window > 0:
        back = tl.arange(0, FIRST)
        past = tl.load(
            rows + slot * rows_stride + (last_row - back) * BOOKS + book,
            mask=back < window,
            other=-1,
        )
        repeats = tl.sum(((past == drawn) & (past != BOS) & (past != EOS)).to(tl.int32), axis=0)
        if repeats >= tl.load(fields + 10):
            noise = _gumbel(seed, (stream + BOOKS) * BLOCK + codes)
            drawn = tl.argmax(tl.where(codes < SIZE, raw + noise, float("-inf")), axis=0)
    tl.store(out + row * BOOKS + book, tl.where(broken, -1, drawn))


def sample_rows_twin(
    logits: Tensor, slots: Tensor, state: SlotState, *, stream_bos: int, stream_eos: int
) -> Tensor:
    """Plain PyTorch of `sample_rows`."""
    raw = logits.float().view(logits.shape[0], CODEBOOKS, -1).clone()
    size = raw.shape[2]
    broken = raw.isnan().any(-1)
    raw.masked_fill_(raw.isnan(), 0.0)
    fields = state.integers[slots.long()]
    floats = fields[:, [Field.TEMPERATURE, Field.TOP_P]].contiguous().view(torch.float32)
    last_row = fields[:, Field.LAST_ROW]
    raw[(last_row + 1 < fields[:, Field.NO_EOS_BEFORE]), :, stream_eos] = -torch.inf
    row_index = last_row + 1 - FIRST_ROW
    books = torch.arange(CODEBOOKS, device=raw.device)

    temperature = floats[:, 0, None, None]
    scores = raw / torch.where(temperature == 0, 1.0, temperature)
    descending = scores.sort(-1, descending=True).values
    top_k = fields[:, Field.TOP_K]
    rank = torch.where((top_k > 0) & (top_k < size), top_k, size).long() - 1
    threshold = descending.gather(-1, rank[:, None, None].expand(-1, CODEBOOKS, 1))
    kept = scores >= threshold
    mass = torch.where(descending >= threshold, (descending - descending[..., :1]).exp(), 0.0)
    above = mass.cumsum(-1) - mass
    limit = floats[:, 1, None, None] * mass.sum(-1, keepdim=True)
    inside = ((above < limit).sum(-1) - 1).clamp(min=0)  # the likeliest always stays
    off = (floats[:, 1] >= 1.0)[:, None, None]
    kept &= off | (scores >= descending.gather(-1, inside[..., None]))

    stream = row_index[:, None] * (2 * CODEBOOKS) + books
    seeds = fields[:, [Field.SEED_LOW, Field.SEED_HIGH]].long() & 0xFFFFFFFF
    noise = torch.where(temperature == 0, 0.0, gumbel_twin(seeds, stream, size))
    drawn = torch.where(kept, scores + noise, -torch.inf).argmax(-1).int()
    countdown = fields[:, Field.COUNTDOWN, None]
    forced_eos = (countdown >= 0) & (books <= countdown)
    drawn = torch.where(forced_eos, stream_eos, drawn)
    drawn = torch.where(row_index[:, None] <= books, stream_bos, drawn)

    back = torch.arange(FIRST_ROW, device=raw.device)
    past = state.rows[slots.long()[:, None], last_row[:, None].long() - back]
    looked_at = (back < fields[:, Field.WINDOW, None])[..., None]
    counted = (past == drawn[:, None]) & (past != stream_bos) & (past != stream_eos) & looked_at
    again = (counted.sum(1) >= fields[:, Field.REPEAT_LIMIT, None]) & looked_at[:, 0]
    if again.any():
        redrawn = (raw + gumbel_twin(seeds, stream + _RAW_DRAW, size)).argmax(-1).int()
        drawn = torch.where(again, redrawn, drawn)
    return torch.where(broken, -1, drawn).int()


def gumbel_twin(seeds: Tensor, stream: Tensor, size: int) -> Tensor:
    """Return the noise that the kernel draws: float32 [batch, 8, size].

    Philox 4x32-10 (Salmon et al., 2011) of the seed with the counter (offset, 0, 0, 0), as Triton's
    `tl.rand`.

    Args:
        seeds: int64 [batch, 2], the low and the high word.
        stream: int32 [batch, 8], number of the draw.
        size: Codes of a codebook.
    """
    word = 0xFFFFFFFF
    first = stream.long()[..., None] * _NOISE_STRIDE + torch.arange(size, device=stream.device)
    counter = [first, *[torch.zeros_like(first)] * 3]
    low, high = seeds[:, 0, None, None], seeds[:, 1, None, None]
    for _ in range(10):
        a, b = counter[0] * 0xD2511F53, counter[2] * 0xCD9E8D57
        mixed = (b >> 32) ^ counter[1] ^ low, b, (a >> 32) ^ counter[3] ^ high, a
        counter = [each & word for each in mixed]
        low, high = (low + 0x9E3779B9) & word, (high + 0xBB67AE85) & word
    signed = counter[0].int()
    uniform = torch.where(signed < 0, -signed - 1, signed).float() * 4.6566127342e-10
    return -(-uniform.clamp(min=1e-12).log()).log()


def advance(row: Tensor, slots: Tensor, state: SlotState, *, stream_eos: int) -> Tensor:
    """Write drawn rows into their running slots and move the slots on.

    Args:
        row: int32 [batch, 8], as `sample_rows` returns it.
        slots: int32 [batch]; a slot stands in it once (the scratch slot, which never runs, may
            stand in it often).
        state: Changed in place.
        stream_eos: The code that ends a codebook.

    Returns:
        int32 [batch, 10]: the row, its index (0 is the all-BOS row) and the slot's `Status`.
    """
    out = torch.empty(row.shape[0], CODEBOOKS + 2, dtype=torch.int32, device=row.device)
    if not runs_kernels(row):
        return advance_twin(row, slots, state, stream_eos=stream_eos)
    _advance[(row.shape[0],)](
        row, slots, state.integers, state.rows, out, state.rows.stride(0),
        EOS=stream_eos, BOOKS=CODEBOOKS, FIELDS=state.integers.shape[1], FIRST=FIRST_ROW,
        num_warps=1,
    )  # fmt: skip
    return out


@triton.jit
def _advance(
    drawn, slots, integers, rows, out, rows_stride,
    EOS: tl.constexpr, BOOKS: tl.constexpr, FIELDS: tl.constexpr, FIRST: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    slot = tl.load(slots + row).to(tl.int64)
    fields = integers + slot * FIELDS
    books = tl.arange(0, BOOKS)
    codes = tl.load(drawn + row * BOOKS + books)
    status = tl.load(fields + 2)
    next_row = tl.load(fields + 1) + 1
    countdown = tl.load(fields + 3)
    ends = tl.sum((codes == EOS).to(tl.int32), axis=0)
    tl.store(out + row * (BOOKS + 2) + books, codes)
    tl.store(out + row * (BOOKS + 2) + BOOKS, next_row - FIRST)
    if status == 1:
        if tl.min(codes, axis=0) < 0:
            status = 4  # the slot keeps its last good row, which steps under way may still read
        else:
            tl.store(rows + slot * rows_stride + next_row * BOOKS + books, codes)
            started = (countdown >= 0) | (ends > 0)
            status = tl.where(next_row >= tl.load(fields + 4), 3, status)
            status = tl.where(ends == BOOKS, 2, status)
            tl.store(fields + 0, tl.load(fields + 0) + 1)
            tl.store(fields + 1, next_row)
            tl.store(fields + 3, tl.where(started, countdown + 1, -1))
        tl.store(fields + 2, status)
    tl.store(out + row * (BOOKS + 2) + BOOKS + 1, status)


def advance_twin(row: Tensor, slots: Tensor, state: SlotState, *, stream_eos: int) -> Tensor:
    """Plain PyTorch of `advance`, slot by slot."""
    out = torch.empty(row.shape[0], CODEBOOKS + 2, dtype=torch.int32, device=row.device)
    for place, (codes, slot) in enumerate(zip(row, slots.tolist(), strict=True)):
        fields = state.integers[slot]  # a view, through which the slot moves on
        next_row, countdown = int(fields[Field.LAST_ROW]) + 1, int(fields[Field.COUNTDOWN])
        if fields[Field.STATUS] == Status.RUNNING and codes.amin() < 0:
            fields[Field.STATUS] = Status.NOT_A_NUMBER.value
        elif fields[Field.STATUS] == Status.RUNNING:
            ends = int((codes == stream_eos).sum())
            state.rows[slot, next_row] = codes
            fields[Field.POSITION] += 1
            fields[Field.LAST_ROW] = next_row
            fields[Field.COUNTDOWN] = countdown + 1 if countdown >= 0 or ends else -1
            if ends == CODEBOOKS:
                fields[Field.STATUS] = Status.STOPPED.value
            elif next_row >= fields[Field.END_ROW]:
                fields[Field.STATUS] = Status.FULL.value
        out[place, :CODEBOOKS] = codes
        out[place, CODEBOOKS] = next_row - FIRST_ROW
        out[place, CODEBOOKS + 1] = fields[Field.STATUS]
    return out
