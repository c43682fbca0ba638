"""What a player that starts at the first chunk would have starved."""

from __future__ import annotations

import pytest

from gateway.audio.playback import Player


@pytest.mark.parametrize(
    ("deliveries", "starved"),
    [
        # (ready for it, came, audio in all)
        ([(0, 1.0, 0.7)], 0.0),
        ([(0, 1.0, 0.7), (1.0, 1.5, 2.0)], 0.0),  # came before the player ran dry at 1.7
        ([(0, 1.0, 0.7), (1.0, 2.0, 2.0)], 0.3),
        ([(0, 1.0, 0.7), (1.0, 2.0, 1.0), (2.0, 2.8, 2.0)], 0.8),  # starved twice
        ([(0, 1.0, 0.7), (5.0, 5.0, 2.0)], 0.0),  # the client itself read late
        ([(0, 1.0, 0.7), (5.0, 5.2, 2.0)], 0.2),
    ],
)
def test_underrun(deliveries: list[tuple[float, float, float]], starved: float) -> None:
    """Only waiting for the gateway counts, and each gap delays the rest of the audio."""
    player = Player()
    for asked, came, delivered in deliveries:
        player.deliver(asked, came, delivered)
    assert player.underrun_seconds == pytest.approx(starved)
