"""References that people really send: every format comes out as the engine's one form."""

from __future__ import annotations

import base64
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gateway.errors import InvalidRequest, RequestTooLarge
from gateway.voices.samples import prepare as reference
from gateway.voices.samples.decode import decode
from gateway.voices.samples.prepare import ReferenceLimits, decode_base64, prepare_reference
from tests.voices import recordings
from tests.voices.recordings import TONE_HZ, good_files, heard, loudest_hz, tone, wav

MIB = 1024 * 1024


@pytest.mark.parametrize("name", list(good_files()))
def test_every_common_format_becomes_a_24_khz_mono_wav_of_the_same_length_and_pitch(
    name: str,
) -> None:
    """Any recording from 1 to 30 s in a common format clones a voice."""
    prepared = prepare_reference(good_files()[name], param="reference_audio")
    samples = heard(prepared.wav)
    assert prepared.seconds == pytest.approx(2.0, abs=0.05)
    assert prepared.seconds == samples.size / 24_000
    assert loudest_hz(samples) == pytest.approx(TONE_HZ, abs=1)
    assert 20 * np.log10(np.abs(samples).max()) == pytest.approx(-10.5, abs=0.8)
    steady = samples[4800:-4800]
    assert steady.std() == pytest.approx(0.3 / np.sqrt(2), rel=0.06)


def test_the_same_file_gives_the_same_bytes_from_many_threads_at_once() -> None:
    """References are prepared in worker threads, several at a time."""
    files = list(good_files().values())
    alone = [prepare_reference(data, param="p").wav for data in files]
    with ThreadPoolExecutor(4) as threads:
        together = threads.map(lambda data: prepare_reference(data, param="p").wav, files * 2)
    assert list(together) == alone * 2


@pytest.mark.parametrize(
    ("seconds", "fits"), [(0.01, False), (0.9, False), (1.0, True), (30.0, True), (30.5, False)]
)
def test_one_to_thirty_seconds_are_taken(seconds: float, fits: bool) -> None:  # noqa: FBT001
    """A shorter or longer reference is refused, and the sentence tells how long it is."""
    data = wav(tone(seconds, 24_000))
    if fits:
        assert prepare_reference(data, param="p").seconds == seconds
        return
    with pytest.raises(InvalidRequest, match=rf"{seconds:.2f} s long|longer than 30 s") as caught:
        prepare_reference(data, param="voices[0].audio")
    assert caught.value.param == "voices[0].audio"


@pytest.mark.parametrize("kind", [("mp3", "libmp3lame"), ("adts", "aac"), ("ipod", "aac")])
def test_thirty_seconds_stay_thirty_after_a_codec_that_pads(kind: tuple[str, str]) -> None:
    """A recording cut to exactly 30 s is taken in every format, and comes out no longer."""
    data = recordings.by_ffmpeg(tone(30, 48_000), 48_000, *kind)
    assert prepare_reference(data, param="p").seconds == pytest.approx(30.0, abs=0.001)


def test_a_ten_minute_file_is_refused_after_thirty_seconds_of_decoding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A whole podcast costs no more than the longest reference."""
    decoded = []

    def counted(*args: object, **options: object) -> object:
        decoded.append(decode(*args, **options))  # type: ignore[arg-type]
        return decoded[-1]

    monkeypatch.setattr(reference, "decode", counted)
    data = recordings.by_ffmpeg(tone(600, 8000), 8000, "mp3", "libmp3lame")
    with pytest.raises(InvalidRequest, match="longer than 30 s"):
        prepare_reference(data, param="p")
    assert decoded[0].samples.size < 31 * 8000


@pytest.mark.parametrize(
    ("what", "samples"),
    [
        ("digital silence", np.zeros(48_000)),
        ("a quiet room", np.random.default_rng(0).normal(0, 0.001, 48_000)),
        ("a constant offset", np.full(48_000, 0.5)),
        ("one click", np.eye(1, 48_000, 24_000)[0]),
    ],
)
def test_silence_is_refused_whatever_it_is_made_of(what: str, samples: recordings.Samples) -> None:
    """A recording without a voice would clone nothing."""
    del what
    with pytest.raises(InvalidRequest, match="silent"):
        prepare_reference(wav(samples), param="p")


@pytest.mark.parametrize("level", [0.01, 0.05, 3.0, 32_768.0, 1e30])
def test_an_absurd_level_is_brought_to_minus_three_decibels(level: float) -> None:
    """Very quiet recordings and floats beyond full scale are as good as any other."""
    samples = tone(2, 24_000, level).astype(np.float32)
    prepared = prepare_reference(recordings.wav_of_floats(samples), param="p")
    assert np.abs(heard(prepared.wav)).max() == pytest.approx(10 ** (-3 / 20), abs=0.01)


def test_a_clipped_recording_is_taken_as_it_is() -> None:
    """Clipping is ugly, but it is the speaker's own."""
    clipped = np.clip(tone(2, 24_000, 3.0), -1, 1)
    prepared = prepare_reference(wav(clipped), param="p")
    assert np.abs(heard(prepared.wav)).max() == pytest.approx(1.0, abs=0.001)


