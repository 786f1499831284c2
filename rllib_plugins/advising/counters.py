"""What a trial's advice amounted to: running totals and recent averages. Knows numbers only."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from rllib_plugins.advising.advisor import Source
from rllib_plugins.metrics import COUNTERS

MODEL, STORE = int(Source.MODEL), int(Source.STORE)
UNACCOUNTED = -1
"""In place of a source: the advisor does not say what an answer at hand counts as."""
HALF_LIFE = 500.0
"""Observations after which one counts half in a recent average."""


@dataclass(slots=True)
class AdviceCounters:
    """Running totals over the trial; the names are those of ``metrics.COUNTERS``.

    Attributes:
        consultations: Steps at which the coin said heads and advice was had.
        reused: Of these, answered by the trial's own dictionary of stored actions.
        store_hits: Of these, drawn from a distribution that had been evaluated before.
        model_evaluations: Of these, for which the LLM was evaluated.
        missed: Steps at which the coin said heads and no usable advice came: the student acted.
        invalid: Answers that named no legal action, and distributions that were no such.
        tokens: Prompt and generated tokens that the LLM processed for this trial's advice.
    """

    consultations: int = 0
    reused: int = 0
    store_hits: int = 0
    model_evaluations: int = 0
    missed: int = 0
    invalid: int = 0
    tokens: int = 0

    def add_source(self, source: int, num_rows: int) -> None:
        """Counts consultations by where their distribution came from; scripted ones count as consultations only."""
        self.consultations += num_rows
        if source == STORE:
            self.store_hits += num_rows
        elif source == MODEL:
            self.model_evaluations += num_rows

    def add_step(self, num_reused: int, num_known: int, known_source: int) -> None:
        """Counts consultations of a vector step that the dictionary and what is at hand answered."""
        self.reused += num_reused
        self.consultations += num_reused + num_known
        if known_source == STORE:
            self.store_hits += num_known
        elif known_source == MODEL:
            self.model_evaluations += num_known

    def report(self) -> dict[str, int]:
        """The totals under their metric names."""
        return {name: getattr(self, name.removeprefix("advice/")) for name in COUNTERS}

    def get_state(self) -> dict[str, int]:
        """The totals under their field names."""
        return asdict(self)

    def set_state(self, state: dict[str, int]) -> None:
        """Takes over a ``get_state``."""
        for name, value in state.items():
            setattr(self, name, value)


class RecentMean:
    """Mean of a stream in which an observation counts half after ``HALF_LIFE`` more."""

    __slots__ = ("_count", "_total")

    def __init__(self) -> None:
        self._total = 0.0
        self._count = 0.0

    def add(self, total: float, count: float) -> None:
        """Adds ``count`` observations that sum to ``total``."""
        decay = 0.5 ** (count / HALF_LIFE)
        self._total = self._total * decay + total
        self._count = self._count * decay + count

    @property
    def value(self) -> float:
        """The mean; NaN before the first observation."""
        return self._total / self._count if self._count else math.nan

    def get_state(self) -> dict[str, Any]:
        """The running sums."""
        return {"total": self._total, "count": self._count}

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes over a ``get_state``."""
        self._total, self._count = float(state["total"]), float(state["count"])
