"""Every Triton kernel against its plain PyTorch twin: on a GPU, or in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the extra `gpu` is not installed")
pytest.importorskip("triton", reason="the extra `gpu` is not installed")
pytest.importorskip("transformers", reason="the extra `gpu` is not installed")

from engines.higgs.generation import Sampling  # noqa: E402
from engines.higgs.kernels import attention, fused, quantised, sampler, snake, triton_import  # noqa: E402
from engines.higgs.state import FIRST_ROW, Field, SlotState, new_slot_fields  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPES = [torch.float32, torch.bfloat16] if torch.cuda.is_available() else [torch.float32]


@pytest.fixture(autouse=True)
def kernels() -> Iterator[None]:
    """Run the kernels on a CPU's tensors too."""
    torch.manual_seed(0)
    triton_import.dispatch.interpret = True
    yield
    triton_import.dispatch.interpret = False


def close(got: Any, wanted: Any) -> None:
    """Compare by the relative error of the whole, in the tolerance of the dtype."""
    assert got.shape == wanted.shape
    assert got.dtype == wanted.dtype
    error = (got.float() - wanted.float()).norm() / wanted.float().norm()
    assert error < (1e-5 if wanted.dtype == torch.float32 else 1e-2), error


def normal(*shape: int, dtype: Any = torch.float32) -> Any:
    """Return normal numbers on the device."""
    return torch.randn(*shape, device=DEVICE).to(dtype)


def slots_of(*numbers: int) -> Any:
    """Return slot numbers as the kernels take them."""
    return torch.tensor(numbers, dtype=torch.int32, device=DEVICE)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_sum_of_embeddings_equals_its_twin(dtype: Any) -> None:
    """Slots out of order, each with its own newest row."""
    rows = torch.randint(0, 1026, (4, 40, 8), dtype=torch.int32, device=DEVICE)
    last = torch.tensor([17, 20, 39, 16], dtype=torch.int32, device=DEVICE)
    table = normal(8 * 1026, 96, dtype=dtype)
    arguments = (rows, slots_of(2, 0, 3), last, table)
    close(fused.embed_rows(*arguments), fused.embed_rows_twin(*arguments))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("added", [True, False])
def test_the_norm_equals_its_twin_and_adds_in_place(dtype: Any, *, added: bool) -> None:
    """A width that is no power of two."""
    residual, weight = normal(5, 96, dtype=dtype), normal(96, dtype=dtype)
    update = normal(5, 96, dtype=dtype) if added else None
    other = residual.clone()
    close(
        fused.add_rms_norm(residual, update, weight, 1e-5),
        fused.add_rms_norm_twin(other, update, weight, 1e-5),
    )
    close(residual, other)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rotation_and_cache_writes_equal_their_twin(dtype: Any) -> None:
    """Three query heads a key-value head; nothing else of the cache changes."""
    qkv = normal(3, (6 + 4) * 16, dtype=dtype)
    angles = torch.rand(64, 8, device=DEVICE) * 100
    rotary = torch.stack((angles.cos(), angles.sin()), 1)
    slots, positions = slots_of(3, 0, 2), slots_of(5, 63, 0)
    caches = [normal(4, 2, 64, 16, dtype=dtype) for _ in range(2)]
    others = [cache.clone() for cache in caches]
    close(
        fused.rotate_and_store(qkv, slots, positions, rotary, *caches),
        fused.rotate_and_store_twin(qkv, slots, positions, rotary, *others),
    )
    for cache, other in zip(caches, others, strict=True):
        close(cache, other)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_codecs_activation_equals_its_twin(dtype: Any) -> None:
    """A slope for each channel; the sums before it; zeros behind a row's own length."""
    shape = (2, 3, 1, 1100)
    hidden, residual = (
        normal(*shape, dtype=dtype).contiguous(memory_format=torch.channels_last) for _ in "ab"
    )
    alpha, bias = normal(1, 3, 1, dtype=dtype).abs() + 0.1, normal(3, dtype=dtype)
    close(snake.snake(hidden.clone(), alpha, bias), snake.snake_twin(hidden, alpha, bias))
    ours, theirs = residual.clone(), residual.clone()
    lengths = slots_of(1050, 7)
    wanted = snake.snake_twin(hidden, alpha, bias, residual=theirs, total=theirs, lengths=lengths)
    got = snake.snake(hidden, alpha, bias, residual=ours, total=ours, lengths=lengths)
    close(got, wanted)
    close(ours, theirs)


