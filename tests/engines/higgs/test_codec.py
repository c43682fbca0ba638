"""Tests of the codec: equal to transformers' module, and joins equal to one whole decode."""

from __future__ import annotations

import importlib
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engines.higgs.codec import Codec, random_codec_config
from engines.higgs.codec_semantic import at_16_khz
from engines.higgs.codec_windows import CONTEXT_FRAMES, SIZES
from engines.higgs.codec_worker import BatchDecoder, CodecWorker

MODULE = "transformers.models.higgs_audio_v2_tokenizer"
RNG = np.random.default_rng(3)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path]]:
    """The codec of transformers with random weights, and the folder that holds them.

    It imports torchaudio for one function, which is ours here: the wheel needs CUDA.
    """
    stand_in = types.ModuleType("torchaudio")
    stand_in.functional = types.SimpleNamespace(  # type: ignore[attr-defined]
        resample=lambda wave, _rate, _wanted: at_16_khz(wave[0])[None]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchaudio", stand_in)
        module = importlib.import_module(f"{MODULE}.modeling_higgs_audio_v2_tokenizer")
        torch.manual_seed(1)
        model = module.HiggsAudioV2TokenizerModel(random_codec_config(tiny=True)).eval()
        for quantizer in model.quantizer.quantizers:
            quantizer.codebook.embed.normal_()
        folder = tmp_path_factory.mktemp("codec")
        model.save_pretrained(folder)
        yield model, folder


def test_a_checkpoint_decodes_and_encodes_as_transformers_does(
    reference: tuple[Any, Path],
) -> None:
    """Samples to 1e-5 of full scale, codes exactly, for lengths with and without a remainder."""
    theirs, folder = reference
    ours = Codec.from_folder(folder)
    codes = torch.randint(0, 1024, (2, 8, 40))
    with torch.inference_mode():
        expected = theirs.decode(codes).audio_values[:, 0]
        assert (ours.decode(codes) - expected).abs().max() < 1e-5 * expected.abs().max()
        for samples in (24_000, 24_960, 33_333, 2 * 960):
            wave = torch.randn(samples) * 0.1
            (codes,) = ours.encode([wave])
            assert torch.equal(codes, theirs.encode(wave[None, None]).audio_codes[0])


def test_recordings_that_are_encoded_together_get_the_codes_that_they_have_alone() -> None:
    """Of many lengths, loud to their very ends, filled up more than the longest needs."""
    codec = Codec.random(tiny=True).double()
    for quantizer in codec.quantizer.quantizers:
        quantizer.codebook["embed"].normal_()
    codec.filled_samples = lambda samples: samples + 5000
    recordings = [torch.randn(n) for n in (24_000, 24_960, 33_333, 2 * 960, 40_001, 24_000)]
    for together, alone in zip(codec.encode(recordings), recordings, strict=True):
        assert torch.equal(together, codec.encode([alone])[0])


def test_a_folder_without_a_weight_is_refused(reference: tuple[Any, Path], tmp_path: Path) -> None:
    """Loading silently what does not fit would speak noise."""
    from safetensors.torch import load_file, save_file  # noqa: PLC0415

    with pytest.raises(OSError, match="not as model"):
        Codec.from_folder(tmp_path)
    _, folder = reference
    weights = load_file(folder / "model.safetensors")
    del weights["fc2.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(ValueError, match="1 weights are missing"):
        Codec.from_folder(tmp_path)


def test_the_context_is_what_the_decoder_reaches() -> None:
    """Ten frames give exact joins; nine do not, on either side."""
    assert CONTEXT_FRAMES == 10
    codec = Codec.random(tiny=True).double()
    codes = torch.randint(0, 1024, (1, 8, 60))
    with torch.inference_mode():
        whole = codec.decode(codes)[0]
        for context, equal in ((10, True), (9, False)):
            right = codec.decode(codes[..., 30 - context :])[0, context * 960 :]
            left = codec.decode(codes[..., : 30 + context])[0, : 30 * 960]
            for ours, expected in ((right, whole[30 * 960 :]), (left, whole[: 30 * 960])):
                error = (ours - expected).abs().max() / whole.abs().max()
                assert (error < 1e-12) == equal


def test_resampling_keeps_a_tone() -> None:
    """1 kHz, away from the ends."""
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(24_000) / 24_000)[None]
    result = at_16_khz(tone)[0]
    expected = torch.sin(2 * torch.pi * 1000 * torch.arange(16_000) / 16_000)
    assert result.shape == expected.shape
    assert (result - expected)[500:-500].abs().max() < 2e-3


def generation(codes: NDArray[np.int16], ready: int = 0, end: str | None = None) -> Any:
    """A generation that a test drives, as far as the worker reads it."""
    return types.SimpleNamespace(codes=codes, ready=ready, end=end)


class Listener:
    """Collects what the worker delivers."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.error: Exception | None = None
        self.changed = threading.Event()
        self.ended = threading.Event()

    def __call__(self, item: bytes | Exception | None) -> None:
        """Take one item."""
        if isinstance(item, bytes):
            self.chunks.append(item)
        else:
            self.error = item
            self.ended.set()
        self.changed.set()

    @property
    def pcm(self) -> NDArray[np.int16]:
        """All of it."""
        return np.frombuffer(b"".join(self.chunks), np.int16)


@pytest.fixture
def worker() -> Iterator[tuple[Codec, CodecWorker]]:
    """A running worker on the CPU, in double precision: rounding would hide a wrong join."""
    codec = Codec.random(tiny=True).double()
    running = CodecWorker(BatchDecoder(codec))
    running.start()
    yield codec, running
    running.stop()


def random_codes(frames: int) -> NDArray[np.int16]:
    """Codes [frames, 8]."""
    return RNG.integers(0, 1024, (frames, 8)).astype(np.int16)


def whole(codec: Codec, codes: NDArray[np.int16]) -> NDArray[np.int16]:
    """PCM of one whole decode."""
    return BatchDecoder(codec).decode(codes.T[None])[0]


def test_streams_side_by_side_are_sample_by_sample_one_whole_decode(
    worker: tuple[Codec, CodecWorker],
) -> None:
    """Of many lengths, growing in steps of many sizes; to one step of 16 bits."""
    codec, running = worker
    lengths = [1, 3, 13, 14, 15, 30, 69, 70, 121, 300]
    streams = []
    for frames in lengths:
        source, listener = generation(random_codes(frames)), Listener()
        running.open(source, listener)
        streams.append((source, listener))
    while any(source.ready < len(source.codes) for source, _ in streams):
        for place, (source, _) in enumerate(streams):
            source.ready = min(len(source.codes), source.ready + 1 + place)
        running.notify()
    for source, _ in streams:
        source.end = "stop"
    running.notify()
    for source, listener in streams:
        assert listener.ended.wait(30)
        assert listener.error is None
        expected = whole(codec, source.codes)
        assert listener.pcm.shape == expected.shape
        assert np.abs(listener.pcm.astype(int) - expected).max() <= 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_graphs_give_what_plain_calls_give() -> None:
    """For every length, with full and with padded batches, and for a length without a graph."""
    codec = Codec.random(tiny=True).place(torch.device("cuda"), torch.device("cpu"))
    recorded, plain = BatchDecoder(codec), BatchDecoder(codec)
    recorded.capture()
    for frames in (*SIZES, 33):
        for rows in (1, 3, 8):
            codes = np.stack([random_codes(frames).T for _ in range(rows)])
            error = np.abs(recorded.decode(codes).astype(int) - plain.decode(codes))
            assert error.max() <= 0.002 * 32767


def test_the_first_chunk_comes_before_the_end(worker: tuple[Codec, CodecWorker]) -> None:
    """After its four frames and their context; nothing comes before."""
    _, running = worker
    source, listener = generation(random_codes(100), ready=13), Listener()
    stream = running.open(source, listener)
    source.ready = 14
    running.notify()
    assert listener.changed.wait(30)
    assert len(listener.chunks[0]) == 4 * 1920
    running.close(stream)


def test_a_stream_that_is_closed_gets_nothing_more(worker: tuple[Codec, CodecWorker]) -> None:
    """While its neighbour goes on."""
    _, running = worker
    left, right = Listener(), Listener()
    source = generation(random_codes(60), ready=60, end="stop")
    gone = running.open(generation(random_codes(60), ready=5), left)
    running.close(gone)
    running.open(source, right)
    assert right.ended.wait(30)
    assert left.chunks == []
    assert not left.ended.is_set()


def test_a_sound_that_is_not_finite_ends_the_stream_with_an_error(
    worker: tuple[Codec, CodecWorker],
) -> None:
    """Its neighbour in the batch hears everything."""
    codec, running = worker
    codec.tables[3, 7] = torch.nan
    sound, broken = Listener(), Listener()
    codes = random_codes(20)
    codes[:, 3] = 8
    running.open(generation(codes, ready=20, end="stop"), sound)
    codes = codes.copy()
    codes[11, 3] = 7
    running.open(generation(codes, ready=20, end="stop"), broken)
    for listener in (sound, broken):
        assert listener.ended.wait(30)
    assert isinstance(broken.error, ArithmeticError)
    assert broken.chunks == []
    assert sound.error is None
    assert len(sound.pcm) == 20 * 960
    assert running.failure is None


def test_a_codec_that_fails_says_so_to_all_and_for_good(
    worker: tuple[Codec, CodecWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an error of CUDA does."""
    codec, running = worker

    def fail(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(codec, "decode", fail)
    listener = Listener()
    running.open(generation(random_codes(20), ready=20, end="stop"), listener)
    assert listener.ended.wait(30)
    assert isinstance(listener.error, RuntimeError)
    assert running.failure is not None


def test_stopping_ends_what_is_open() -> None:
    """With an error, so that no client waits."""
    codec = Codec.random(tiny=True)
    running = CodecWorker(BatchDecoder(codec))
    running.start()
    listener = Listener()
    running.open(generation(random_codes(20), ready=2), listener)
    running.stop()
    assert listener.ended.is_set()
    assert listener.error is not None
