"""Compares greedy codes of real weights with those that transformers' own slow test expects.

The figures are of test_single_speaker_smart_voice in transformers' test_modeling_higgs_audio_v2.py;
its further frames differ between devices, and so they prove nothing.
"""

from __future__ import annotations

import threading

import numpy as np

from engines.higgs.generation import GenerationRequest, Sampling
from engines.higgs.load import choose_device, load_engine
from gateway.text.prompt import DEFAULT_SYSTEM_PROMPT

TEXT = "The sun rises in the east and sets in the west."
FRAMES = np.array(
    [
        [267, 765, 878, 154, 806, 623, 1018, 723],
        [796, 960, 313, 402, 265, 125, 643, 658],
        [239, 446, 116, 756, 663, 321, 235, 704],
    ],
    np.int16,
)
PATIENCE_SECONDS = 60.0


def matching_codes(model: str, *, revision: str | None, precision: str, device: str) -> float:
    """Share of the expected codes that the model's weights give, greedily.

    Args:
        model: A folder or hub repository, as for `engine --voice higgs`.
        revision: Of the hub repository.
        precision: bf16 gives all of them; fewer bits need not.
        device: auto, cuda or cpu.
    """
    loop, builder, _ = load_engine(
        model,
        revision=revision,
        precision=precision,
        slots=1,
        context=256,
        device=choose_device(device),
    )
    try:
        prompt = builder.build(DEFAULT_SYSTEM_PROMPT, [], TEXT)
        # Seeded: a code that repeats is drawn anew, even where the likeliest is taken.
        request = GenerationRequest(prompt, len(FRAMES), Sampling(temperature=0, seed=0))
        changed = threading.Event()
        generation = loop.submit(request, changed.set)
        while generation.end is None and changed.wait(PATIENCE_SECONDS):
            changed.clear()
        return float((generation.codes[: len(FRAMES)] == FRAMES).mean())
    finally:
        loop.stop()
