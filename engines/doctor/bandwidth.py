"""The bound that a card's memory sets to the speed of a lone stream."""

from __future__ import annotations

import subprocess

# Memory bandwidth in GB/s, as NVIDIA's data sheets give it; the longest name that fits counts.
BANDWIDTHS = {
    "H200": 4800, "H100": 3350, "A100": 1555, "A100-SXM4-80GB": 2039, "L40S": 864, "L4": 300,
    "RTX 5090": 1792, "RTX 5080": 960, "RTX 5070 Ti": 896, "RTX 5060 Ti": 448,
    "RTX 4090": 1008, "RTX 4080": 717, "RTX 4060 Ti": 288, "RTX 4060": 272,
    "RTX 3090": 936, "RTX 3060": 360, "RTX A6000": 768,
}  # fmt: skip
# Bytes that one step of a lone stream reads, by precision: 2.844 billion parameters of attention,
# audio feed-forward nets and audio head, and 300 positions of keys and values.
STEP_GIGABYTES = {"bf16": 5.73, "int8": 2.92, "int4": 1.67}


def cards_here() -> list[str]:
    """This machine's GPUs with their memory, as nvidia-smi tells it; none without it."""
    query = ["nvidia-smi", "--query-gpu=name,memory.used,memory.total", "--format=csv,noheader"]
    try:
        shown = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    return shown.stdout.strip().splitlines()


def bandwidth_limit(cards: list[str], precision: str) -> float | None:
    """Tokens a second that a lone stream cannot exceed on the first card; None where unknown."""
    names = [name for name in BANDWIDTHS if cards and name in cards[0]]
    if not names or precision not in STEP_GIGABYTES:
        return None
    return round(BANDWIDTHS[max(names, key=len)] / STEP_GIGABYTES[precision], 1)
