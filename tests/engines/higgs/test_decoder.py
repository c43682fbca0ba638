"""The decoder against transformers' own model on the same weights, and the two layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engines.higgs.tiny import (
    CONTEXT,
    CPU,
    decoder_of,
    prompt_of,
    transformers_inputs,
    transformers_model,
)

torch = pytest.importorskip("torch", reason="the extra `gpu` is not installed")

from safetensors.torch import save_file  # noqa: E402
from transformers.models.higgs_audio_v2.modeling_higgs_audio_v2 import (  # noqa: E402
    HiggsAudioV2RotaryEmbedding,
)

from engines.higgs.config import UnsupportedCheckpointError, random_config, read_config  # noqa: E402
from engines.higgs.generation import Prompt, Sampling, delay  # noqa: E402
from engines.higgs.kernels.quantised import Dense, Quantised  # noqa: E402
from engines.higgs.model import Branch, Cache, Decoder, Segment  # noqa: E402
from engines.higgs.state import FIRST_ROW, Field, SlotState, first_rows, new_slot_fields  # noqa: E402
from engines.higgs.weights import checkpoint_source, load_weights  # noqa: E402

REFERENCES = [(), (20,), (9, 14)]


@pytest.fixture(scope="module")
def model() -> Any:
    """Return transformers' model; the tests change nothing of it."""
    return transformers_model()


def whole(prompt: Prompt, slot: int = 0) -> Segment:
    """Return a whole prompt as one segment."""
    return Segment(slot, 0, prompt.token_ids, prompt.audio_rows)


@pytest.mark.parametrize("references", REFERENCES)
def test_logits_of_a_prompt_equal_transformers(model: Any, references: tuple[int, ...]) -> None:
    """Text alone, and text with references, in float32."""
    decoder = decoder_of(model)
    prompt = prompt_of(decoder.config, references=references)
    cache = Cache.empty(decoder.config, 2, CONTEXT, decoder.weights.norm)
    with torch.inference_mode():
        wanted = model(**transformers_inputs(prompt)).logits[0]
        got = decoder.prefill([whole(prompt)], cache, logits=True)
    assert (got - wanted).abs().max() < 1e-4


def decoded(decoder: Decoder, prompts: list[Prompt], rows: Any, batch: int) -> Any:
    """Return logits [prompts, rows, 8 * size] of given rows, decoded in batches of this size."""
    cache = Cache.empty(decoder.config, batch + 1, CONTEXT, decoder.weights.norm)
    state = SlotState.empty(batch + 1, CONTEXT, CPU)
    slots = torch.full((batch,), batch, dtype=torch.int32)
    for slot, prompt in enumerate(prompts):
        decoder.prefill([whole(prompt, slot)], cache)
        fields = new_slot_fields(
            Sampling(), seed=0, position=len(prompt.token_ids), max_frames=99, never_stop=False
        )
        state.integers[slot] = torch.from_numpy(fields)
        state.rows[slot, : FIRST_ROW + 1] = torch.from_numpy(first_rows(prompt.audio_rows))
        slots[slot] = slot
    logits = []
    for index in range(rows.shape[1]):
        state.rows[: len(prompts), FIRST_ROW + index] = rows[:, index]
        state.integers[: len(prompts), Field.LAST_ROW] = FIRST_ROW + index
        logits.append(decoder.decode(slots, state, cache)[: len(prompts)])
        state.integers[: len(prompts), Field.POSITION] += 1
    return torch.stack(logits, 1)


def test_logits_of_decode_steps_equal_transformers_and_hardly_vary_with_the_batch(
    model: Any,
) -> None:
    """Three prompts of different length at once, in batches of 3 and 8, against one by one."""
    decoder = decoder_of(model)
    prompts = [prompt_of(decoder.config, references=r, seed=len(r)) for r in REFERENCES]
    rows = torch.randint(0, 1026, (3, 12, 8), dtype=torch.int32)
    rows[:, 0] = 1024
    with torch.inference_mode():
        ours = decoded(decoder, prompts, rows, 3)
        wider = decoded(decoder, prompts, rows, 8)
        for index, prompt in enumerate(prompts):
            inputs = transformers_inputs(prompt)
            ids = torch.cat((inputs["input_ids"], torch.full((1, 12), 128016)), 1)
            audio = torch.cat((torch.from_numpy(prompt.audio_rows).long(), rows[index].long()))
            theirs = model(input_ids=ids, audio_input_ids=audio[None]).logits[0, -12:]
            assert (ours[index] - theirs).abs().max() < 1e-4
    assert (ours - wider).abs().max() < 1e-5


