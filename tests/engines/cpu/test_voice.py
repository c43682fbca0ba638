"""The CPU voice: is it speech, is it understood, and whose voice is it."""

from __future__ import annotations

import asyncio
import io
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.cpu.presets import Timbre
from engines.cpu.voice import CpuVoice, CpuVoiceUnavailableError
from engines.voice import BYTES_PER_TOKEN, PRESETS, SAMPLE_RATE_HZ, UnspeakableError
from tests.engines.speaking import PASSAGE, SENTENCES, collect, job, say
from tests.listen import decode, peak_dbfs, pitch_hz, rms_dbfs, transcribe, word_error_rate


@pytest.fixture(scope="module")
def voice() -> Iterator[CpuVoice]:
    """A started voice, shared: what it says does not depend on what it said."""
    started = CpuVoice(threads=2)
    asyncio.run(started.start())
    yield started
    asyncio.run(started.stop())


@pytest.fixture(scope="module")
def spoken(voice: CpuVoice) -> dict[str, bytes]:
    """The passage in each of the eight voices."""
    return {preset: say(voice, job(PASSAGE, preset)) for preset in PRESETS}


@pytest.mark.parametrize("preset", PRESETS)
def test_each_preset_is_speech_that_a_listener_understands(
    spoken: dict[str, bytes], preset: str
) -> None:
    """Every voice says three sentences with at most 10 % of the words misheard, at a sane level."""
    assert len(spoken[preset]) % BYTES_PER_TOKEN == 0
    samples, rate_hz = decode(spoken[preset], "pcm")
    heard = transcribe(samples, rate_hz)
    assert word_error_rate(PASSAGE, heard) <= 0.10, heard
    assert -12 < peak_dbfs(samples) < -0.1
    assert -26 < rms_dbfs(samples) < -18
    assert 12 < len(samples) / rate_hz < 18


def test_the_eight_presets_are_eight_voices(spoken: dict[str, bytes]) -> None:
    """Any two presets differ by at least 8 % in pitch; men are lower than women."""
    pitches = {preset: pitch_hz(*decode(pcm, "pcm")) for preset, pcm in spoken.items()}
    for one, other in itertools.combinations(PRESETS, 2):
        ratio = pitches[one] / pitches[other]
        assert max(ratio, 1 / ratio) >= 1.08, (one, other, pitches)
    men = ("broom_salesman", "chadwick", "en_man", "zh_man_sichuan")
    women = ("belinda", "en_woman", "mabel")
    assert max(pitches[man] for man in men) < 165 < min(pitches[woman] for woman in women)


def test_speech_starts_at_once_and_pauses_like_a_reader(voice: CpuVoice) -> None:
    """The first sound comes within 60 ms of the first byte; sentences are 0.2 to 0.7 s apart."""
    samples, rate_hz = decode(say(voice, job("Good morning. Good evening.")), "pcm")
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    assert loud[0] < 0.06 * rate_hz
    longest_gap_seconds = np.diff(loud).max() / rate_hz
    assert 0.2 < longest_gap_seconds < 0.7
    assert 0.2 < (len(samples) - loud[-1]) / rate_hz < 0.6


def test_the_same_text_always_sounds_the_same(voice: CpuVoice) -> None:
    """Byte for byte, also beside other streams: tests and caches can rely on it."""

    async def together() -> list[list[bytes]]:
        return await asyncio.gather(*(collect(voice, job(PASSAGE)) for _ in range(3)))

    one, two, three = asyncio.run(together())
    assert one == two == three
    assert b"".join(one) == say(voice, job(PASSAGE))


def test_max_tokens_cuts_the_sound_at_the_token(voice: CpuVoice) -> None:
    """A cut answer has 8 frames fewer than tokens; at 10 or fewer there is no sound, no error."""
    whole = say(voice, job(PASSAGE))
    assert say(voice, job(PASSAGE, max_tokens=50 + 8)) == whole[: 50 * BYTES_PER_TOKEN]
    assert say(voice, job(PASSAGE, max_tokens=10)) == b""
    assert say(voice, job(PASSAGE, max_tokens=1)) == b""


@pytest.mark.parametrize(
    ("text", "words"),
    [("你好世界", "Chinese"), ("Привет, мир", "Cyrillic"), ("Hello 你好", "Chinese")],
)
def test_what_cannot_be_said_is_refused_before_any_sound(
    voice: CpuVoice, text: str, words: str
) -> None:
    """A script that it does not know is no silence: an error says why."""
    with pytest.raises(UnspeakableError, match=words):
        say(voice, job(text))
    assert voice.running == 0


@pytest.mark.parametrize("text", ["👋🙂", "*", "", "→ ★★★", "$$", "<SE>[Laughter]</SE>"])
def test_what_has_no_sound_is_a_short_silence(voice: CpuVoice, text: str) -> None:
    """Nothing to pronounce is no error, and max_tokens holds for silence too."""
    assert say(voice, job(text)) == bytes(8 * BYTES_PER_TOKEN)
    assert say(voice, job(text, max_tokens=11)) == bytes(3 * BYTES_PER_TOKEN)


def test_a_stray_emoji_does_not_stop_a_sentence(voice: CpuVoice) -> None:
    """It is left out; the words around it are said."""
    pcm = say(voice, job(f"🙂 {SENTENCES[0]} 👋"))
    assert word_error_rate(SENTENCES[0], transcribe(*decode(pcm, "pcm"))) <= 0.10


