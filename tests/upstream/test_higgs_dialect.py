"""What the Higgs dialect asks of an engine."""

from __future__ import annotations

import json

import pytest

from gateway.audio.encoders.wav import wav_file
from gateway.upstream.dialect import Chunking, Generation, Reference, Sampling
from gateway.upstream.higgs import HiggsDialect


@pytest.mark.parametrize("voice", ["mabel", None], ids=["speech route", "chat route"])
def test_a_seed_goes_to_engines_that_have_one(voice: str | None) -> None:
    """The container warns of fields that it does not know."""

    def asked(*, takes_seed: bool, seed: int | None) -> object:
        generation = Generation(
            text="Hi.",
            voice=voice,
            system_prompt=None,
            references=(),
            sampling=Sampling(seed=seed),
            max_tokens=100,
            chunking=Chunking(25, 25),
        )
        call = HiggsDialect(takes_seed=takes_seed).call(generation, "m")
        return json.loads(call.body).get("seed", "none")

    assert asked(takes_seed=True, seed=0) == 0
    assert asked(takes_seed=True, seed=None) == "none"
    assert asked(takes_seed=False, seed=7) == "none"


def test_a_transcript_may_hold_what_is_no_unicode() -> None:
    """A client's `reference_text` is JSON, where half of a surrogate pair can be written."""
    reference = Reference(wav_file(bytes(48_000)), "Half \ud800 of a pair.")
    generation = Generation("Hi.", None, None, (reference,), Sampling(), 100, Chunking(25, 25))
    messages = json.loads(HiggsDialect().call(generation, "m").body)["messages"]
    assert messages[1]["content"] == reference.transcript
