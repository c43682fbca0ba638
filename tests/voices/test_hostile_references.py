"""References that attack: each costs a bounded amount of work and ends in a clear refusal."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
import zlib

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import GatewayError, InvalidRequest, RequestTooLarge
from gateway.voices.samples import decode as decoding
from gateway.voices.samples.decode import decode
from gateway.voices.samples.prepare import decode_base64, prepare_reference
from tests.voices import recordings
from tests.voices.recordings import good_files, heard, tone, wav

PNG = (
    b"\x89PNG\r\n\x1a\n"
    + struct.pack(">I", 13)
    + b"IHDR"
    + struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0)
)
FOREIGN = {
    "nothing": b"",
    "one byte": b"\xff",
    "a text": b"Dear gateway, this is not audio. " * 100,
    "a picture": PNG + bytes(1000),
    "an archive": b"PK\x03\x04" + bytes(1000),
    "a page": b"<!doctype html><html><audio src='https://example.org/a.mp3'></html>",
    "a drawing": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "an HLS playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "a concat script": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "a DASH manifest": b"<?xml version='1.0'?><MPD><BaseURL>file:///etc/passwd</BaseURL></MPD>",
    "a session description": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
    "a playlist behind a tag": recordings.id3_tag(bytes(99)) + b"#EXTM3U\nfile:///etc/passwd\n",
    "a tag and nothing more": recordings.id3_tag(bytes(99)),
    "a tag that claims 256 MB": b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + bytes(100),
}  # fmt: skip
POLYGLOTS = {
    "a WAV header and a picture": b"RIFF\x00\x00\x00\x00WAVE" + PNG,
    "a WAV header and a playlist": b"RIFF\x00\x00\x00\x00WAVE#EXTM3U\nfile:///etc/passwd\n",
    "an Ogg signature and a page": b"OggS" + FOREIGN["a page"],
    "a FLAC signature and an archive": b"fLaC" + FOREIGN["an archive"],
    "a WebM signature and text": b"\x1aE\xdf\xa3" + FOREIGN["a text"],
    "an M4A signature and text": b"\x00\x00\x00\x18ftypM4A " + FOREIGN["a text"],
    "an MPEG frame header and zeros": b"\xff\xfb\x90\x00" + bytes(1000),
    "an MPEG frame header and text": b"\xff\xfb\x90\x00" + FOREIGN["a text"],
    "a WAV of no samples": wav(np.zeros(0)),
    "a FLAC of no samples": recordings.by_soundfile(np.zeros(0), 24_000, "FLAC", "PCM_16"),
}


@pytest.mark.parametrize("name", [*FOREIGN, *POLYGLOTS])
def test_what_is_no_audio_is_refused_in_a_sentence(name: str) -> None:
    """A wrong file is the client's error, told without a word of its content or of the decoder."""
    with pytest.raises(InvalidRequest) as caught:
        prepare_reference({**FOREIGN, **POLYGLOTS}[name], param="reference_audio")
    assert caught.value.param == "reference_audio"
    assert caught.value.message.endswith(".")
    assert "passwd" not in caught.value.message
    assert "av" not in caught.value.message.split()


