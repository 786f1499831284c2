"""Count what a tutor's gateways did, and put the counts of several together. Starts nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GatewayStats:
    """Count what a gateway did since it started, or what all gateways of a tutor did.

    Attributes:
        answered: Advice given, by source.
        failed: Requests without advice, by kind.
        pending: Prompts that wait for the model now.
        per_s: Advice given per second since it was ready.
        stored: Answers on the gateway's disk, of all sweeps so far; None without a store.
        store_path: Where the store is.
        identity: What the store's keys hold of this tutor.
        notes: What was found out about it when it started, in lines, and whether its store is away now.
        spent: What was asked of its endpoint so far, on one line; empty for a model of our own.
        spent_at: When a replica said so, in seconds since the epoch.
        reasons: Why requests got no advice, and how many each.
    """

    answered: dict[str, int]
    failed: dict[str, int]
    pending: int
    per_s: float
    stored: int | None
    store_path: str
    identity: str
    notes: tuple[str, ...]
    spent: str
    spent_at: float
    reasons: dict[str, int]


def together(gateways: Sequence[GatewayStats | None]) -> GatewayStats | None:
    """Return what the gateways of a tutor did in all; None where no gateway could be asked.

    They keep answers in one folder where they run on one node; where not, the fullest copy is counted.

    Args:
        gateways: What each one says, by its number; None where it could not be asked.
    """
    found = [each for each in gateways if each is not None]
    if not found:
        return None
    silent = [number for number, each in enumerate(gateways) if each is None]
    notes = dict.fromkeys(note for each in found for note in each.notes)  # in order, each once
    lost = f"{len(silent)} of {len(gateways)} gateways do not answer now: {', '.join(map(str, silent))}"
    counted = [each.stored for each in found if each.stored is not None]
    latest = max(found, key=lambda each: each.spent_at)
    return GatewayStats(
        answered=_sum([each.answered for each in found]),
        failed=_sum([each.failed for each in found]),
        pending=sum(each.pending for each in found),
        per_s=sum(each.per_s for each in found),
        stored=max(counted, default=None),
        store_path=found[0].store_path,
        identity=found[0].identity,
        notes=(*notes, lost) if silent else tuple(notes),
        spent=latest.spent,
        spent_at=latest.spent_at,
        reasons=_sum([each.reasons for each in found]),
    )


def _sum(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)
