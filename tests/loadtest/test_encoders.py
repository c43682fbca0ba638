"""The comparison of encoders: both sides encode the same audio with the same options."""

from __future__ import annotations

import pytest

from loadtest.peers.encoders import PIECE_BYTES, by_gateway, by_library


@pytest.mark.parametrize("name", ["mp3", "opus", "aac", "flac"])
def test_both_make_the_same_of_two_seconds(name: str) -> None:
    """Byte for byte as long."""
    pcm = bytes(range(256)) * (2 * PIECE_BYTES // 256)
    assert by_gateway(name, pcm) == by_library(name, pcm) > 100