@settings(max_examples=40, deadline=None)
@given(
    st.one_of(
        st.text(max_size=60),
        st.text(alphabet="0123456789.,:/-$%½²thstXIV ", max_size=60),
        st.text(alphabet="~#@&^<>[]()=+ \n", max_size=240),
    )
)
def test_no_text_breaks_the_voice(text: str) -> None:
    """Whatever a client sends is spoken or refused."""
    shared = _shared_for_property()
    try:
        pcm = say(shared, job(text, max_tokens=400))
    except UnspeakableError:
        return
    assert pcm


def test_a_word_that_the_voice_cannot_read_does_not_take_its_sentence_along(
    voice: CpuVoice,
) -> None:
    """The number reader fails above its largest number; the words around it are still said."""
    assert voice._synthesiser is not None
    with_number = voice._synthesiser.pcm(f"Good morning {'9' * 60}", Timbre(1.0), 0.0)
    assert with_number == voice._synthesiser.pcm("Good morning", Timbre(1.0), 0.0)


_voices: list[CpuVoice] = []


def _shared_for_property() -> CpuVoice:
    return _voices[0]


@pytest.fixture(autouse=True, scope="module")
def _share(voice: CpuVoice) -> Iterator[None]:
    # hypothesis wants no fixtures that live shorter than a test's many examples
    _voices.append(voice)
    yield
    _voices.clear()


def test_a_dialogue_has_different_voices(voice: CpuVoice) -> None:
    """Even speakers are feminine and odd ones masculine, each the same in all of its turns."""
    text = " ".join(f"[SPEAKER{n % 2}] {SENTENCES[n % 3]}" for n in range(4))
    items = asyncio.run(collect(voice, job(text, None)))
    pitches: dict[int, list[float]] = {0: [], 1: []}
    seconds = np.cumsum([0, *(len(item) / 2 / SAMPLE_RATE_HZ for item in items)])
    assert seconds[-1] > 15
    for number, item in enumerate(_turn_sounds(items)):
        pitches[number % 2].append(pitch_hz(*decode(item, "pcm")))
    assert min(pitches[0]) > 1.3 * max(pitches[1])


def _turn_sounds(items: list[bytes]) -> list[bytes]:
    # SENTENCES[1] has a comma, but only a first piece ends at one: one item a turn
    assert len(items) == 4
    return items


@pytest.mark.parametrize(
    ("prompt", "low_hz", "high_hz"),
    [
        (None, 180, 215),
        (
            "<|scene_desc_start|>\nAudio is recorded from a quiet room.\n<|scene_desc_end|>",
            180,
            215,
        ),
        ("A masculine voice, moderate pitch.", 110, 130),
        ("A deep masculine voice.", 95, 115),
        ("Feminine, high pitch.", 205, 250),
        ("<|scene_desc_start|>\nQuiet room.\nSPEAKER0: masculine\n<|scene_desc_end|>", 110, 130),
    ],
)
def test_a_description_chooses_the_voice(
    voice: CpuVoice, prompt: str | None, low_hz: float, high_hz: float
) -> None:
    """Without preset and reference, the scene's words for gender and pitch decide."""
    pcm = say(voice, job(SENTENCES[0], None, system_prompt=prompt))
    assert low_hz < pitch_hz(*decode(pcm, "pcm")) < high_hz


@pytest.mark.parametrize("wanted", ["chadwick", "zh_man_sichuan", "belinda"])
def test_a_reference_is_imitated_in_its_pitch(
    voice: CpuVoice, spoken: dict[str, bytes], wanted: str
) -> None:
    """The answer has the reference's median pitch within 6 %, and is still understood."""
    sample, rate_hz = decode(spoken[wanted], "pcm")
    file = io.BytesIO()
    soundfile.write(file, sample, rate_hz, format="WAV")
    pcm = say(voice, job(SENTENCES[1], None, references=(("", file.getvalue()),)))
    samples, rate_hz = decode(pcm, "pcm")
    assert pitch_hz(samples, rate_hz) == pytest.approx(pitch_hz(sample, rate_hz), rel=0.06)
    if wanted == "chadwick":
        assert word_error_rate(SENTENCES[1], transcribe(samples, rate_hz)) <= 0.10


def test_a_broken_reference_is_refused_and_a_silent_one_ignored(voice: CpuVoice) -> None:
    """Rubbish is an error before any sound; a sample without a voice leaves the default one."""
    with pytest.raises(UnspeakableError, match="reference"):
        say(voice, job("Hello.", None, references=(("", b"rubbish"),)))
    file = io.BytesIO()
    soundfile.write(file, np.zeros(24_000), 24_000, format="WAV")
    silent = job("Hello.", None, references=(("", file.getvalue()),))
    assert say(voice, silent) == say(voice, job("Hello.", None))


def test_the_package_is_light_until_the_voice_is_started() -> None:
    """Importing the voice loads neither onnxruntime nor hibari; a GPU install has neither."""
    code = (
        "import sys, engines.cpu.voice as v; v.CpuVoice();"
        "print(sorted({'onnxruntime', 'hibari'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_extra_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra `cpu`, the start says what to install."""
    monkeypatch.setitem(sys.modules, "hibari", None)
    with pytest.raises(
        CpuVoiceUnavailableError, match=r"pip install 'higgs-speech-gateway\[cpu\]'"
    ):
        asyncio.run(CpuVoice().start())


def test_the_voice_is_never_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights come with the package: nothing is downloaded at the start, no telemetry asked."""
    import hibari.voices  # noqa: PLC0415 - heavy

    def refuse(*_: object) -> str:
        raise AssertionError("a download")

    monkeypatch.setattr(hibari.voices, "download", refuse)
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)

    async def start() -> str | None:
        own = CpuVoice(threads=1)
        await own.start()
        await own.stop()
        return os.environ.get("ORT_DISABLE_TELEMETRY")

    assert asyncio.run(start()) == "1"
