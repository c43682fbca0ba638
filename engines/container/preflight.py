"""Is this machine's GPU one that the engine's image can use? Pure but for the text it is given.

What nvidia-smi prints inside the image decides: that is what the engine will see.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from engines.container.plan import ContainerError

QUERY = [
    "nvidia-smi",
    "--query-gpu=name,memory.total,memory.used,compute_cap",
    "--format=csv,noheader,nounits",
]
COLUMNS = 4
# Weights and codec take some 14 GB and the makers ask for a card of 24 GB, whose drivers report
# between 22.5 and 24 GiB.
LEAST_MEMORY_MEBIBYTES = 22_000
# The image is built for sm_50 to sm_90; 10.0 and above is Blackwell.
FIRST_UNSUPPORTED_CAPABILITY = 10.0
# engines/higgs: bf16 in its kernels begins with Ampere; memory at which a precision holds weights,
# codec and four streams (docs/engines.md).
OWN_ENGINE_CAPABILITY = 8.0
OWN_ENGINE_OPTIONS = (
    (15_000, "--precision bf16"),
    (10_000, "--precision int8"),
    (7_500, "--precision int8 --context 2048"),
    (6_000, "--precision int4 --context 2048"),
)


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU as nvidia-smi sees it."""

    name: str
    total_mebibytes: float
    used_mebibytes: float
    capability: float

    def __str__(self) -> str:
        """For people."""
        gibibytes = self.total_mebibytes / 1024
        return f"{self.name}, {gibibytes:.0f} GiB, compute capability {self.capability:g}"


def rows_of(printed: str, columns: int) -> Iterator[list[str]]:
    """The rows of what nvidia-smi prints as CSV; lines that say something else are left out."""
    for line in printed.splitlines():
        row = [cell.strip() for cell in line.split(",")]
        if len(row) == columns:
            yield row


def read_cards(printed: str) -> list[Card]:
    """The cards in nvidia-smi's answer to `QUERY`; lines that say something else are left out."""
    cards = []
    for row in rows_of(printed, COLUMNS):
        try:
            cards.append(Card(row[0], float(row[1]), float(row[2]), float(row[3])))
        except ValueError:
            continue
    return cards


def own_engine_advice(card: Card) -> str:
    """A sentence on this repository's engine, where the card can run it; else nothing."""
    for least_mebibytes, options in OWN_ENGINE_OPTIONS:
        if card.capability >= OWN_ENGINE_CAPABILITY and card.total_mebibytes >= least_mebibytes:
            return (
                " This repository's own engine (experimental) runs on it: `COMPOSE_PROFILES=higgs"
                f" HIGGS_ENGINE_OPTIONS='{options}' docker compose -f"
                " deploy/docker-compose.yml up`, see docs/engines.md."
            )
    return ""


def check_cards(cards: list[Card], memory_share: float) -> None:
    """See that the engine can run on them.

    Args:
        cards: What there is; the engine takes the first.
        memory_share: The share of the memory that the engine will take for itself.

    Raises:
        ContainerError: It cannot, and why.
    """
    if not cards:
        raise ContainerError("nvidia-smi lists no GPU inside the container.")
    card = cards[0]
    if card.capability >= FIRST_UNSUPPORTED_CAPABILITY:
        raise ContainerError(
            f"{card.name} has compute capability {card.capability:g} (Blackwell or later); this "
            f"image is built for 5.0 to 9.0 and cannot run on it.{own_engine_advice(card)}"
        )
    if card.total_mebibytes < LEAST_MEMORY_MEBIBYTES:
        raise ContainerError(
            f"{card.name} has {card.total_mebibytes / 1024:.0f} GiB of memory; the model needs a "
            f"card of 24 GB.{own_engine_advice(card)}"
        )
    free = card.total_mebibytes - card.used_mebibytes
    if free < memory_share * card.total_mebibytes:
        raise ContainerError(
            f"{card.name} has {free / 1024:.1f} GiB free, but the engine would take "
            f"{memory_share:.0%} of {card.total_mebibytes / 1024:.0f} GiB: stop what uses the "
            "card, or lower HIGGS_GPU_MEMORY_UTILIZATION."
        )
