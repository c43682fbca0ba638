"""The dashboards as code: `python deploy/grafana/generate.py` writes dashboards/*.json.

A test fails when the JSON is not what this file says.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from panels import (  # beside this file, wherever it is run from
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    Panel,
    Query,
    Row,
    dashboard,
)

FOLDER = Path(__file__).parent / "dashboards"
REQUESTS = 'gateway_requests_total{surface=~"$surface"}'
AUDIO = 'gateway_audio_seconds_total{surface=~"$surface"}'
UPSTREAM = '{upstream=~"$upstream"}'
# What the engine's makers published for one card.
PUBLISHED = ((None, BLUE), (24, ORANGE), (60, GREEN))
FIRST_AUDIO = ((None, GREEN), (1, ORANGE), (3, RED))


def quantile(name: str, share: float, rate: str = "5m") -> str:
    """A percentile of a histogram of the gateway."""
    return f"histogram_quantile({share:g}, sum by (le) (rate({name}_bucket[{rate}])))"


def vllm(name: str, selector: str = "") -> str:
    """A metric of the engine; the colon is part of its name."""
    return f'{{__name__="vllm:{name}"{"," + selector if selector else ""}}}'


GLANCE = Row(
    "At a glance",
    [
        Panel(
            "Speech a second",
            "Seconds of audio sent to clients in a second. One card was published with 24 "
            "(RTX 4090) and 60 (A100).",
            [Query("gateway:audio_seconds:rate1m", "audio s/s")],
            unit="none", kind="stat", width=5, height=5, thresholds=PUBLISHED,
        ),
        Panel(
            "First audio, 95 %",
            "Nineteen of twenty listeners wait no longer than this, the queue included.",
            [Query("gateway:time_to_first_audio_seconds:p95", "p95")],
            unit="s", kind="stat", width=5, height=5, thresholds=FIRST_AUDIO,
        ),
        Panel(
            "Waiting",
            "Requests that wait for a slot.",
            [Query("sum(gateway_queued_requests)", "queued")],
            kind="stat", width=4, height=5,
            thresholds=((None, GREEN), (16, ORANGE), (128, RED)),
        ),
        Panel(
            "Failing",
            "Share of requests that failed through no fault of their client.",
            [Query("gateway:errors:ratio5m", "failing")],
            unit="percentunit", kind="stat", width=5, height=5,
            thresholds=((None, GREEN), (0.01, ORANGE), (0.05, RED)),
        ),
        Panel(
            "Engines that speak",
            "Upstreams that have produced audio and answer.",
            [Query(f"sum(gateway_upstream_healthy{UPSTREAM})", "healthy")],
            kind="stat", width=5, height=5,
            thresholds=((None, RED), (1, GREEN)),
        ),
    ],
)  # fmt: skip

THROUGHPUT = Row(
    "Throughput",
    [
        Panel(
            "Audio seconds a second",
            "Everything that was sent, and the part of it that belongs to whole answers. The "
            "dashed lines are the published 24 (RTX 4090) and 60 (A100).",
            [
                Query("gateway:audio_seconds:rate1m", "sent"),
                Query("gateway:goodput_audio_seconds:rate1m", "whole answers"),
            ],
            unit="none", width=12, thresholds=PUBLISHED, lines=True,
        ),
        Panel(
            "Requests by how they ended",
            "ok, or why not: invalid and unauthorised are the client's, rejected the queue's, "
            "cancelled left by the client, upstream_error and truncated the engine's.",
            [Query(f"sum by (outcome) (rate({REQUESTS}[1m]))", "{{outcome}}")],
            unit="reqps", width=12, stack=True,
        ),
        Panel(
            "By surface",
            "Audio by the API that clients speak.",
            [Query(f"sum by (surface) (rate({AUDIO}[1m]))", "{{surface}}")],
            unit="none", stack=True,
        ),
        Panel(
            "By response format",
            "What has to be encoded costs the gateway CPU; pcm and wav do not.",
            [Query(f"sum by (response_format) (rate({AUDIO}[1m]))", "{{response_format}}")],
            unit="none", stack=True,
        ),
        Panel(
            "By voice",
            "A preset's name, or `library` for voices that were uploaded.",
            [Query(f"sum by (voice) (rate({AUDIO}[1m]))", "{{voice}}")],
            unit="none", stack=True,
        ),
    ],
)  # fmt: skip

LATENCY = Row(
    "How soon, how smooth",
    [
        Panel(
            "Time to first audio",
            "From the request's arrival to the first PCM from the engine, the queue included.",
            [
                Query("gateway:time_to_first_audio_seconds:p50", "p50"),
                Query("gateway:time_to_first_audio_seconds:p95", "p95"),
                Query("gateway:time_to_first_audio_seconds:p99", "p99"),
            ],
            unit="s", thresholds=FIRST_AUDIO, lines=True,
        ),
        Panel(
            "Time to first byte",
            "The same to the first byte that a client gets: what lies between is encoding.",
            [
                Query("gateway:time_to_first_byte_seconds:p50", "p50"),
                Query("gateway:time_to_first_byte_seconds:p95", "p95"),
                Query("gateway:time_to_first_byte_seconds:p99", "p99"),
            ],
            unit="s", thresholds=FIRST_AUDIO,
        ),
        Panel(
            "Real-time factor",
            "Processing time by audio time of whole answers; above 1 a player must starve.",
            [
                Query("gateway:real_time_factor:p50", "p50"),
                Query("gateway:real_time_factor:p95", "p95"),
                Query("gateway:real_time_factor:p99", "p99"),
            ],
            unit="none", thresholds=((None, GREEN), (1, RED)), lines=True,
        ),
        Panel(
            "Underruns",
            "Seconds that a player which starts at the first chunk would starve, in one answer of "
            "twenty.",
            [Query("gateway:underrun_seconds:p95", "p95")],
            unit="s", thresholds=((None, GREEN), (0.1, ORANGE), (0.5, RED)), lines=True,
        ),
        Panel(
            "Wait for a slot",
            "Of the requests that were let in; one of twenty waits longer than p95.",
            [
                Query("gateway:queue_wait_seconds:p50", "p50"),
                Query("gateway:queue_wait_seconds:p95", "p95"),
                Query("gateway:queue_wait_seconds:p99", "p99"),
            ],
            unit="s", thresholds=FIRST_AUDIO,
        ),
        Panel(
            "Length of answers",
            "Audio of one whole answer.",
            [
                Query(quantile("gateway_audio_duration_seconds", 0.5), "p50"),
                Query(quantile("gateway_audio_duration_seconds", 0.95), "p95"),
            ],
            unit="s",
        ),
    ],
)  # fmt: skip

LOAD = Row(
    "Queue and refusals",
    [
        Panel(
            "In flight and waiting",
            "A long request may hold several slots; the dashed line of slots is what may run.",
            [
                Query("sum(gateway_in_flight_requests)", "in flight"),
                Query("sum(gateway_slots_in_use)", "slots in use"),
                Query("sum(gateway_slots)", "slots"),
                Query("sum(gateway_queued_requests)", "waiting"),
            ],
            width=12,
        ),
        Panel(
            "Refused, by reason",
            "Requests that were turned away and told when to come again.",
            [
                Query("sum by (reason) (rate(gateway_rejections_total[5m])) or vector(0)",
                      "{{reason}}"),
            ],
            unit="reqps", width=12, stack=True,
            thresholds=((None, GREEN), (0.1, ORANGE)),
        ),
    ],
)  # fmt: skip

UPSTREAMS = Row(
    "Upstreams",
    [
        Panel(
            "Health",
            "1 while the engine has produced audio and answers.",
            [Query(f"max by (upstream) (gateway_upstream_healthy{UPSTREAM})", "{{upstream}}")],
            width=6, maximum=1, thresholds=((None, RED), (1, GREEN)),
        ),
        Panel(
            "Generations that run",
            "By engine, as the gateway counts them.",
            [Query(f"sum by (upstream) (gateway_upstream_in_flight{UPSTREAM})", "{{upstream}}")],
            width=6, stack=True,
        ),
        Panel(
            "Attempts, by how they ended",
            "ok, or the code of the failure; one request may need several attempts.",
            [
                Query("sum by (outcome) (rate(gateway_upstream_requests_total"
                      f"{UPSTREAM}[5m]))", "{{outcome}}"),
            ],
            unit="reqps", width=6, stack=True,
        ),
        Panel(
            "Repairs",
            "Attempts that were made again, runaways that were ended, and retries refused because "
            "there had been too many.",
            [
                Query("sum(rate(gateway_upstream_retries_total[5m])) or vector(0)", "again"),
                Query("sum(rate(gateway_runaway_total[5m])) or vector(0)", "runaways"),
                Query("sum(rate(gateway_retry_budget_exhausted_total[5m])) or vector(0)",
                      "budget exhausted"),
            ],
            unit="reqps", width=6,
        ),
    ],
)  # fmt: skip

ENGINE = Row(
    "Engine, as it says itself",
    [
        Panel(
            "Running and waiting",
            "The engine has no bound of its own: waiting means that GATEWAY_MAX_IN_FLIGHT is above "
            "what its memory holds.",
            [
                Query(f"sum({vllm('num_requests_running')})", "running"),
                Query(f"sum({vllm('num_requests_waiting')})", "waiting"),
            ],
        ),
        Panel(
            "Tokens a second",
            "25 of them are one second of audio. The dashed lines are the published 600 (RTX 4090) "
            "and 1,500 (A100).",
            [
                Query("engine:generation_tokens:rate1m", "engine"),
                Query("gateway:audio_tokens:rate1m", "received by the gateway"),
            ],
            unit="none", thresholds=((None, BLUE), (600, ORANGE), (1500, GREEN)), lines=True,
        ),
        Panel(
            "Cache in use",
            "Share of the memory for running streams that is taken; at 1 new ones wait inside.",
            [Query(vllm("gpu_cache_usage_perc"), "{{instance}}")],
            unit="percentunit", maximum=1,
            thresholds=((None, GREEN), (0.8, ORANGE), (0.95, RED)), lines=True,
        ),
        Panel(
            "Time to first token",
            "Inside the engine; what the gateway adds is the difference to its first audio.",
            [
                Query("histogram_quantile(0.5, sum by (le) (rate("
                      f"{vllm('time_to_first_token_seconds_bucket')}[5m])))", "p50"),
                Query("histogram_quantile(0.95, sum by (le) (rate("
                      f"{vllm('time_to_first_token_seconds_bucket')}[5m])))", "p95"),
            ],
            unit="s", width=12,
        ),
        Panel(
            "Generations ended",
            "By the engine's own reason; length means that it reached its bound.",
            [
                Query(f"sum by (finished_reason) (rate({vllm('request_success_total')}[5m]))",
                      "{{finished_reason}}"),
            ],
            unit="reqps", width=12, stack=True,
        ),
    ],
)  # fmt: skip


def gpu(name: str) -> str:
    """A figure of nvidia_gpu_exporter, by the name that its docs/METRICS.md has.

    The card's index and name stand in a series of their own.
    """
    return f"nvidia_smi_{name} * on (instance, uuid) group_left (index, name) nvidia_smi_gpu_info"


GPU = Row(
    "GPU",
    [
        Panel(
            "Memory",
            "The engine takes its share at the start and keeps it: a flat line is right.",
            [
                Query(gpu("memory_used_bytes"), "{{index}} {{name}} used"),
                Query(gpu("memory_total_bytes"), "{{index}} {{name}} total"),
            ],
            unit="bytes", width=12,
        ),
        Panel(
            "Busy",
            "Share of the time in which a kernel ran.",
            [Query(gpu("utilization_gpu_ratio"), "{{index}} {{name}}")],
            unit="percentunit", width=12, maximum=1,
        ),
        Panel(
            "Temperature",
            "At about 90 °C the card lowers its clock.",
            [Query(gpu("temperature_gpu"), "{{index}} {{name}}")],
            unit="celsius", width=12,
            thresholds=((None, GREEN), (80, ORANGE), (87, RED)), lines=True,
        ),
        Panel(
            "Power",
            "Idle cards draw a tenth of their limit.",
            [Query(gpu("power_draw_watts"), "{{index}} {{name}}")],
            unit="watt", width=12,
        ),
    ],
)  # fmt: skip

JOBS = Row(
    "Jobs",
    [
        Panel(
            "Jobs by state",
            "Long texts in the store: gateways on one data folder all tell the same.",
            [Query("max by (state) (gateway_jobs)", "{{state}}")],
            unit="none", width=12, stack=True,
        ),
        Panel(
            "Segments",
            "Made, made again after a failure, and given up for a request that had to wait.",
            [Query("sum by (outcome) (rate(gateway_job_segments_total[5m]))", "{{outcome}}")],
            unit="reqps",
        ),
        Panel(
            "Oldest job that is not over",
            "One that grows while segments are made is a long book; else no slot comes free.",
            [Query("max(gateway_job_oldest_seconds)", "age")],
            unit="s", width=4,
        ),
    ],
)  # fmt: skip

LOAD_TEST = [
    Row(
        "Load test",
        [
            Panel(
                "Goodput against all audio",
                "While load grows past the knee, the upper line may climb no further and the lower "
                "one must not fall.",
                [
                    Query("gateway:audio_seconds:rate1m", "sent"),
                    Query("gateway:goodput_audio_seconds:rate1m", "whole answers"),
                ],
                unit="none", width=12, height=10, thresholds=PUBLISHED, lines=True,
            ),
            Panel(
                "Offered and done",
                "Requests that came, and those that ended well.",
                [
                    Query("sum(gateway:requests:rate1m)", "came"),
                    Query("gateway:goodput_requests:rate1m", "ok"),
                ],
                unit="reqps", width=12, height=10,
            ),
            Panel(
                "First audio",
                "The knee shows where this begins to climb.",
                [
                    Query("gateway:time_to_first_audio_seconds:p50", "p50"),
                    Query("gateway:time_to_first_audio_seconds:p99", "p99"),
                ],
                unit="s", thresholds=FIRST_AUDIO, lines=True,
            ),
            Panel(
                "Slots and queue",
                "All slots in use is the aim; a queue that stays is too much load.",
                [
                    Query("sum(gateway_slots_in_use) / sum(gateway_slots)", "slots in use"),
                    Query("sum(gateway_queued_requests) / sum(gateway_queue_places)", "queue"),
                ],
                unit="percentunit", maximum=1,
            ),
            Panel(
                "Refused",
                "Share of the requests that were told to come again.",
                [Query("gateway:rejections:ratio5m", "refused")],
                unit="percentunit", maximum=1,
                thresholds=((None, GREEN), (0.05, ORANGE), (0.5, RED)),
            ),
            Panel(
                "Audio by voice",
                "Which voices the load asked for, over the last five minutes.",
                [Query(f"sum by (voice) (increase({AUDIO}[5m]))", "{{voice}}")],
                unit="s", kind="bargauge", width=12, thresholds=((None, BLUE),),
            ),
            Panel(
                "Codec time",
                "CPU seconds a second in tempo, sample rate and encoders.",
                [
                    Query("sum by (response_format) (rate(gateway_encode_seconds_total[1m]))",
                          "{{response_format}}"),
                ],
                unit="none", width=12, stack=True, thresholds=((None, GREY),),
            ),
        ],
    )
]  # fmt: skip


def dashboards() -> dict[str, dict[str, Any]]:
    """Every dashboard by its file's name."""
    return {
        "overview.json": dashboard(
            "speech-gateway-overview",
            "Speech gateway: overview",
            "How much speech comes out, how soon, what waits and what fails.",
            [GLANCE, THROUGHPUT, LATENCY, LOAD, UPSTREAMS, JOBS],
        ),
        "engine.json": dashboard(
            "speech-gateway-engine",
            "Speech gateway: engine and GPU",
            "What the engine says of itself, and its GPU.",
            [ENGINE, GPU, UPSTREAMS],
        ),
        "load-test.json": dashboard(
            "speech-gateway-load-test",
            "Speech gateway: load test",
            "What to watch while locust or the sweep runs.",
            LOAD_TEST,
        ),
    }


def render(board: dict[str, Any]) -> str:
    """The JSON text of a dashboard."""
    return json.dumps(board, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    for name, board in dashboards().items():
        (FOLDER / name).write_text(render(board), encoding="utf-8")


if __name__ == "__main__":
    main()
