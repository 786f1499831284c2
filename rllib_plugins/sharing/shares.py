"""What one trial's runners owe each other: their tallies, and how they share the advice budget.

Pure arithmetic. No message need arrive: what a runner may spend is only ever raised by what nobody holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rllib_plugins.metrics import AdviceCounters, RecentMean
from rllib_plugins.sharing.table_updates import Entries

HOLDER = 0
"""Number of what holds a trial's common knowledge; it does not act."""


class Place(NamedTuple):
    """One of a trial's runners.

    Attributes:
        number: 1 to ``num_runners``, or ``HOLDER``.
        num_runners: Runners that act.
    """

    number: int
    num_runners: int


class Held(NamedTuple):
    """A runner's part of the advice budget.

    Attributes:
        spent: Consultations that it was charged so far.
        allowance: Consultations that it may be charged in all.
    """

    spent: int
    allowance: int


@dataclass(slots=True)
class Tally:
    """What one runner has done since the trial began.

    Attributes:
        life: Names the process that did it last; another one in its place has another name.
        num_env_steps: Its own env steps.
        counters: Running totals, by the fields of ``AdviceCounters``.
        num_free: Consultations that no budget is charged for.
        allowance: Consultations that it may be charged in all; None: no budget.
        agreement: Its recent mean.
        latency: Its recent mean.
        gate: Its latest gate.
        streams: States of its random streams, the student's and the tutor's.
    """

    life: str
    num_env_steps: int = 0
    counters: dict[str, int] = field(default_factory=lambda: AdviceCounters().get_state())
    num_free: int = 0
    allowance: int | None = None
    agreement: dict[str, float] = field(default_factory=lambda: RecentMean().get_state())
    latency: dict[str, float] = field(default_factory=lambda: RecentMean().get_state())
    gate: float = 0.0
    streams: tuple[Mapping[str, Any], ...] = ()

    @property
    def spent(self) -> int:
        """Return the consultations that the budget was charged for."""
        return self.counters["consultations"] - self.num_free


class Report(NamedTuple):
    """What a runner tells the holder at a sync.

    Attributes:
        number: Of the runner.
        tally: What it has done so far.
        stored: Its stored actions that are new or have changed since it last heard from the holder.
        tables: Likewise the advisor's ``table`` and, where kept apart, ``opinions``.
    """

    number: int
    tally: Tally
    stored: Entries
    tables: tuple[Entries, ...]


class Common(NamedTuple):
    """What the holder tells the runners at a sync.

    Attributes:
        life: Of the holder.
        tallies: By runner.
        grants: By the ``life`` of a runner, what it may spend in all. Who is not named may spend nothing more.
        num_lost: Consultations that are charged without being known: what processes that were lost may have spent.
        trust: State of ``EarnedTrust``.
        stored: Stored actions.
        tables: As in ``Report``.
        is_whole: Whether ``stored`` are all that there are, or what is new.
    """

    life: str
    tallies: dict[int, Tally]
    grants: dict[str, int]
    num_lost: int
    trust: dict[str, Any]
    stored: Entries
    tables: tuple[Entries, ...]
    is_whole: bool


def share_out(budget: int, held: Mapping[int, Held], others: int = 0) -> dict[int, int]:
    """Return new allowances by runner; old ones and new ones together never exceed the budget.

    A runner with more left than its even share gives the rest back, and a runner with less is given what nobody holds.
    What is given back is held by nobody only once its runner has said so, at the next sync: a message may be lost.

    Args:
        budget: Consultations of the trial in all.
        held: By runner, as it reported itself.
        others: What runners that did not report hold, spent or not, and what was lost.
    """
    free = max(0, budget - others - sum(part.allowance for part in held.values()))
    left = {index: part.allowance - part.spent for index, part in held.items()}
    if not held:
        return {}
    least, most = (free + sum(left.values())) // len(held), math.ceil((free + sum(left.values())) / len(held))
    kept = max(1, least) if min(left.values()) < least else max(left.values())
    allowances: dict[int, int] = {}
    for index in sorted(held):
        grant = min(free, max(0, most - left[index]))
        free -= grant
        allowances[index] = held[index].allowance + grant if grant else held[index].spent + min(left[index], kept)
    return allowances


def total(tallies: Iterable[Tally]) -> Tally:
    """Return what some runners have done together; recent means are weighted by what they are means of."""
    parts = list(tallies)
    summed = Tally(life="")
    for part in parts:
        summed.num_env_steps += part.num_env_steps
        summed.num_free += part.num_free
        summed.counters = {name: summed.counters[name] + value for name, value in part.counters.items()}
        summed.agreement = {name: summed.agreement[name] + value for name, value in part.agreement.items()}
        summed.latency = {name: summed.latency[name] + value for name, value in part.latency.items()}
        summed.gate += part.gate / len(parts)
    return summed
