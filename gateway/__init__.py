"""A self-hosted speech gateway: OpenAI's speech API in front of a Higgs Audio v2 engine.

The straight line of one request, room by room:

    server/     the HTTP server's bounds        -> an ASGI call
    access/     keys, rights and limits
    api/        a client's request               -> SpeechRequest (speech/request.py)
    text/       its words: markup, normalisation, splitting, length
    speech/     prepare, admission, generations, long texts, jobs
    upstream/   lease an engine, speak its dialect (dialects.py), parse PCM off the wire
    audio/      join, tempo, sample rate, encoders
    api/        response bytes

Beside the line: voices/ (what a name means, the library), telemetry/, commands/, settings.py (every
variable), errors.py (every failure), app.py (wires them). Engines are in engines/.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

__version__ = "0.1.0"
Class = TypeVar("Class")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(made: type[Class]) -> type[Class]:
    """Makes a dataclass of values that never change, of which every request makes some.

    The type checker holds that nobody assigns to them. `frozen=True` would hold it once more at
    run time, and costs 1,400 instructions a field: a twentieth of a request (docs/decisions/0010).
    """
    return dataclass(slots=True, unsafe_hash=True)(made)