def test_a_prompt_in_chunks_beside_others_fills_the_cache_as_a_whole_one(model: Any) -> None:
    """Chunks cut through text and references."""
    decoder = decoder_of(model)
    config = decoder.config
    prompts = [prompt_of(config, references=r, seed=4) for r in ((9, 14), (20,))]
    wholes = Cache.empty(config, 2, CONTEXT, decoder.weights.norm)
    chunks = Cache.empty(config, 2, CONTEXT, decoder.weights.norm)
    with torch.inference_mode():
        for slot, prompt in enumerate(prompts):
            decoder.prefill([whole(prompt, slot)], wholes)
        for start in range(0, len(prompts[0].token_ids), 17):
            segments = []
            for slot, prompt in enumerate(prompts):
                ids = prompt.token_ids[start : start + 17]
                is_audio = np.isin(prompt.token_ids, (128014, 128016))
                first, last = is_audio[:start].sum(), is_audio[: start + 17].sum()
                if len(ids):
                    segments.append(Segment(slot, start, ids, prompt.audio_rows[first:last]))
            decoder.prefill(segments, chunks)
    assert (wholes.keys - chunks.keys).abs().max() < 1e-5
    assert (wholes.values - chunks.values).abs().max() < 1e-5
    assert wholes.values.abs().sum() > 0


def test_the_delay_pattern_equals_the_processor_of_transformers() -> None:
    """Row by row."""
    from transformers import HiggsAudioV2Processor  # noqa: PLC0415

    codes = np.random.default_rng(0).integers(0, 1024, (8, 21))
    framed = np.pad(codes, ((0, 0), (1, 1)), constant_values=((0, 0), (1024, 1025)))
    processor = HiggsAudioV2Processor.__new__(HiggsAudioV2Processor)
    processor.audio_stream_bos_id, processor.audio_stream_eos_id = 1024, 1025
    theirs = processor.build_delay_pattern(torch.from_numpy(framed)[None])[0].T
    assert delay(codes).tolist() == theirs.tolist()


OLD_NAMES = {
    "model.embed_audio_tokens.embed_audio_tokens.weight": "audio_codebook_embeddings.weight",
    "audio_lm_head.weight": "audio_decoder_proj.audio_lm_head.weight",
}


def write_old_layout(model: Any, folder: Path, *, parts: bool = False, **changed: Any) -> None:
    """Write the model as Boson's first layout names it, the head in two parts if asked for."""
    config = model.config
    folder.mkdir(exist_ok=True)
    text = {
        "model_type": "llama", "attention_bias": False, "mlp_bias": False, "hidden_act": "silu",
        "rope_theta": config.rope_parameters["rope_theta"],
        "rope_scaling": {k: v for k, v in config.rope_parameters.items() if k != "rope_theta"},
        **{
            name: getattr(config, name)
            for name in (
                "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                "num_attention_heads", "num_key_value_heads", "head_dim", "rms_norm_eps",
                "max_position_embeddings",
            )
        },
    }  # fmt: skip
    raw = {
        "model_type": "higgs_audio", "text_config": text, "use_delay_pattern": True,
        "audio_adapter_type": "dual_ffn_fast_forward",
        "audio_dual_ffn_layers": list(range(config.num_hidden_layers)),
        "audio_num_codebooks": 8, "audio_codebook_size": 1024, "audio_stream_bos_id": 1024,
        "audio_stream_eos_id": 1025, "audio_out_token_idx": 128016,
        "audio_out_bos_token_id": 128013, **changed,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(raw))
    state = {
        OLD_NAMES.get(name, name.removeprefix("model.")): tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if "offsets" not in name
    }
    if parts:
        for whole_name, layer in (
            ("audio_decoder_proj.audio_lm_head.", "linear"),
            ("embed_tokens.", "embedding"),
        ):
            tensor = state.pop(f"{whole_name}weight")
            state[f"{whole_name}{layer}_frozen.weight"] = tensor[:100].clone()
            state[f"{whole_name}{layer}_trainable.weight"] = tensor[100:].clone()
    save_file(state, folder / "model.safetensors")