@pytest.mark.parametrize("name", list(FOREIGN))
def test_a_foreign_file_reaches_no_parser(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Playlists, scripts and pictures are refused by their first bytes alone."""

    def opened(*_: object, **__: object) -> None:
        pytest.fail("FFmpeg saw it")

    monkeypatch.setattr(av, "open", opened)
    with pytest.raises(InvalidRequest, match="formats that can be read"):
        prepare_reference(FOREIGN[name], param="p")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, 1000, 47_999])
def test_samples_that_are_not_numbers_are_refused(value: float, position: int) -> None:
    """One NaN would silence or burst everything that the engine computes from it."""
    samples = tone(2, 24_000).astype(np.float32)
    samples[position] = value
    with pytest.raises(InvalidRequest, match="not numbers"):
        prepare_reference(recordings.wav_of_floats(samples), param="p")


@pytest.mark.parametrize("rate_hz", [1, 4000, 200_000, 2**31 - 1])
def test_absurd_sample_rates_are_refused(rate_hz: int) -> None:
    """A header must not decide how much memory a resampler takes."""
    with pytest.raises(InvalidRequest):
        prepare_reference(wav(tone(1, 24_000), rate_hz), param="p")


def test_many_channels_are_refused() -> None:
    """A file of 16 channels is no voice sample."""
    with pytest.raises(InvalidRequest, match="16 channels"):
        prepare_reference(wav(np.zeros((24_000, 16))), param="p")


def test_hours_of_silence_in_a_few_kilobytes_cost_thirty_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A FLAC bomb is decoded up to the bound and no frame further."""
    bomb = recordings.flac_bomb(seconds=3600)
    assert len(bomb) < 20_000
    counted = []
    original = decoding._mono

    def counting(frame: av.AudioFrame) -> decoding.Floats:
        counted.append(frame.samples)
        return original(frame)

    monkeypatch.setattr(decoding, "_mono", counting)
    with pytest.raises(InvalidRequest, match="longer than 30 s"):
        prepare_reference(bomb, param="p")
    assert sum(counted) <= 31 * 8000 + 65_535


@pytest.mark.parametrize("claim", [0, 1, 2**36 - 1])
def test_the_length_that_a_flac_claims_is_not_believed(claim: int) -> None:
    """What decodes is the length."""
    flac = recordings.flac_claiming(claim, good_files()["flac of 24 bits"])
    assert prepare_reference(flac, param="p").seconds == pytest.approx(2, abs=0.05)


def test_an_m4a_whose_tables_claim_millions_of_packets_costs_little_memory() -> None:
    """3 KB that would take gigabytes in FFmpeg's index are refused with the process still small."""
    program = """
import resource
from gateway.errors import InvalidRequest
from gateway.voices.samples.prepare import prepare_reference
from tests.voices import recordings
bomb = recordings.m4a_bomb()
used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = used()
try:
    prepare_reference(bomb, param="p")
except InvalidRequest:
    print((used() - before) // 1024)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, timeout=120
    )
    assert int(run.stdout) < 100
    assert not run.stderr


@pytest.mark.parametrize("edits", [1, 20_000])
def test_an_edit_list_multiplies_nothing(edits: int) -> None:
    """A file that asks to be played 20,000 times is read once."""
    data = recordings.m4a_with_edits(2, edits)
    assert prepare_reference(data, param="p").seconds == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("step", [32_768, 1])
def test_a_file_that_is_read_over_and_over_is_given_up(step: int) -> None:
    """However a file leads the demuxer in circles, its reads and seeks are counted."""
    source = decoding._Source(bytes(1_000_000))
    handed_out = 0
    with contextlib.suppress(OSError):
        while handed_out < 10_000_000:
            source.seek(0)
            handed_out += len(source.read(step))
    assert handed_out < 6_000_000


def test_a_file_that_uses_up_its_reads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count of reads ends the decoding with a clear refusal."""
    monkeypatch.setattr(decoding, "MAX_READS_OF_A_BYTE", 0)
    with pytest.raises(InvalidRequest, match="damaged or not complete") as caught:
        decode(good_files()["opus"], max_seconds=30)
    assert str(caught.value.__cause__) == "the file is read over and over"


@pytest.mark.parametrize(("bound", "value"), [("MAX_PACKETS", 5), ("MAX_CPU_SECONDS", -1.0)])
def test_packets_and_processor_time_are_bounded(
    bound: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of countless tiny packets is given up."""
    monkeypatch.setattr(decoding, bound, value)
    with pytest.raises(InvalidRequest, match="too long to decode"):
        decode(good_files()["opus"], max_seconds=30)


def test_a_file_damaged_all_over_is_refused() -> None:
    """A few bad packets are passed over; a file of nothing else is told to be damaged."""
    flac = bytearray(recordings.by_ffmpeg(tone(4, 48_000), 48_000, "flac", "flac"))
    rng = np.random.default_rng(1)
    for position in rng.integers(9000, len(flac), 2000):
        flac[position] ^= 0xFF
    with pytest.raises(InvalidRequest, match="audio is damaged"):
        prepare_reference(bytes(flac), param="p")


@pytest.mark.parametrize("codec", ["pcm_s16le", "mp2", "ac3"])
def test_sound_in_another_codec_is_refused(codec: str) -> None:
    """Only decoders on the list ever run, whatever a readable container holds."""
    data = recordings.by_ffmpeg(tone(2, 48_000), 48_000, "matroska", codec)
    if codec == "pcm_s16le":
        assert prepare_reference(data, param="p").seconds == pytest.approx(2, abs=0.05)
        return
    with pytest.raises(InvalidRequest, match=r"codec|decoded"):
        prepare_reference(data, param="p")


@pytest.mark.parametrize("kind", [("mp3", "libmp3lame"), ("adts", "aac")])
def test_a_rate_that_changes_on_the_way_is_refused(kind: tuple[str, str]) -> None:
    """Two recordings glued together would change their pitch at the joint."""
    halves = [recordings.by_ffmpeg(tone(2, rate), rate, *kind) for rate in (24_000, 48_000)]
    with pytest.raises(InvalidRequest, match="changes its sample rate"):
        prepare_reference(b"".join(halves), param="p")


def attempt(data: bytes) -> None:
    """What a gateway makes of any bytes: a reference within the limits, or a GatewayError."""
    refused: GatewayError | None = None
    try:
        prepared = prepare_reference(data, param="p")
    except GatewayError as error:
        refused = error
    if refused is not None:
        assert (refused.status, refused.param) == (400, "p")
        return
    assert 1.0 <= heard(prepared.wav).size / 24_000 <= 30.0


SIGNATURES = [
    b"RIFF\xff\xff\xff\xffWAVEfmt ",
    b"fLaC\x00\x00\x00\x22",
    b"OggS\x00\x02",
    b"\xff\xfb\x90",
    b"\xff\xf1\x50",
    b"\x1aE\xdf\xa3",
    b"\x00\x00\x00\x20ftypM4A ",
    b"ID3\x03\x00\x00",
    b"",
]


@given(signature=st.sampled_from(SIGNATURES), rest=st.binary(max_size=3000))
@settings(max_examples=150, deadline=None)
def test_random_bytes_never_raise_anything_but_the_gateways_errors(
    signature: bytes, rest: bytes
) -> None:
    """Whatever is uploaded, the answer is a clear one."""
    attempt(signature + rest)


@given(
    name=st.sampled_from(sorted(good_files())),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=12),
    front=st.floats(0, 1),
    near_header=st.booleans(),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_files_never_raise_anything_but_the_gateways_errors(
    name: str,
    changes: list[tuple[float, bytes]],
    front: float,
    near_header: bool,  # noqa: FBT001
) -> None:
    """A damaged file gives a reference within the limits or a clear refusal."""
    data = bytearray(good_files()[name])
    reach = min(600, len(data)) if near_header else len(data)
    for place, change in changes:
        start = int(place * (reach - 1))
        data[start : start + len(change)] = change
    attempt(bytes(data[: round(len(data) * (1 - front**4))]))


@given(st.text(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_text_in_a_base64_field_gives_bytes_or_an_error(text: str) -> None:
    """Lone surrogates, emoji and addresses included."""
    with contextlib.suppress(InvalidRequest, RequestTooLarge):
        assert 1 <= len(decode_base64(text, limit_bytes=200, param="p")) <= 200


def test_inflated_tags_are_never_inflated() -> None:
    """A compressed ID3 frame is skipped with its tag, not unpacked."""
    packed = zlib.compress(bytes(50_000_000), 9)
    frame = b"APIC" + struct.pack(">I", len(packed) + 4) + b"\x00\x80"
    tag = recordings.id3_tag(frame + struct.pack(">I", 50_000_000) + packed)
    tagged = tag[:3] + b"\x03" + tag[4:] + good_files()["mp3 of 1"]
    assert prepare_reference(tagged, param="p").seconds == pytest.approx(2, abs=0.05)
