"""The shape of many first proxies: a new client for each request, and the whole answer buffered.

Run as `python -m loadtest.peers.naive_proxy PORT ENGINE`.
"""

from __future__ import annotations

import sys

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

ENGINE = sys.argv[-1]


async def speech(request: Request) -> Response:
    """Ask, wait for all of it, answer."""
    async with httpx.AsyncClient(timeout=300) as client:
        answer = await client.post(ENGINE + "/v1/audio/speech", json=await request.json())
    return Response(answer.content, media_type="audio/wav")


app = Starlette(routes=[Route("/v1/audio/speech", speech, methods=["POST"])])

if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