@pytest.mark.parametrize("name", ["mp3 of 1", "flac of 16 bits", "opus", "aac", "wav at 16000 Hz"])
def test_a_file_that_lacks_its_end_gives_what_came_before(name: str) -> None:
    """An upload that was cut off still clones the voice while a second of it decodes."""
    data = good_files(4.0)[name]
    prepared = prepare_reference(data[: len(data) * 3 // 4 - 7], param="p")
    # An Ogg page of a second, or FLAC's 8 KB of padding at the front, may be what is missing.
    assert 1.9 <= prepared.seconds <= 3.1
    assert loudest_hz(heard(prepared.wav)) == pytest.approx(TONE_HZ, abs=2)
    with pytest.raises(InvalidRequest, match=r"long|decoded"):
        prepare_reference(data[: len(data) // 6], param="p")


def test_the_length_field_of_a_wav_is_not_believed() -> None:
    """Recorders that stream write sizes of 0 or 4 GiB; what is there counts."""
    data = bytearray(wav(tone(2, 24_000)))
    for claim in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\x7f"):
        data[40:44] = claim
        assert prepare_reference(bytes(data), param="p").seconds == pytest.approx(2, abs=0.01)


def test_both_channels_are_heard() -> None:
    """Of an interview with a speaker on each side, neither is lost."""
    left = tone(2, 24_000, 0.6)
    both = np.stack([left, np.zeros_like(left)], 1)
    for samples in (both, both[:, ::-1]):
        prepared = prepare_reference(wav(samples), param="p")
        assert np.abs(heard(prepared.wav)).max() == pytest.approx(0.3, abs=0.002)


def test_a_title_in_another_alphabet_does_no_harm() -> None:
    """Old recorders write names in Latin-1."""
    data = recordings.wav_with_title(b"Voix fran\xe7aise")
    assert prepare_reference(data, param="p").seconds == 2.0


def test_a_file_over_the_limit_is_too_large() -> None:
    """The limit of bytes holds for uploads that never were base64."""
    with pytest.raises(RequestTooLarge):
        prepare_reference(bytes(1001), param="p", limits=ReferenceLimits(max_bytes=1000))


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        " \r\n",
        "data:audio/wav;base64,",
        "DATA:Audio/WebM;codecs=opus;BASE64,",
        "data:video/webm;base64,",
        "data:application/octet-stream;base64,",
        "data:;base64,",
    ],
)
def test_base64_comes_plain_or_as_a_data_url(prefix: str) -> None:
    """Browsers send data URLs, scripts send base64, mail programs wrap it."""
    data = bytes(range(256)) * 4
    for text in (
        base64.b64encode(data).decode(),
        base64.encodebytes(data).decode(),
        base64.urlsafe_b64encode(data).decode(),
    ):
        assert decode_base64(prefix + text, limit_bytes=1024, param="p") == data
        with pytest.raises(RequestTooLarge):
            decode_base64(prefix + text, limit_bytes=1023, param="p")


@pytest.mark.parametrize(
    "text",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://example.org/voice.wav",
        "file:///etc/passwd",
        " FTP://example.org/voice.wav",
        "concat:a.wav|b.wav",
        "data:audio/wav,UklG",
        "data:text/html;base64,UklG",
        "data:audio/wav;base64,http://example.org",
    ],
)
def test_an_address_is_refused_and_never_fetched(text: str) -> None:
    """The engine would fetch an address for anyone who asks; the gateway takes data only."""
    with pytest.raises(InvalidRequest, match=r"must be base64|valid base64") as caught:
        decode_base64(text, limit_bytes=MIB, param="reference_audio_base64")
    assert caught.value.param == "reference_audio_base64"


@pytest.mark.parametrize(
    "text",
    ["", "  ", "data:audio/wav;base64,", "UklGR", "UklGRg=", "UklGRg", "UklGRg===", "Ukl=GRg=",
     "UklG!Rg==", "UklG\u00e9", "\u00dcklG", "UklG\u2028", "UklG\ud800", "====", "UklG%3D"],
)  # fmt: skip
def test_wrong_base64_is_refused_not_repaired(text: str) -> None:
    """A damaged field is the client's error: silently dropped characters would become noise."""
    with pytest.raises(InvalidRequest) as caught:
        decode_base64(text, limit_bytes=MIB, param="p")
    assert caught.value.param == "p"


@pytest.mark.parametrize("prefix", ["", "data:audio/wav;base64,", " " * 300])
def test_three_hundred_megabytes_of_base64_are_refused_before_a_copy_is_made(prefix: str) -> None:
    """A huge field costs the gateway nothing beyond the body it has already read."""
    text = prefix + "A" * (300 * MIB)
    tracemalloc.start()
    try:
        with pytest.raises(RequestTooLarge):
            decode_base64(text, limit_bytes=20 * MIB, param="p")
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
