"""Advise by script, without an LLM or a service: perfect, random, mixed and worst advice."""

from __future__ import annotations

import numpy as np

from rllib_plugins.advising.advisor import AdviceBatch, Advisor, legal_mask
from rllib_plugins.array_types import Bools, Floats, Floats32
from rllib_plugins.metrics import Source
from rllib_plugins.tasks.base import Task
from tutor_service.errors import UserError


class OracleAdvisor(Advisor):
    """Reference: the task's own near-optimal player.

    Raises:
        UserError: The task has no oracle.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task, Source.SCRIPT)
        if not task.has_oracle:
            raise _no_oracle(task)

    def evaluate(self, observations: Floats32) -> AdviceBatch:
        """Return the oracle's probabilities, kept to the legal actions."""
        return _scripted(self.distributions(observations, legal_mask(self.task, observations)))

    def distributions(self, observations: Floats32, legal: Bools) -> Floats:
        """Return ``(n, num_actions)``, 0 on illegal actions; rows that sum to 0 or hold NaN are no advice."""
        rows = self.task.oracle_batch(observations)
        if rows is None:
            raise _no_oracle(self.task)
        return np.where(legal, rows, 0.0)


class MixtureAdvisor(OracleAdvisor):
    """Reference of any quality: the oracle, but uniform over the legal actions with probability ``random_share``."""

    def __init__(self, task: Task, random_share: float) -> None:
        if not 0.0 <= random_share <= 1.0:
            raise UserError(f"tutor 'oracle+random:{random_share}': the random share must lie in [0, 1].")
        super().__init__(task)
        self.random_share = random_share

    def distributions(self, observations: Floats32, legal: Bools) -> Floats:
        """Return (1 − share)·oracle + share·uniform."""
        best = _normalised(super().distributions(observations, legal))
        return (1.0 - self.random_share) * best + self.random_share * _uniform(legal)


class WorstAdvisor(OracleAdvisor):
    """Reference: always the action that the oracle rates lowest.

    The task's action values decide where it knows them, else the oracle's probabilities. Actions that are equally low
    have the same probability.
    """

    def distributions(self, observations: Floats32, legal: Bools) -> Floats:
        """Return uniform rows over the worst legal actions."""
        values = [self.task.action_values(self.task.raw_observation(row)) for row in observations]
        if any(row is None for row in values):
            ranking = super().distributions(observations, legal)
        else:
            ranking = np.array(values, dtype=np.float64)
        ranking = np.where(legal, ranking, np.inf)
        return _uniform(legal & (ranking <= ranking.min(axis=1, keepdims=True)))


class RandomAdvisor(Advisor):
    """Reference: uniform over the legal actions."""

    def __init__(self, task: Task) -> None:
        super().__init__(task, Source.SCRIPT)

    def evaluate(self, observations: Floats32) -> AdviceBatch:
        """Return uniform rows."""
        return _scripted(_uniform(legal_mask(self.task, observations)))


def _scripted(rows: Floats) -> AdviceBatch:
    """Turn rows into advice; those that are no distribution, as in states without a legal action, count as missed."""
    rows = _normalised(rows)
    usable = np.isfinite(rows).all(axis=1)
    rows[~usable] = np.nan
    source = np.where(usable, Source.SCRIPT, Source.MISSED).astype(np.int8)
    return AdviceBatch(rows, source)


def _normalised(rows: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return rows / rows.sum(axis=1, keepdims=True)


def _uniform(mask: Bools) -> Floats:
    return _normalised(mask.astype(np.float64))


def _no_oracle(task: Task) -> UserError:
    return UserError(
        f"task '{task.name}' has no oracle. Choose another tutor, or write the task's oracle(observation)."
    )
