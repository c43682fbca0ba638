"""The current and the latest requests of one process, for the status routes.

The straight line notes every request here as it begins and ends; the memory for those that are
over is bounded, and of their texts nothing is kept but what the operator allows.
"""

from __future__ import annotations

import math
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from gateway.audio.pcm import ENGINE_BYTES_PER_SECOND
from gateway.errors import GatewayError
from gateway.speech.request import SpeechRequest
from gateway.text.split import LIKELY_SECONDS_BUDGET
from gateway.upstream.dialect import Sampling

MOST_REMEMBERED = 100
PREVIEW_CHARACTERS = 100
HIDDEN = "[hidden]"
MOST_SHARE_WHILE_RUNNING = 0.99  # the length of the audio is an estimate until its end


Step = Literal["waiting", "speaking", "completed", "cancelled", "failed"]  # where a request is
OVER = ("completed", "cancelled", "failed")


@dataclass(slots=True, eq=False)
class RequestProgress:
    """One request; it is closed when it holds nothing of the gateway's any more.

    Attributes:
        text_length: In characters.
        text_preview: Its beginning, or a mask.
        voice: A preset's name, or `library`.
        surface: The surface that it came by.
        response_format: Of its answer.
        speed: Tempo factor.
        sampling: What the engine was told.
        likely_seconds: How long its audio will probably be.
        remember: Called at its end.
        started: Unix time.
        step: Where it is.
        error: What a failure was, in words fit for a client.
    """

    text_length: int
    text_preview: str
    voice: str
    surface: str
    response_format: str
    speed: float
    sampling: Sampling
    likely_seconds: float
    remember: Callable[[RequestProgress], None] = field(repr=False)
    started: float = field(default_factory=time.time)
    step: Step = "waiting"
    error: str | None = None
    _began: float = field(default_factory=time.monotonic)
    _seconds: float | None = None
    _made_bytes: int = 0
    _ask_made_bytes: Callable[[], int] | None = None  # while it is spoken
    _id: str = ""

    @property
    def id(self) -> str:
        """A name of this entry alone, made when it is first asked for."""
        self._id = self._id or secrets.token_hex(4)
        return self._id

    def close(self, error: BaseException | None) -> None:
        """It holds nothing any more; an error says how it ended."""
        if isinstance(error, GatewayError):
            self.end("failed", error.message)
        elif self.step not in OVER:
            self.end("cancelled")
        self.remember(self)

    def speak(self, made_bytes: Callable[[], int]) -> None:
        """It has its first audio.

        Args:
            made_bytes: Tells the PCM bytes that its engine has made so far.
        """
        self.step = "speaking"
        self._ask_made_bytes = made_bytes

    def end(self, step: Step, error: str | None = None) -> None:
        """It is over; what it held is let go. A later word corrects an earlier one."""
        if self._seconds is None:
            self._seconds = time.monotonic() - self._began
        if self._ask_made_bytes is not None:
            self._made_bytes, self._ask_made_bytes = self._ask_made_bytes(), None
        self.step = step
        self.error = self.error if error is None else error

    def judge(self, outcome: str) -> None:
        """It is over, with an outcome of `gateway_requests_total`."""
        steps: dict[str, Step] = {"ok": "completed", "cancelled": "cancelled"}
        self.end(steps.get(outcome, "failed"))

    @property
    def parameters(self) -> dict[str, Any]:
        """What the engine and the codec were told."""
        sampling = {name: v for name, v in asdict(self.sampling).items() if v is not None}
        return {
            "surface": self.surface,
            "response_format": self.response_format,
            "speed": self.speed,
            **sampling,
        }

    @property
    def seconds(self) -> float:
        """How long it has run, or ran."""
        return time.monotonic() - self._began if self._seconds is None else self._seconds

    @property
    def share(self) -> float:
        """How much of its likely audio is made, 0 to 1; 1 only at the end."""
        if self.step == "completed":
            return 1.0
        made_bytes = self._ask_made_bytes() if self._ask_made_bytes else self._made_bytes
        likely_bytes = max(self.likely_seconds, 0.1) * ENGINE_BYTES_PER_SECOND
        return min(MOST_SHARE_WHILE_RUNNING, made_bytes / likely_bytes)

    @property
    def chunks(self) -> int:
        """About how many generations its text takes: splitting the text would cost more."""
        return max(1, math.ceil(self.likely_seconds / LIKELY_SECONDS_BUDGET))

    @property
    def likely_end(self) -> float | None:
        """Estimated Unix time of its end, at the pace so far; None before any audio."""
        share = self.share
        return self.started + self.seconds / share if share else None


class Activity:
    """The requests of one process.

    Args:
        show_texts: Keep the beginning of texts; a mask stands for them otherwise.
    """

    def __init__(self, *, show_texts: bool = False) -> None:
        self._show_texts = show_texts
        self._running: dict[RequestProgress, None] = {}  # in the order in which they began
        self._over: deque[RequestProgress] = deque(maxlen=MOST_REMEMBERED)
        self.total = 0

    def note(self, request: SpeechRequest) -> RequestProgress:
        """Note a request that begins, until it is closed."""
        entry = RequestProgress(
            text_length=len(request.text.written),
            text_preview=self._preview(request.text.written),
            voice=request.voice_label,
            surface=request.surface,
            response_format=request.response_format,
            speed=request.speed,
            sampling=request.sampling,
            likely_seconds=request.text.likely_seconds,
            remember=self._remember,
        )
        self._running[entry] = None
        self.total += 1
        return entry

    def _remember(self, entry: RequestProgress) -> None:
        del self._running[entry]
        self._over.append(entry)

    def _preview(self, text: str) -> str:
        if not self._show_texts:
            return HIDDEN
        return text[:PREVIEW_CHARACTERS] + ("..." if len(text) > PREVIEW_CHARACTERS else "")

    @property
    def running(self) -> list[RequestProgress]:
        """What waits or is spoken, the oldest first."""
        return list(self._running)

    @property
    def over(self) -> list[RequestProgress]:
        """What is remembered of the past, the latest first."""
        return list(reversed(self._over))

    def forget(self) -> int:
        """Forget the past; returns how much was remembered."""
        count = len(self._over)
        self._over.clear()
        return count
