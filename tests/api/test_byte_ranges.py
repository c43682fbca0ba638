"""Parts of a file in memory."""

from __future__ import annotations

import pytest

from gateway.api.byte_ranges import range_of

SIZE = 100


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (None, None),
        ("bytes=0-", (0, 100)),
        ("bytes=0-1", (0, 2)),
        ("bytes=10-19", (10, 20)),
        (" bytes = 90-500 ", (90, 100)),
        ("bytes=-10", (90, 100)),
        ("BYTES=0-1", (0, 2)),
        ("bytes=0-" + "9" * 20, (0, 100)),
        ("bytes=-500", (0, 100)),
        ("bytes=99-99", (99, 100)),
        ("bytes=100-", (100, 100)),
        ("bytes=500-600", (100, 100)),
        ("bytes=-0", (100, 100)),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=0-1,5-6", None),
        ("lines=0-1", None),
        ("bytes=x-y", None),
        ("bytes=" + "9" * 18 + "-", (100, 100)),
        ("bytes=" + "9" * 5000 + "-", None),
    ],
)
def test_a_range_is_a_part_or_the_whole(header: str | None, part: tuple[int, int] | None) -> None:
    """One range is served; an empty one cannot be; what is not understood is ignored."""
    assert range_of(header, SIZE) == part
