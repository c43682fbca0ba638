"""Whose errors a path speaks: refusals that come before any surface still have its shape.

One row a family of paths, the first that fits holds; a surface that has its own shape adds a row.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from starlette.responses import Response

from gateway.api import generate, openai
from gateway.api.chatterbox.errors import NAME as CHATTERBOX
from gateway.api.chatterbox.errors import render_travisvn
from gateway.errors import GatewayError


@dataclass(frozen=True, slots=True)
class Shape:
    """How a family of paths renders errors.

    Attributes:
        surface: Its name in metrics.
        paths: The paths, all of each.
        render: Makes the answer.
    """

    surface: str
    paths: re.Pattern[str]
    render: Callable[[GatewayError], Response]


SHAPES = (
    Shape("generate", re.compile(r"/(?:generate(?:/.*)?|batch|stats)"), generate.render_error),
    Shape(
        "operations",
        re.compile(r"/(?:health|ready|metrics|docs|openapi\.json|admin(?:/.*)?)?"),
        openai.render_error,
    ),
    Shape(
        CHATTERBOX,  # devnen's
        re.compile(
            r"/(?:tts|get_predefined_voices|get_reference_files|upload_reference"
            r"|upload_predefined_voice|api/(?:ui/initial-data|model-info|unload)"
            r"|save_settings|reset_settings|restart_server)"
        ),
        generate.render_error,
    ),
    Shape(
        CHATTERBOX,  # travisvn's; what OpenAI's surface shares with it stays OpenAI's
        re.compile(
            r"/(?:tts/.*|audio/.*|voices(?:/.*)?|voice[-_]library|default-voice|languages|status"
            r"(?:/.*)?|ping|models|config|endpoints|routes|(?:api/)?info|processing(?:/status)?"
            r"|progress|history|memory(?:/.*)?|v1/(?:audio/speech/.*|voices(?:/.*)?|languages"
            r"|health|ping|config|endpoints|info|status(?:/.*)?|memory(?:/.*)?))",
            re.DOTALL,
        ),
        render_travisvn,
    ),
    Shape("openai", re.compile(r".*", re.DOTALL), openai.render_error),
)


def shape_of(path: str) -> Shape:
    """The row of a path; every path has one."""
    return next(shape for shape in SHAPES if shape.paths.fullmatch(path))


def render(path: str, error: GatewayError) -> Response:
    """An error in the shape of the path's surface."""
    return shape_of(path).render(error)
