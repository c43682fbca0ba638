"""Every collector of the gateway, in one class that takes a registry.

Labels come from closed sets only, never from a client's text; names and units follow Prometheus'
rules (base units, `_total` on counters alone).
"""

from __future__ import annotations

import platform
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from itertools import accumulate

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    Metric,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from gateway import __version__

LATENCY_BUCKETS = (0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0)
DURATION_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
AUDIO_BUCKETS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0)
REAL_TIME_FACTOR_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 2.0, 4.0)
UNDERRUN_BUCKETS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)


class Tally(Collector):
    """A counter that counts in a fifth of the library's time.

    It takes no lock: the event loop alone counts.

    Args:
        registry: Where it is collected.
        name: Of the metric.
        text: What it says of itself.
        labels: Their names.
    """

    def __init__(self, registry: CollectorRegistry, name: str, text: str, *labels: str) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._sums = defaultdict[tuple[str, ...], float](float, {} if labels else {(): 0.0})
        registry.register(self)

    def inc(self, *values: str, by: float = 1) -> None:
        """Count under these label values, in the order of the names."""
        if by < 0:
            raise ValueError("A counter only goes up.")
        self._sums[values] += by

    def collect(self) -> Iterable[Metric]:
        """The library's form of it."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, amount in self._sums.items():
            family.add_metric(values, amount)
        yield family


class Distribution(Collector):
    """A histogram without labels whose observation costs a tenth of the library's.

    It takes no lock: the event loop alone observes.

    Args:
        registry: Where it is collected.
        name: Of the metric.
        text: What it says of itself.
        bounds: The buckets' upper ones.
    """

    def __init__(
        self, registry: CollectorRegistry, name: str, text: str, bounds: tuple[float, ...]
    ) -> None:
        self._name, self._text, self._bounds = name, text, bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, amount: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, amount)] += 1
        self._sum += amount

    def collect(self) -> Iterable[Metric]:
        """The library's form of it."""
        buckets = zip((*map(str, self._bounds), "+Inf"), accumulate(self._counts), strict=True)
        yield HistogramMetricFamily(self._name, self._text, list(buckets), self._sum)