@pytest.mark.parametrize("dtype", DTYPES)
def test_silu_equals_its_twin(dtype: Any) -> None:
    """More columns than one program takes."""
    gate_up = normal(2, 2 * 1100, dtype=dtype) * 5
    close(fused.silu_mul(gate_up), fused.silu_mul_twin(gate_up))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 3, 20])
def test_attention_equals_its_twin_at_every_length(dtype: Any, batch: int) -> None:
    """Lengths from one position to the whole slot, tiles begun and full."""
    keys, values = (normal(batch + 1, 2, 200, 16, dtype=dtype) for _ in range(2))
    positions = slots_of(*([199, 0, 63, 64, 127, 128, 5] * 3)[:batch])
    slots = torch.randperm(batch + 1)[:batch].int().to(DEVICE)
    arguments = (normal(batch, 6, 16, dtype=dtype), keys, values, slots, positions)
    close(attention.decode_attention(*arguments), attention.decode_attention_twin(*arguments))


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_of_prompts_equals_its_twin(dtype: Any) -> None:
    """Two slots, one begun before; rows in another order, one of them a filling."""
    counts, starts, slots = [70, 9], [30, 0], [2, 0]
    rows = sum(counts) + 1
    places = torch.randperm(rows, device=DEVICE)[: rows - 1].int()
    tiles = [[0, 64, 2, 30], [64, 6, 2, 94], [70, 9, 0, 0]]
    keys, values = (normal(3, 2, 128, 16, dtype=dtype) for _ in range(2))
    arguments = (normal(rows, 6, 16, dtype=dtype), keys, values, places)
    got = attention.prefill_attention(*arguments, torch.tensor(tiles, device=DEVICE).int())
    close(got, attention.prefill_attention_twin(*arguments, torch.tensor(tiles)))
    # And the twin against one whole product: a tile's mask and its slot's earlier positions.
    first = 0
    for count, start, slot in zip(counts, starts, slots, strict=True):
        query = arguments[0][places[first : first + count].long()].float()
        key, value = (part[slot, :, : start + count].float() for part in (keys, values))
        scores = torch.einsum("qhd,hkd->hqk", query, key.repeat_interleave(3, 0)) / 4
        at = torch.arange(count, device=DEVICE)[:, None] + start
        scores.masked_fill_(torch.arange(start + count, device=DEVICE) > at, -torch.inf)
        out = torch.einsum("hqk,hkd->qhd", scores.softmax(-1), value.repeat_interleave(3, 0))
        close(got[places[first : first + count].long()], out.reshape(count, -1).to(dtype))
        first += count


@pytest.mark.parametrize("bits", [8, 4])
def test_expanded_weights_equal_their_twin_and_hardly_differ_from_the_weight(bits: int) -> None:
    """8 bits within a half of a 127th of a row's largest; 4 bits within a 30th of a group's."""
    weight = normal(72, 256, dtype=DTYPES[-1])
    rounded = quantised.quantise(weight, bits)
    close(quantised.expand(rounded), quantised.expand_twin(rounded))
    error = (quantised.expand_twin(rounded).float() - weight.float()).abs().amax()
    assert error <= weight.float().abs().max() * 2 * (0.6 / 254 if bits == 8 else 0.6 / 15)


