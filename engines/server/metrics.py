"""What an engine's `/metrics` tells, with the container's names.

Written by hand: it keeps the Prometheus library out of the engines.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass, field

from engines.voice import Metric

FIRST_TOKEN_BUCKETS_SECONDS = (  # those of vLLM's time_to_first_token_seconds
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0),
    *(2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(slots=True)
class Counters:
    """Numbers of one process.

    Attributes:
        finished: Generations by finish_reason; those of clients that left are not in it.
        first_token_seconds: How often the first token came within each bucket, and later.
        first_token_seconds_sum: Sum of those times.
    """

    finished: dict[str, int] = field(default_factory=lambda: {"stop": 0, "length": 0, "abort": 0})
    first_token_seconds: list[int] = field(
        default_factory=lambda: [0] * (len(FIRST_TOKEN_BUCKETS_SECONDS) + 1)
    )
    first_token_seconds_sum: float = 0.0

    def observe_first_token(self, seconds: float) -> None:
        """Count one time to the first token."""
        self.first_token_seconds[bisect.bisect_left(FIRST_TOKEN_BUCKETS_SECONDS, seconds)] += 1
        self.first_token_seconds_sum += seconds

    def exposition(
        self,
        model_id: str,
        *,
        running: int,
        waiting: int,
        tokens: int,
        cache_usage: float | None,
        more: Iterable[Metric] = (),
    ) -> str:
        """All of it as Prometheus text.

        Args:
            model_id: Label of every sample.
            running: Generations that run now.
            waiting: Those in line.
            tokens: Tokens generated since the start.
            cache_usage: Share of the room for running generations that is taken; None where the
                voice has no such bound, and then no sample: a zero would look like an idle card.
            more: The voice's own samples; those of one name follow each other.
        """
        labels = f'engine="0",model_name="{model_id}"'
        lines: list[str] = []

        def family(name: str, kind: str, samples: list[tuple[str, str, float]]) -> None:
            lines.append(f"# TYPE vllm:{name} {kind}")
            for suffix, labelled, value in samples:
                lines.append(f"vllm:{name}{suffix}{{{labels}{labelled}}} {float(value)}")

        family("num_requests_running", "gauge", [("", "", running)])
        family("num_requests_waiting", "gauge", [("", "", waiting)])
        if cache_usage is not None:
            family("gpu_cache_usage_perc", "gauge", [("", "", cache_usage)])
        family("generation_tokens_total", "counter", [("", "", tokens)])
        family(
            "request_success_total",
            "counter",
            [("", f',finished_reason="{why}"', n) for why, n in self.finished.items()],
        )
        family("time_to_first_token_seconds", "histogram", self._first_token_samples())
        last = None
        for metric in more:
            if metric.name != last:
                lines.append(f"# TYPE {metric.name} {metric.kind}")
            last = metric.name
            extra = f",{metric.labels}" if metric.labels else ""
            lines.append(f"{metric.name}{{{labels}{extra}}} {float(metric.value)}")
        return "\n".join(lines) + "\n"

    def _first_token_samples(self) -> list[tuple[str, str, float]]:
        samples: list[tuple[str, str, float]] = []
        total = 0
        for bound, count in zip(
            (*FIRST_TOKEN_BUCKETS_SECONDS, "+Inf"), self.first_token_seconds, strict=True
        ):
            total += count
            samples.append(("_bucket", f',le="{bound}"', total))
        return [*samples, ("_count", "", total), ("_sum", "", self.first_token_seconds_sum)]
