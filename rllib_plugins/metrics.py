"""Name the numbers that a trial reports, and keep running totals of advice and recent averages.

Nothing else reaches MLflow. A name is added here; its value comes from ``trial``, or from the counters and gauges
of a use of advice.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

STEP_AXIS = "num_env_steps_sampled_lifetime"
"""Environment steps that the student has sampled: the x-axis of every curve."""

COUNTERS = (
    "advice/consultations",
    "advice/reused",
    "advice/store_hits",
    "advice/model_evaluations",
    "advice/missed",
    "advice/invalid",
    "advice/tokens",
    "advice/stand_in",
)
"""Running totals over the trial. consultations = reused + store_hits + model_evaluations (+ scripted answers)."""

EFFORT = ("updates",)
"""Running totals of what learning took: gradient steps, those on remembered advice included."""

STAND_IN_GAUGES = ("advice/stand_in_agreement", "advice/stand_in_fitted_to", "advice/stand_in_stops")
"""Values about the model of a stand-in: how often it has the tutor's guess where it is sure, of late; to how many
answers it was fitted last; and how often it was given up. NaN without a stand-in."""

GAUGES = (
    "return_mean",
    "eval/return_mean",
    "eval/return_std",
    "eval/time_share",
    "advice/agreement",
    "advice/probability",
    "advice/trust",
    "advice/effect",
    "advice/effect_se",
    "advice/latency_ms",
    *STAND_IN_GAUGES,
    "env_steps_per_s",
)
"""Values at a point of the trial."""

ALL = (*COUNTERS, *EFFORT, *GAUGES)

HALF_LIFE = 500.0
"""Observations after which one counts half in a recent average."""


class Source(IntEnum):
    """Where a row of advice came from.

    With a stand-in also KEPT (the tutor said so before in this trial), STAND_IN (a model of its advice) and UNASKED
    (the budget is spent).
    """

    MISSED = 0
    MODEL = 1
    STORE = 2
    SCRIPT = 3
    KEPT = 4
    STAND_IN = 5
    UNASKED = 6


_MISSED, _MODEL, _STORE = int(Source.MISSED), int(Source.MODEL), int(Source.STORE)  # looking members up costs more
_KEPT, _STAND_IN, _UNASKED = int(Source.KEPT), int(Source.STAND_IN), int(Source.UNASKED)


@dataclass(slots=True)
class AdviceCounters:
    """Running totals over the trial; the names are those of ``COUNTERS``.

    Attributes:
        consultations: With coin and handover, env steps on which advice was followed; else visited states that were
            asked about and answered.
        reused: Of these, answered by the trial's own dictionary of stored actions.
        store_hits: Of these, drawn from a distribution that had been evaluated before.
        model_evaluations: Of these, for which the LLM was evaluated.
        missed: Questions without usable advice, where the student acts or learns by itself.
        invalid: Answers that named no legal action, and invalid distributions.
        tokens: Prompt and generated tokens that the LLM processed for this trial's advice.
        stand_in: Steps, beside the consultations, that a model of the advice answered in the tutor's place.
    """

    consultations: int = 0
    reused: int = 0
    store_hits: int = 0
    model_evaluations: int = 0
    missed: int = 0
    invalid: int = 0
    tokens: int = 0
    stand_in: int = 0

    def add(self, source: int, num_rows: int, num_reused: int = 0) -> None:
        """Count rows by ``Source``, scripted ones as consultations only, and rows that the dictionary answered."""
        if source == _MISSED:
            self.missed += num_rows
            return
        if source == _STAND_IN:
            self.stand_in += num_rows
            return
        if source == _UNASKED:
            return
        if source == _KEPT:
            num_rows, num_reused = 0, num_reused + num_rows
        self.reused += num_reused
        self.consultations += num_rows + num_reused
        if source == _STORE:
            self.store_hits += num_rows
        elif source == _MODEL:
            self.model_evaluations += num_rows

    def report(self) -> dict[str, int]:
        """Return the totals under their metric names."""
        return {f"advice/{name}": value for name, value in asdict(self).items()}

    def get_state(self) -> dict[str, int]:
        """Return the totals under their field names."""
        return asdict(self)

    def set_state(self, state: dict[str, int]) -> None:
        """Take over a ``get_state``."""
        for name, value in state.items():
            setattr(self, name, value)


class RecentMean:
    """Average a stream in which an observation counts half after ``HALF_LIFE`` more."""

    __slots__ = ("_count", "_total")

    def __init__(self) -> None:
        self._total = 0.0
        self._count = 0.0

    def add(self, total: float, count: float) -> None:
        """Add ``count`` observations that sum to ``total``."""
        decay = 0.5 ** (count / HALF_LIFE)
        self._total = self._total * decay + total
        self._count = self._count * decay + count

    @property
    def value(self) -> float:
        """Return the mean; NaN before the first observation."""
        return self._total / self._count if self._count else math.nan

    def get_state(self) -> dict[str, Any]:
        """Return the running sums."""
        return {"total": self._total, "count": self._count}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``."""
        self._total, self._count = float(state["total"]), float(state["count"])
