"""Watches the container that GATEWAY_CONTAINER names, for `/health` and the metrics.

It runs beside the serving path: where Docker cannot be asked, the state is unknown and nothing
else changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger("gateway.container")

INTERVAL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ContainerState:
    """What Docker says of the container.

    Attributes:
        name: Its name.
        state: `running`, `exited`, ...; `missing` where there is none, `unknown` where Docker
            does not answer.
        restarts: Times that Docker has restarted it.
        started: When it was started last, ISO 8601, or None.
    """

    name: str
    state: str = "unknown"
    restarts: int = 0
    started: str | None = None


def look(name: str) -> ContainerState:
    """Ask Docker once; blocking. Docker's SDK is loaded here: most gateways never need it."""
    from docker.errors import DockerException, NotFound  # noqa: PLC0415

    from engines.container.docker_engine import connect  # noqa: PLC0415
    from engines.container.plan import ContainerError  # noqa: PLC0415

    try:
        with contextlib.closing(connect()) as client:
            container: Any = client.containers.get(name)
            attributes = container.attrs
    except NotFound:
        return ContainerState(name, "missing")
    except (ContainerError, DockerException, OSError) as error:
        logger.debug("container %s: %s", name, error)
        return ContainerState(name)
    return ContainerState(
        name,
        str(attributes["State"]["Status"]),
        int(attributes["RestartCount"]),
        str(attributes["State"]["StartedAt"]),
    )


class Watcher:
    """Looks at one container again and again.

    Args:
        name: The container's name.
        changed: Called with each state that was seen.

    Attributes:
        state: What was seen last.
    """

    def __init__(self, name: str, changed: Callable[[ContainerState], None]) -> None:
        self.state = ContainerState(name)
        self._changed = changed

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            # Not in the codecs' threads: a Docker engine that hangs would hold one for a minute.
            seen = await asyncio.to_thread(look, self.state.name)
            if seen != self.state:
                logger.info(
                    "container %s is %s, restarts: %d", seen.name, seen.state, seen.restarts
                )
            self.state = seen
            self._changed(seen)
            await asyncio.sleep(INTERVAL_SECONDS)
