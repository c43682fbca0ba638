"""The sampler against transformers' own `_sample`, on 10,000 crafted logits, windows and seeds."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

torch = pytest.importorskip("torch", reason="the extra `gpu` is not installed")

from transformers import (  # noqa: E402
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.models.higgs_audio_v2 import generation_higgs_audio_v2 as theirs  # noqa: E402

from engines.higgs.generation import Sampling  # noqa: E402
from engines.higgs.kernels.sampler import sample_rows_twin  # noqa: E402
from engines.higgs.state import FIRST_ROW, Field, SlotState, new_slot_fields  # noqa: E402

SETS = 10_000
SIZE, BOS, EOS = 34, 32, 33  # a small codebook: repeats in the window are frequent
AUDIO, DELAY, AUDIO_BOS = 2, 3, 4  # text ids of the fake model


@dataclass(slots=True)
class Crafted:
    """Logits [sets, 8, 34], rows of the window [sets, 16, 8] newest last, and where each stands."""

    logits: Any
    window: Any
    row_index: Any
    countdown: Any


def craft(seed: int) -> Crafted:
    """Peaked and flat logits; rows within the delay and past it, in the countdown and before it."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.rand(SETS, 8, 1, generator=generator) * 6
    row_index = torch.randint(0, 24, (SETS,), generator=generator)
    countdown = torch.randint(-6, 8, (SETS,), generator=generator).clamp(min=-1)
    return Crafted(
        logits=torch.randn(SETS, 8, SIZE, generator=generator) * spread,
        window=torch.randint(0, SIZE, (SETS, FIRST_ROW, 8), generator=generator),
        row_index=row_index,
        countdown=torch.where(row_index > 8, countdown, -1),
    )


def theirs_drawn(crafted: Crafted, sampling: Sampling) -> tuple[Any, Any]:
    """Return the codes [sets, 8] and probabilities [sets, 8, 34] of one step of transformers."""
    delay = theirs.HiggsAudioV2DelayPatternLogitsProcessor(
        list(range(1, 9)), AUDIO_BOS, DELAY, BOS, EOS, 8, SIZE
    )
    steps = torch.arange(1, 9)
    delay.bos_delay_pattern = steps - 1 - crafted.row_index[:, None]
    delay.eos_delay_pattern = steps - crafted.countdown.clamp(min=0)[:, None]
    processors = LogitsProcessorList([delay])
    if sampling.temperature:
        processors.append(TemperatureLogitsWarper(sampling.temperature))
        if sampling.top_k:
            processors.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            processors.append(TopPLogitsWarper(sampling.top_p))
    config = GenerationConfig(do_sample=sampling.temperature > 0, output_scores=True)
    config.return_dict_in_generate = True
    if sampling.repetition_window:
        config.ras_win_len = sampling.repetition_window
        config.ras_win_max_num_repeat = sampling.repetition_limit
    last = torch.where(crafted.countdown >= 0, DELAY, AUDIO)
    fake = SimpleNamespace(
        config=SimpleNamespace(
            num_codebooks=8, codebook_size=SIZE, audio_stream_bos_id=BOS, audio_stream_eos_id=EOS,
            audio_token_id=AUDIO, audio_delay_token_id=DELAY, eos_token_id=9,
            is_encoder_decoder=False,
        ),
        _prefill=lambda *_a, **_k: SimpleNamespace(
            logits=crafted.logits.reshape(SETS, 1, -1), attentions=None, hidden_states=None
        ),
        _valid_auto_compile_criteria=lambda *_: False,
        __call__=None,
        _has_unfinished_sequences=lambda finished, *_a, **_k: not finished,
        _update_model_kwargs_for_generation=lambda _outputs, kwargs, **_k: kwargs,
    )  # fmt: skip
    config.is_assistant = False
    out = theirs.HiggsAudioV2GenerationMixin._sample(
        fake,
        last[:, None].repeat(1, 9),
        processors,
        StoppingCriteriaList([lambda ids, _scores: torch.ones(len(ids), dtype=torch.bool)]),
        config,
        audio_input_ids=crafted.window,
    )
    return out.audio_sequences[:, -1], out.scores[0].softmax(-1)


def ours_drawn(crafted: Crafted, sampling: Sampling) -> Any:
    """Return the codes [sets, 8] of our sampler, each set with its own seed."""
    state = SlotState.empty(SETS, 32, torch.device("cpu"))
    fields = new_slot_fields(sampling, seed=0, position=0, max_frames=10, never_stop=False)
    state.integers[:] = torch.from_numpy(fields)
    state.integers[:, Field.SEED_LOW] = torch.arange(SETS)
    state.integers[:, Field.LAST_ROW] = FIRST_ROW - 1 + crafted.row_index
    state.integers[:, Field.COUNTDOWN] = crafted.countdown
    at = state.integers[:, Field.LAST_ROW, None].long() - torch.arange(FIRST_ROW - 1, -1, -1)
    state.rows[torch.arange(SETS)[:, None], at] = crafted.window.int()
    slots = torch.arange(SETS, dtype=torch.int32)
    logits = crafted.logits.reshape(SETS, -1)
    return sample_rows_twin(logits, slots, state, stream_bos=BOS, stream_eos=EOS).long()


@pytest.mark.parametrize("seed", [0, 1])
def test_greedy_codes_equal_transformers(seed: int) -> None:
    """Without repetition-aware sampling, which draws at random in transformers too."""
    crafted, sampling = craft(seed), Sampling(temperature=0, repetition_window=0)
    assert torch.equal(ours_drawn(crafted, sampling), theirs_drawn(crafted, sampling)[0])


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(top_k=5, top_p=0.9),
        Sampling(temperature=0.7, top_k=0, top_p=1.0, repetition_window=0),
        Sampling(temperature=1.4, top_k=12, top_p=0.5, repetition_window=3, repetition_limit=1),
        Sampling(temperature=0, repetition_limit=1),
    ],
)
def test_drawn_codes_follow_the_distribution_of_transformers(sampling: Sampling) -> None:
    """The place of each draw in its set's own distribution is uniform, for theirs and for ours."""
    crafted = craft(2)
    torch.manual_seed(5)
    their_codes, first = theirs_drawn(crafted, sampling)
    if not sampling.temperature:
        first = torch.nn.functional.one_hot(first.argmax(-1), SIZE).float()
    final = first
    if sampling.repetition_window:
        window = crafted.window[:, -sampling.repetition_window :]
        counts = torch.nn.functional.one_hot(window, SIZE).sum(1)
        again = (counts >= sampling.repetition_limit) & (torch.arange(SIZE) < BOS)
        redrawn = (first * again).sum(-1, keepdim=True)
        final = first * ~again + redrawn * crafted.logits.softmax(-1)
    random = np.random.default_rng(1)
    for codes in (their_codes, ours_drawn(crafted, sampling)):
        chance = final.gather(-1, codes[..., None])[..., 0].numpy()
        assert (chance > 0).all()
        below = (final * (torch.arange(SIZE) < codes[..., None])).sum(-1).numpy()
        open_sets = (final.amax(-1) < 0.999).numpy()  # a forced code tells nothing
        place = (below + chance * random.random(chance.shape))[open_sets]
        assert open_sets.sum() > SETS // 2
        assert chisquare(np.histogram(place, 20, (0, 1))[0]).pvalue > 1e-3
