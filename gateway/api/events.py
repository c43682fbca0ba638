"""Server-sent events of a job: a stream that each surface fills with its own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.responses import Response, StreamingResponse

from gateway.api.endpoint import STREAM_HEADERS
from gateway.api.routes import EVENTS_TYPE


def event(name: str, data: Mapping[str, Any]) -> bytes:
    """One event."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def event_stream(events: AsyncIterator[bytes]) -> Response:
    """An answer of events, sent as they come."""
    return StreamingResponse(events, media_type=EVENTS_TYPE, headers=STREAM_HEADERS)