@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("rows", [1, 8, 70])
def test_projections_of_8_bits_equal_their_twin(
    parts: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs and rows that do not fill a tile; sums of parts."""
    weight = quantised.quantise(normal(72, 256, dtype=DTYPES[-1]), 8)
    x = normal(rows, 256, dtype=DTYPES[-1])
    wanted = torch.nn.functional.linear(x, quantised.expand_twin(weight))
    close(quantised.project(x, weight), wanted)
    monkeypatch.setattr(quantised, "_tile", lambda *_: (parts, 16, 64, 2, 3))
    got = quantised.project(x, weight)
    close(got if parts == 1 else got.sum(0).to(x.dtype), wanted)


@pytest.mark.skipif(DEVICE.type != "cuda", reason="PyTorch's kernel of 4 bits needs a GPU")
@pytest.mark.parametrize("rows", [1, 8, 512])
def test_projections_of_4_bits_equal_their_twin(rows: int) -> None:
    """PyTorch's own kernel with our rounding."""
    weight = quantised.quantise(normal(256, 512, dtype=torch.bfloat16), 4)
    x = normal(rows, 512, dtype=torch.bfloat16)
    wanted = torch.nn.functional.linear(x, quantised.expand_twin(weight))
    close(quantised.Tinygemm.of(weight)(x), wanted)


def test_norm_and_rotation_sum_the_parts_of_a_projection() -> None:
    """Three float32 parts, as their sum; rows of the first kind take their own weight."""
    parts = normal(3, 5, 96)
    weights = normal(96), normal(96)
    residual = normal(5, 96)
    other = residual.clone()
    first = (weights[1], 2)
    got = fused.add_rms_norm(residual, parts, weights[0], 1e-5, first=first)
    whole = fused.add_rms_norm_twin(other, parts.sum(0), weights[0], 1e-5)
    close(got[2:], whole[2:])
    close(got[:2], fused.add_rms_norm_twin(other, None, weights[1], 1e-5)[:2])
    caches = [torch.zeros(5, 1, 8, 16, device=DEVICE) for _ in range(4)]
    rotary = torch.rand(8, 2, 8, device=DEVICE)
    slots = slots_of(0, 1, 2, 3, 4)
    got = fused.rotate_and_store(parts, slots, slots, rotary, caches[0], caches[1])
    sums = parts.sum(0)
    close(got, fused.rotate_and_store_twin(sums, slots, slots, rotary, caches[2], caches[3]))
    close(caches[0], caches[2])
    close(caches[1], caches[3])


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.0),
        Sampling(),
        Sampling(temperature=1.3, top_k=5, top_p=0.3, repetition_window=3, repetition_limit=1),
    ],
)
def test_the_sampler_draws_what_its_twin_draws(sampling: Sampling) -> None:
    """The same noise, so the same codes: in the delay's rows, in the countdown and between."""
    batch = 6 if DEVICE.type == "cuda" else 2  # the interpreter is slow
    state = SlotState.empty(batch + 1, 64, DEVICE)
    for slot in range(batch):
        fields = new_slot_fields(
            sampling, seed=(5 << 40) + slot, position=9, max_frames=40, never_stop=slot == 1
        )
        state.integers[slot] = torch.from_numpy(fields).to(DEVICE)
    state.integers[:, Field.LAST_ROW] += torch.arange(batch + 1, device=DEVICE).int() * 5
    state.integers[batch - 1, Field.COUNTDOWN] = 2
    state.rows[:] = torch.randint(0, 6, state.rows.shape, device=DEVICE)
    slots = slots_of(*range(batch))[torch.randperm(batch)]
    for _ in range(3 if DEVICE.type == "cuda" else 1):
        logits = normal(batch, 8 * 1026) * 2
        logits.view(batch, 8, 1026)[:, :, :6] += 5  # so that the window is met
        got = sampler.sample_rows(logits, slots, state, stream_bos=1024, stream_eos=1025)
        twin = sampler.sample_rows_twin(logits, slots, state, stream_bos=1024, stream_eos=1025)
        assert got.tolist() == twin.tolist()


def test_slots_move_on_as_in_the_twin() -> None:
    """Running, ended by EOS, by length and by a code that is none; idle slots stand still."""
    ours = SlotState.empty(6, 64, DEVICE)
    ours.integers[:5, Field.STATUS] = 1
    ours.integers[:, Field.COUNTDOWN] = torch.tensor([-1, 3, -1, -1, -1, -1], device=DEVICE)
    ours.integers[:, Field.END_ROW] = FIRST_ROW + torch.tensor([9, 9, 1, 9, 9, 9], device=DEVICE)
    theirs = SlotState(ours.integers.clone(), ours.rows.clone())
    rows = torch.randint(0, 1024, (7, 8), dtype=torch.int32, device=DEVICE)
    rows[1, 0], rows[3], rows[4, 2] = 1025, 1025, -1
    slots = slots_of(0, 1, 2, 3, 4, 5, 5)
    got = sampler.advance(rows, slots, ours, stream_eos=1025)
    assert got.tolist() == sampler.advance_twin(rows, slots, theirs, stream_eos=1025).tolist()
    assert got[:, 9].tolist() == [1, 1, 3, 2, 4, 0, 0]
    assert ours.integers.tolist() == theirs.integers.tolist()
    assert ours.rows.tolist() == theirs.rows.tolist()
