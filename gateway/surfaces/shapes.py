"""Whose errors a path speaks: refusals that come before any surface still have its shape.

One row a family of paths, the first that fits holds; a surface that has its own shape adds a row.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from starlette.responses import Response

from gateway.errors import GatewayError
from gateway.surfaces import generate, openai


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
    Shape("openai", re.compile(r".*", re.DOTALL), openai.render_error),
)


def shape_of(path: str) -> Shape:
    """The row of a path; every path has one."""
    return next(shape for shape in SHAPES if shape.paths.fullmatch(path))


def render(path: str, error: GatewayError) -> Response:
    """An error in the shape of the path's surface."""
    return shape_of(path).render(error)
