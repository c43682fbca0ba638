"""Parts of a file that is in memory (RFC 9110, 14): Safari plays no audio without them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

PARTIAL, UNSATISFIABLE = 206, 416
_ONE_RANGE = re.compile(r"(?i)\s*bytes\s*=\s*([0-9]{0,40})-([0-9]{0,40})\s*")


def range_of(header: str | None, size: int) -> tuple[int, int] | None:
    """The first byte and the one behind the last that a `Range` asks for.

    Args:
        header: Its value.
        size: Bytes of the whole.

    Returns:
        None for the whole: nothing is asked for, or what is not understood (which RFC 9110 lets a
        server ignore), such as several ranges. An empty range cannot be had.
    """
    found = _ONE_RANGE.fullmatch(header or "")
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        return max(0, size - int(found[2])), size
    first = int(found[1])
    last = int(found[2]) if found[2] else size - 1
    if last < first and found[2]:
        return None
    return min(first, size), min(last + 1, size)


def file_response(
    request: Request, data: bytes, media_type: str, headers: Mapping[str, str]
) -> Response:
    """The file, or the part of it that the request asks for.

    A part that is wanted only of an unchanged file (`If-Range`) is the whole: it has no version.
    """
    told = {**headers, "Accept-Ranges": "bytes"}
    asked = None if "if-range" in request.headers else request.headers.get("range")
    part = range_of(asked, len(data))
    if part is None:
        return Response(data, media_type=media_type, headers=told)
    first, end = part
    if first >= end:
        told["Content-Range"] = f"bytes */{len(data)}"
        return Response(status_code=UNSATISFIABLE, headers=told)
    told["Content-Range"] = f"bytes {first}-{end - 1}/{len(data)}"
    return Response(data[first:end], PARTIAL, media_type=media_type, headers=told)
