"""Names of uploaded files: made into voices' names, never refused for a character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.voices.name_rules import MOST_NAME_CHARACTERS, clean_name, name_of_file

DATA = b"RIFF"


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("recording (1).wav", "recording 1"),
        ("O'Brien.wav", "OBrien"),
        ("O\u2019Brien.mp3", "OBrien"),
        ("C:\\Users\\me\\Anna & Ben.wav", "Anna Ben"),
        ("../../etc/passwd", "passwd"),
        ("Emily.wav", "Emily"),
        ("voice.wav.mp3", "voice"),
        ("録音 1.wav", "録音 1"),
        ("हिन्दी.wav", "हिन्दी"),
        ("[Clone] Gianna!.wav", "Clone Gianna"),
        ("-_.hidden.wav", "hidden"),
        ("p\u0430ypal.wav", "recording-a40ff3d5"),  # letters of two alphabets that look alike
        ("a,b;c=d.wav", "a b c d"),
        ("x" * 300 + ".wav", "x" * MOST_NAME_CHARACTERS),
    ],
)
def test_a_file_s_name_becomes_a_voice_s(filename: str, name: str) -> None:
    """And one that a voice may have."""
    assert name_of_file(filename, DATA) == name
    assert clean_name(name, param="name") == name


def test_a_name_of_which_nothing_is_left_is_made_of_the_file() -> None:
    """Two such files are two voices."""
    first, second = (name_of_file("★.wav", data) for data in (b"a", b"b"))
    assert first.startswith("recording-")
    assert first != second


@given(filename=st.text(st.characters(codec="utf-8", max_codepoint=0x24F), max_size=150))
def test_whatever_the_file_is_called_a_name_comes_out(filename: str) -> None:
    """Latin letters, digits, signs and controls in any order."""
    assert clean_name(name_of_file(filename, DATA), param="name")
