"""`POST /generate/batch` of the legacy proxy: many texts at once, answered together."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from gateway.access.rate_limits import charge_more_requests
from gateway.api.endpoint import BodyReader, Spoken, require_json
from gateway.api.error_bodies import GENERATE, UnprocessableRequest
from gateway.api.schemas import parse_json
from gateway.errors import GatewayError, InvalidRequest, outcome_of
from gateway.server.disconnect import Disconnect
from gateway.speech.service import SpeechService
from gateway.telemetry.outcomes import Outcomes

MOST_BATCH_ITEMS = 64  # each answer is held in memory until the last one is there
BATCH_CONCURRENCY = 8


@dataclass(frozen=True, slots=True)
class BatchEndpoint:
    """`POST /generate/batch`: many texts at once, answered together and in order.

    Attributes:
        service: The straight line.
        outcomes: Counts how items end.
        bodies: Reads requests.
        understand: Reads an item into what to say; raises GatewayError.
    """

    service: SpeechService
    outcomes: Outcomes
    bodies: BodyReader
    understand: Callable[[Any], Awaitable[Spoken]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one batch; a client that leaves stops all of it.

        Raises:
            GatewayError: It is no batch.
            ClientGone: The client left.
        """
        try:
            items = await self._read(scope, receive)
        except GatewayError as error:
            self.outcomes.count(GENERATE.name, outcome_of(error))
            raise
        charge_more_requests(len(items) - 1)  # one is charged already
        async with Disconnect(receive) as watch:
            results, waits = zip(*await self._run(items), strict=True)
            watch.stop()
            await _batch_answer(results, max(waits))(scope, receive, send)

    async def _read(self, scope: Scope, receive: Receive) -> list[Any]:
        require_json(scope)
        items = parse_json(await self.bodies.read(scope, receive))
        if not isinstance(items, list):
            raise InvalidRequest("The request's body must be a JSON list.")
        if not 0 < len(items) <= MOST_BATCH_ITEMS:
            raise InvalidRequest(f"A batch holds 1 to {MOST_BATCH_ITEMS} items.")
        return items

    async def _run(self, items: list[Any]) -> list[tuple[dict[str, Any], float]]:
        limit = asyncio.Semaphore(BATCH_CONCURRENCY)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._one(index, item, limit)) for index, item in enumerate(items)
            ]
        return [task.result() for task in tasks]

    async def _one(
        self, index: int, item: Any, limit: asyncio.Semaphore
    ) -> tuple[dict[str, Any], float]:
        """An item's result, and the seconds that it waited for its slot."""
        async with limit:
            arrived = time.monotonic()
            try:
                with self.outcomes.counted(GENERATE.name) as held:
                    spoken = await self.understand(item)
                    held.answer = answer = await self.service.open(spoken.speech, arrived)
                    audio = await answer.read_all()
                    answer.count_delivered(len(audio))
            except GatewayError as error:
                message = error.message
                if isinstance(error, UnprocessableRequest):
                    message = json.dumps(error.details)
                return {"index": index, "success": False, "error": message}, 0.0
        result = {
            "index": index,
            "success": True,
            "audio_base64": base64.b64encode(audio).decode(),
            "generation_time": round(time.monotonic() - arrived, 3),
        }
        return result, answer.queue_wait_seconds


def _batch_answer(results: Sequence[dict[str, Any]], longest_wait: float) -> Response:
    successful = sum(result["success"] for result in results)
    return JSONResponse(
        {
            "results": results,
            "total": len(results),
            "successful": successful,
            "failed": len(results) - successful,
        },
        headers={"X-Queue-Wait-Seconds": f"{longest_wait:.3f}"},
    )