class Metrics:
    """The process' collectors.

    Args:
        registry: Where they live; a fresh one by default, so that tests stay apart.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the series and tell nothing that a scrape does not
        self.registry = registry or CollectorRegistry()

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=self.registry)

        counter, histogram = partial(Tally, self.registry), partial(Distribution, self.registry)

        self.requests = counter(
            "gateway_requests_total", "Speech requests by how they ended.", "surface", "outcome"
        )
        self.in_flight = gauge("gateway_in_flight_requests", "Speech requests that have a slot.")
        self.in_flight_peak = gauge(
            "gateway_in_flight_requests_peak", "Most speech requests that had a slot at once."
        )
        self.slots = gauge("gateway_slots", "Generations that may run upstream at once.")
        self.slots_in_use = gauge(
            "gateway_slots_in_use", "Slots taken; a long request may hold several."
        )
        self.queue_places = gauge("gateway_queue_places", "Requests that may wait for a slot.")
        self.queued = gauge("gateway_queued_requests", "Speech requests that wait for a slot.")
        self.queue_wait = histogram(
            "gateway_queue_wait_seconds", "Wait for a slot.", LATENCY_BUCKETS
        )
        self.rejections = counter(
            "gateway_rejections_total", "Requests turned away, by reason.", "reason"
        )
        self.key_requests = counter(
            "gateway_key_requests_total", "Speech requests let in, by the key's name.", "key"
        )
        self.key_audio_seconds = counter(
            "gateway_key_audio_seconds_total", "Seconds of audio made, by the key's name.", "key"
        )
        self.time_to_first_audio = histogram(
            "gateway_time_to_first_audio_seconds",
            "From the request's arrival to the first PCM from the upstream.",
            LATENCY_BUCKETS,
        )
        self.time_to_first_byte = histogram(
            "gateway_time_to_first_byte_seconds",
            "From the request's arrival to the first audio byte sent to the client.",
            LATENCY_BUCKETS,
        )
        self.request_duration = histogram(
            "gateway_request_duration_seconds",
            "From the request's arrival to the answer's last byte.",
            DURATION_BUCKETS,
        )
        self.audio_seconds = counter(
            "gateway_audio_seconds_total",
            "Seconds of audio sent to clients.",
            "surface",
            "response_format",
            "voice",
        )
        self.audio_duration = histogram(
            "gateway_audio_duration_seconds", "Audio of one whole answer.", AUDIO_BUCKETS
        )
        self.response_bytes = counter(
            "gateway_response_bytes_total", "Bytes of audio answers' bodies sent to clients."
        )
        self.runaway = counter(
            "gateway_runaway_total", "Generations ended because they went on too long.", "reason"
        )
        self.audio_tokens = counter(
            "gateway_audio_tokens_total", "Audio tokens received from upstreams."
        )
        self.input_characters = counter(
            "gateway_input_characters_total", "Characters of text accepted."
        )
        self.real_time_factor = histogram(
            "gateway_real_time_factor",
            "Processing seconds per audio second of whole answers.",
            REAL_TIME_FACTOR_BUCKETS,
        )
        self.underrun = histogram(
            "gateway_underrun_seconds",
            "Seconds that a player which started at the first chunk would have starved.",
            UNDERRUN_BUCKETS,
        )
        self.encode_seconds = counter(
            "gateway_encode_seconds_total",
            "Seconds spent in tempo, sample rate and encoder.",
            "response_format",
        )
        self.jobs = gauge("gateway_jobs", "Long texts in the store of jobs, by state.", "state")
        self.oldest_job = gauge(
            "gateway_job_oldest_seconds", "Age of the oldest job that is not over; 0 without one."
        )
        self.job_segments = counter(
            "gateway_job_segments_total",
            "Segments of jobs: made, made again after a failure, given up for a live request.",
            "outcome",
        )
        for outcome in ("made", "retried", "gave_way"):  # a panel has data before the first job
            self.job_segments.inc(outcome, by=0)
        self.upstream_requests = counter(
            "gateway_upstream_requests_total",
            "Attempts on upstreams by how they ended.",
            "upstream",
            "outcome",
        )
        self.wrapped_samples = counter(
            "gateway_upstream_wrapped_samples_total",
            "Samples above full scale that an engine let wrap around: clipped here, or left.",
            "result",
        )
        self.upstream_retries = counter(
            "gateway_upstream_retries_total", "Attempts made again, by what failed.", "reason"
        )
        self.retry_budget_exhausted = counter(
            "gateway_retry_budget_exhausted_total",
            "Attempts that were not made again because too many already had been.",
        )
        self.upstream_in_flight = gauge(
            "gateway_upstream_in_flight", "Generations that run on an upstream.", "upstream"
        )
        self.upstream_healthy = gauge(
            "gateway_upstream_healthy",
            "1 while the upstream has produced audio and answers.",
            "upstream",
        )
        gauge("gateway_start_time_seconds", "Unix time at which the gateway started.").set(
            time.time()
        )
        gauge("gateway_build_info", "Versions.", "version", "python").labels(
            __version__, platform.python_version()
        ).set(1)

    def health_of(self, upstream: str) -> Callable[[bool], None]:
        """What tells the health of an upstream; it is not well until that is said."""
        gauge = self.upstream_healthy.labels(upstream)
        gauge.set(0)
        return gauge.set

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)

    def sums(self) -> dict[str, float]:
        """Every sample's value by its name, summed over its labels but for an `outcome`.

        A sample with an outcome stands as `name:outcome`. Histograms' buckets are left out.
        """
        sums: dict[str, float] = {}
        for family in self.registry.collect():
            for sample in family.samples:
                if sample.name.endswith("_bucket"):
                    continue
                outcome = sample.labels.get("outcome")
                name = f"{sample.name}:{outcome}" if outcome else sample.name
                sums[name] = sums.get(name, 0.0) + sample.value
        return sums
