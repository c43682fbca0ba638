"""What the programs of this folder print: each runs one client in that client's environment."""

from __future__ import annotations

import base64
import json
from typing import Any

TEXT = "It was a bright cold day in April, and the clocks were striking one."
LONG = " ".join([TEXT] * 600)  # made in half a minute by the engine of these tests


def heard(data: bytes, response_format: str) -> dict[str, str]:
    """Audio that a client got."""
    return {"audio": base64.b64encode(data).decode(), "format": response_format}


def tell(**found: Any) -> None:
    """Print the result: the last line of the output."""
    print(json.dumps(found), flush=True)
