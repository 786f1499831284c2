"""Define the interface between the explorer and any tutor: advice by state, each distinct state evaluated once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.table import DistributionTable
from rllib_plugins.metrics import AdviceCounters, RecentMean, Source
from rllib_plugins.tasks.base import Task

_SUM_TOLERANCE = 1e-4


@dataclass(slots=True)
class AdviceBatch:
    """Advice for a list of states.

    Attributes:
        probabilities: ``(n, num_actions)`` float64; rows sum to 1 with 0 on illegal actions; NaN where missed.
        source: ``(n,)`` int8 of ``metrics.Source``. A kept row counts as ``Advisor.kept_source``.
        invalid: Illegal or unparsable answers along the way, summed over the rows.
        latency_ms: Milliseconds that the call took; 0 where no call was needed.
        tokens: Tokens that the model processed for it, summed over the rows.
        opinions: ``(n, num_actions)`` the tutor's whole distributions, where ``probabilities`` hold its best guesses
            alone; None: both are the same.
    """

    probabilities: NDArray[np.float64]
    source: NDArray[np.int8]
    invalid: int = 0
    latency_ms: float = 0.0
    tokens: int = 0
    opinions: NDArray[np.float64] | None = None

    @property
    def distributions(self) -> NDArray[np.float64]:
        """Return the tutor's whole distributions, ``(n, num_actions)``, which advising rules judge by."""
        return self.probabilities if self.opinions is None else self.opinions

    def count(self, counters: AdviceCounters, latency: RecentMean) -> None:
        """Add what was asked to a trial's running totals, and the call's milliseconds to their mean."""
        for source, count in enumerate(np.bincount(self.source).tolist()):
            if count:
                counters.add(source, count)
        counters.invalid += self.invalid
        counters.tokens += self.tokens
        if self.latency_ms > 0.0:
            latency.add(self.latency_ms, 1)


class Advisor:
    """A tutor as the explorer sees it. A subclass writes ``evaluate``.

    Args:
        task: The task that is advised on.
        kept_source: What a kept answer counts as.
        keeps_opinions: Whether whole distributions are kept beside best guesses, for rules that ask how sure it is.

    Attributes:
        task: As given.
        kept_source: As given, as a number.
        table: Distributions that are known without asking; the explorer looks them up there.
        opinions: Distributions that advising rules judge by: ``table``, unless they are kept apart.
    """

    def __init__(self, task: Task, kept_source: Source, *, keeps_opinions: bool = False) -> None:
        self.task = task
        self.kept_source = int(kept_source)
        self.table = DistributionTable(task.num_actions)
        self.opinions = DistributionTable(task.num_actions) if keeps_opinions else self.table

    def evaluate(self, observations: NDArray[np.float32]) -> AdviceBatch:
        """Return advice for distinct flat observations ``(n, obs_dim)`` that are not kept yet."""
        raise NotImplementedError

    def ask(self, observations: NDArray[np.float32]) -> AdviceBatch:
        """Return advice for flat observations ``(n, obs_dim)``; evaluate each distinct unknown one once.

        Rows that are no distribution over legal actions are dropped here: they are missed, and count as invalid.
        """
        probabilities = self.table.look_up(observations)
        opinions = probabilities if self.opinions is self.table else self.opinions.look_up(observations)
        source = np.full(len(probabilities), self.kept_source, dtype=np.int8)
        unknown: dict[bytes, list[int]] = {}
        for row in np.flatnonzero(np.isnan(probabilities[:, 0])).tolist():
            unknown.setdefault(observations[row].tobytes(), []).append(row)
        if not unknown:
            return AdviceBatch(probabilities, source, opinions=opinions)
        distinct = observations[[rows[0] for rows in unknown.values()]]
        fresh = self.evaluate(distinct)
        held = fresh.probabilities if fresh.opinions is None else fresh.opinions
        had = fresh.source != Source.MISSED
        usable = had & _usable(fresh.probabilities, self.task.legal_batch(distinct))
        self.table.put(distinct[usable], fresh.probabilities[usable])
        if self.opinions is not self.table:
            self.opinions.put(distinct[usable], held[usable])
        for index, rows in enumerate(unknown.values()):
            source[rows] = Source.MISSED
            if usable[index]:
                probabilities[rows], opinions[rows] = fresh.probabilities[index], held[index]
                source[rows] = self.kept_source
                source[rows[0]] = fresh.source[index]
        num_invalid = fresh.invalid + int((had & ~usable).sum())
        return AdviceBatch(probabilities, source, num_invalid, fresh.latency_ms, fresh.tokens, opinions)

    def get_state(self) -> dict[str, Any]:
        """Return what is known: which estimator of μ a step uses depends on it."""
        opinions = None if self.opinions is self.table else self.opinions.get_state()
        return {"table": self.table.get_state(), "opinions": opinions}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``."""
        self.table.set_state(state["table"])
        if state["opinions"] is not None:
            self.opinions.set_state(state["opinions"])


def legal_mask(task: Task, observations: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the legal actions of flat observations ``(n, obs_dim)``, as ``(n, num_actions)``."""
    mask = task.legal_batch(observations)
    return np.ones((len(observations), len(task.actions)), dtype=bool) if mask is None else np.asarray(mask, dtype=bool)


def holds_guess(told: NDArray[np.float64], legal: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Return where advice prefers a legal action to another, ``(n,)``; False where it is missed.

    Args:
        told: Distributions ``(n, num_actions)``, NaN where missed.
        legal: ``(n, num_actions)``; None: every action.
    """
    least = told if legal is None else np.where(legal, told, np.inf)
    return np.asarray(told.max(axis=1) > least.min(axis=1) + 1e-9)


def above_uniform(told: NDArray[np.float64], legal: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return q(a|s) − 1/|A(s)| over the legal actions A(s), ``(n, num_actions)``; 0 on others and where advice is NaN.

    Args:
        told: Distributions q, ``(n, num_actions)``, NaN where missed.
        legal: ``(n, num_actions)``.
    """
    excess = told - 1.0 / np.maximum(legal.sum(axis=1, keepdims=True), 1)
    return np.where(legal & ~np.isnan(told), excess, 0.0)


def _usable(rows: NDArray[np.float64], legal: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Return which of ``(n, num_actions)`` are distributions over legal actions: no NaN, nothing negative, mass 1."""
    mass = (rows if legal is None else np.where(legal, rows, 0.0)).sum(axis=1)
    return (np.abs(mass - 1.0) <= _SUM_TOLERANCE) & (rows.min(axis=1) >= 0.0)