# What the engine reads of a configuration.
READ = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim"),
    *("num_attention_heads", "num_key_value_heads", "rms_norm_eps", "num_codebooks"),
    *("codebook_size", "audio_token_id", "audio_delay_token_id", "audio_bos_token_id"),
    *("audio_stream_bos_id", "audio_stream_eos_id"),
)


def read_of(config: Any) -> dict[str, Any]:
    """Return what the engine reads of a configuration, by name."""
    rotary = HiggsAudioV2RotaryEmbedding(config)
    turns = {"inv_freq": rotary.inv_freq.tolist(), "scale": rotary.attention_scaling}
    return {**turns, **{name: getattr(config, name) for name in READ}}


def loaded(folder: Path, precision: str = "bf16") -> tuple[Any, dict[str, Any]]:
    """Return a folder's configuration and all its weights by name."""
    config = read_config(folder)
    weights = load_weights(config, checkpoint_source(folder), precision=precision, device=CPU)
    tensors = {name: getattr(weights, name) for name in weights.__slots__ if name != "layers"}
    for index, layer in enumerate(weights.layers):
        for part, prefix in ((layer, ""), (layer.audio, "audio_"), (layer.text, "text_")):
            for name in part.__slots__:
                value = getattr(part, name)
                if not isinstance(value, Branch):
                    value = value.weight if isinstance(value, Dense) else value
                    tensors[f"{index}.{prefix}{name}"] = value
    return config, tensors


def test_both_layouts_load_to_equal_weights(model: Any, tmp_path: Path) -> None:
    """That of transformers, in several files; Boson's first; that with tables in two parts."""
    model.save_pretrained(tmp_path / "new", max_shard_size="30MB")
    assert (tmp_path / "new" / "model.safetensors.index.json").exists()
    write_old_layout(model, tmp_path / "old")
    write_old_layout(model, tmp_path / "parts", parts=True)
    config, tensors = loaded(tmp_path / "new")
    for folder in ("old", "parts"):
        old_config, old_tensors = loaded(tmp_path / folder)
        assert read_of(config) == read_of(old_config)
        assert tensors.keys() == old_tensors.keys()
        for name, tensor in tensors.items():
            assert torch.equal(tensor, old_tensors[name]), name


def test_few_bits_leave_head_norms_and_code_embeddings_alone(model: Any, tmp_path: Path) -> None:
    """int8: 8 bits where audio passes, 4 bits in the text's feed-forward net."""
    model.save_pretrained(tmp_path)
    plain, rounded = loaded(tmp_path)[1], loaded(tmp_path, "int8")[1]
    bits = {}
    for name, tensor in rounded.items():
        if isinstance(tensor, Quantised):
            bits[name.removeprefix("0.").removeprefix("1.")] = tensor.bits
        else:
            assert torch.equal(tensor, plain[name]), name
    audio = dict.fromkeys(("qkv", "out", "audio_gate_up", "audio_down"), 8)
    assert bits == {**audio, "text_gate_up": 4, "text_down": 4}


@pytest.mark.parametrize(
    "changed",
    [
        {"model_type": "llama"},
        {"audio_dual_ffn_layers": [0]},
        {"use_rq_transformer": True},
        {"use_delay_pattern": False},
        {"audio_decoder_proj_num_layers": 1},
    ],
)
def test_a_checkpoint_that_would_be_computed_wrongly_is_refused(
    model: Any, tmp_path: Path, changed: dict[str, Any]
) -> None:
    """Variants of Boson's model class that this decoder does not compute."""
    write_old_layout(model, tmp_path, **changed)
    with pytest.raises(UnsupportedCheckpointError):
        read_config(tmp_path)


def test_a_codebook_without_room_for_bos_and_eos_is_refused(model: Any, tmp_path: Path) -> None:
    """The default of transformers, 1,024 codes, is wrong for Higgs v2."""
    model.config.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "codebook_size": 1024}))
    with pytest.raises(UnsupportedCheckpointError, match="BOS and EOS"):
        read_config(tmp_path)


def test_a_missing_tensor_and_one_of_another_shape_are_refused(model: Any, tmp_path: Path) -> None:
    """Both name the tensor."""
    model.save_pretrained(tmp_path)
    config = read_config(tmp_path)
    source = checkpoint_source(tmp_path)
    with pytest.raises(UnsupportedCheckpointError, match=r"norm\.weight"):
        source("norm.weight", (7,))
    with pytest.raises(UnsupportedCheckpointError, match="missing"):
        source("missing.weight", (7,))
    assert read_of(config) == read_of(random_config(tiny=True))
