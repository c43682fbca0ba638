"""A voice's recording, and parts of it: Safari asks for two bytes before it plays."""

from __future__ import annotations

import httpx


def test_a_part_of_a_recording_is_206_and_the_rest_as_rfc_9110_has_it(
    client: httpx.Client, bob: str
) -> None:
    """One range is served, an empty one is 416, and what is not understood is the whole."""
    path = f"/voices/{bob}/download"
    whole = client.get(path)
    assert (whole.status_code, whole.headers["accept-ranges"]) == (200, "bytes")
    size = len(whole.content)
    first = client.get(path, headers={"Range": "bytes=0-1"})
    assert (first.status_code, first.content) == (206, whole.content[:2])
    assert first.headers["content-range"] == f"bytes 0-1/{size}"
    assert first.headers["content-length"] == "2"
    assert first.headers["content-type"] == "audio/wav"
    last = client.get(path, headers={"Range": "bytes=-10"})
    assert last.content == whole.content[-10:]
    beyond = client.get(path, headers={"Range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    for headers in ({"Range": "bytes=0-1,4-5"}, {"Range": "bytes=0-1", "If-Range": '"x"'}):
        assert client.get(path, headers=headers).content == whole.content
    head = client.head(path, headers={"Range": "bytes=0-1"})
    assert (head.status_code, head.content) == (206, b"")
