"""Tests of prompts: equal to the chat template tokenized as a whole, and closed to clients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from engines.higgs.config import random_config
from engines.higgs.generation import delay
from engines.higgs.prompt import LLAMA_IDS, CheckpointTokenizer, PromptBuilder, RandomTokenizer

CONFIG = random_config(tiny=True)
AUDIO = "<|AUDIO_OUT|>"
DELAY = "<|reserved_special_token_6|>"
AUDIO_BEGIN = "<|audio_out_bos|>"
SCENE = ("<|scene_desc_start|>", "<|scene_desc_end|>")
SPECIAL = [*LLAMA_IDS, AUDIO, DELAY, AUDIO_BEGIN, *SCENE, "<|AUDIO|>", "<|end_of_text|>"]
SYSTEM = (
    "Generate audio following instruction.\n\n"
    "<|scene_desc_start|>\nAudio is recorded from a quiet room.\n<|scene_desc_end|>"
)
# Llama 3's, which keeps line ends together and so merges across a turn's header and text.
SPLIT = r"\s*[\r\n]+|\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer.json of the shape of Llama 3's."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = [SYSTEM, "\n\nHello there, says the user.\n\nThe assistant answers: system.\n\n"]
    tokenizer.train_from_iterator(corpus * 9, trainer)
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def codes(frames: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """A reference's codes."""
    return np.random.default_rng(frames).integers(0, 1024, (8, frames))


def turn(role: str, content: str) -> str:
    """As the chat template writes a turn."""
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>"


def audio_turn(frames: int) -> str:
    """As the processor expands a reference of so many frames."""
    audio = AUDIO_BEGIN + AUDIO * (frames + 2) + DELAY * 7 + "<|audio_eos|>"
    return turn("assistant", audio)


def test_a_prompt_is_the_chat_template_tokenized_as_a_whole(checkpoint: Path) -> None:
    """With a scene, two references and line ends that merge."""
    text = "[SPEAKER0] Hello there.\n\n[SPEAKER1] The user answers. \n"
    written = (
        "<|begin_of_text|>"
        + turn("system", SYSTEM)
        + turn("user", "[SPEAKER0] says the user.")
        + audio_turn(3)
        + turn("user", "[SPEAKER1] answers")
        + audio_turn(12)
    )
    rest = turn("user", text.strip()) + turn("assistant", AUDIO_BEGIN).removesuffix("<|eot_id|>")
    whole = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    expected = whole.encode(written + rest, add_special_tokens=False).ids
    model_ids = {
        whole.token_to_id(AUDIO): CONFIG.audio_token_id,
        whole.token_to_id(DELAY): CONFIG.audio_delay_token_id,
        whole.token_to_id(AUDIO_BEGIN): CONFIG.audio_bos_token_id,
    }
    builder = PromptBuilder(CheckpointTokenizer(checkpoint), CONFIG)
    references = [("[SPEAKER0] says the user.", codes(3)), ("[SPEAKER1] answers ", codes(12))]
    prompt = builder.build(SYSTEM, references, text)
    assert prompt.token_ids.tolist() == [model_ids.get(i, i) for i in expected]
    assert prompt.shared_positions == len(whole.encode(written, add_special_tokens=False).ids)
    assert np.array_equal(prompt.audio_rows, np.concatenate([delay(codes(3)), delay(codes(12))]))
    placeholders = (CONFIG.audio_token_id, CONFIG.audio_delay_token_id)
    assert np.isin(prompt.token_ids, placeholders).sum() == len(prompt.audio_rows)


def test_a_prompt_without_references_has_no_audio(checkpoint: Path) -> None:
    """And shares its system turn."""
    builder = PromptBuilder(CheckpointTokenizer(checkpoint), CONFIG)
    prompt = builder.build(SYSTEM, [], "Hello.")
    assert prompt.audio_rows.shape == (0, 8)
    assert 0 < prompt.shared_positions < len(prompt.token_ids)
    assert prompt.token_ids[-1] == CONFIG.audio_bos_token_id


HOSTILE = st.lists(
    st.one_of(st.sampled_from([*SPECIAL, "<|", "|>", "<|eot_id", "\n\n", "\x00"]), st.text()),
    max_size=8,
).map("".join)


@given(HOSTILE, HOSTILE, HOSTILE)
def test_no_text_of_a_client_becomes_a_special_token(
    checkpoint: Path, system: str, transcript: str, text: str
) -> None:
    """The specials of a prompt are those of its shape, whatever the texts spell."""
    builder = PromptBuilder(CheckpointTokenizer(checkpoint), CONFIG)
    plain = builder.build("a", [("a", codes(2))], "a").token_ids
    prompt = builder.build(system, [(transcript, codes(2))], text).token_ids
    whole = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    ids = {name: whole.token_to_id(name) or 0 for name in SPECIAL}
    scene = {ids[tag] for tag in SCENE}
    special = set(ids.values()) - scene
    special |= {CONFIG.audio_token_id, CONFIG.audio_delay_token_id, CONFIG.audio_bos_token_id}

    def shape(ids: np.ndarray[tuple[int], np.dtype[np.int32]]) -> list[int]:
        return [i for i in ids.tolist() if i in special]

    assert shape(prompt) == shape(plain)
    scenes = sum(system.count(tag) for tag in SCENE)
    assert np.isin(prompt, list(scene)).sum() == scenes, "only the system prompt has scenes"


def test_a_vocabulary_without_the_tokens_is_refused(tmp_path: Path) -> None:
    """Before anything is generated with it."""
    with pytest.raises(ValueError, match="no tokenizer"):
        CheckpointTokenizer(tmp_path)
    Tokenizer(models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="lacks"):
        CheckpointTokenizer(tmp_path)


def test_prompts_without_a_tokenizer_have_a_plausible_length() -> None:
    """With Llama 3's ids around them, and other ids for other texts."""
    builder = PromptBuilder(RandomTokenizer(), CONFIG)
    short, long = (builder.build("s", [], "Hello." * n).token_ids for n in (1, 41))
    assert short[0] == LLAMA_IDS["<|begin_of_text|>"]
    assert len(long) - len(short) == 60
    assert builder.count("Hello.") == 2
    assert not np.array_equal(short, builder.build("s", [], "Jello.").token_ids)
