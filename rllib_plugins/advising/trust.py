"""Measure what a tutor's advice is worth, and say how far the gate opens for it: earned trust.

At each step a fair draw decides who acts, so the steps are a randomised trial of advice against the student's own
action at the same states. Owns the running estimate; knows neither tutors nor how advantages are computed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rllib_plugins.compiled import compiled

OPTIMISM = 1.0
"""Added to z while nothing is known about a tutor (trust Φ(1) = 0.84), and taken from it once much is: Φ(z − 1)."""
PROBATION_STEPS = 512.0
"""Compared steps at which the prior bonus b is 0; from here evidence against a tutor counts in full."""
SHRINKAGE = 5.0
"""Observations' worth by which a group's variance is drawn to that of both groups together."""
LARGEST = 1e100
"""Advantages from here on, infinity among them, are no evidence."""
MIN_STEPS = 256
"""Compared steps that are handed on together."""


class EarnedTrust:
    """Effect of advice, by a decaying mean over comparisons, and trust = Φ(w·z + b).

    Per comparison: effect = mean advantage on heads − mean advantage on tails, with its squared standard error
    v = σ²_heads/n_heads + σ²_tails/n_tails, and the Mantel-Haenszel weight k = n_heads·n_tails/(n_heads + n_tails).
    Over comparisons: S ← δS + k·effect, K ← δK + k, V ← δ²V + k²·v; effect = S/K, SE = √V/K, z = S/√V.
    δ = 2^(−n/half_life) for the n compared steps, so that it does not matter into how many updates they were cut.

    The weight knows who acted and not what came of it. Weights of 1/v would prefer comparisons that happen to lack the
    rare outcome in the smaller group, and so claim an effect of advice that changes nothing wherever outcomes are
    skewed. Steps are compared within one comparison alone, for the gate and the mean advantage both change in time.

    A tutor starts with the benefit of the doubt and then bears the burden of proof: b = 1 − 2·n/(n + 512) for the n
    compared steps, counted with the same decay. A tutor as good as the student and no better is thus left alone,
    instead of being followed for half of the time in which the student could find out more.

    What speaks against a tutor counts by how much has been compared: w = min(1, n/512) where z < 0, else 1. The first
    few comparisons of a student that knows nothing scatter, and a tutor that they condemn has no way back: single
    advised steps amid those of a student that goes its own way are worth little even if the tutor is perfect.

    A group's variance is shrunk towards that of all n steps: otherwise two heads that happen to agree would claim no
    error at all. The advantages of one rollout are not independent (their returns overlap), so the SE is an
    approximation.

    Args:
        half_life: Compared steps after which evidence counts half, above 0.
        floor: Smallest gate factor in [0, 1], so that a tutor is re-examined.
        compared_at_once: Least steps of a comparison, gathered over updates: small groups say little, and their
            variance is badly known.

    Attributes:
        trust: Φ(w·z + b) in [0, 1].
        factor: What the gate is multiplied by: trust, at least the floor.
        evidence: How far the comparison speaks for the tutor: max(0, 2Φ(z + min(b, 0)) − 1), in [0, 1).
    """

    def __init__(self, half_life: float, floor: float, compared_at_once: int = 128):
        self._half_life = half_life
        self._floor = floor
        self._compared_at_once = compared_at_once
        self._weighted = 0.0
        self._weight = 0.0
        self._variance = 0.0
        self._compared = 0.0
        self._waiting, self._heads = np.empty(0), np.empty(0, dtype=bool)
        self._num_waiting = 0
        self._weigh()

    def observe(self, advantages: ArrayLike, heads: ArrayLike, eligible: ArrayLike) -> None:
        """Add an update's steps.

        Args:
            advantages: Of the executed actions, not standardised; any shape. NaN and absurd ones are left out.
            heads: Whether the tutor acted, same shape.
            eligible: Whether the step is part of the comparison, same shape.
        """
        values = np.asarray(advantages).ravel()
        if len(self._waiting) < self._num_waiting + len(values):
            more = len(values) + self._compared_at_once
            self._waiting = np.concatenate([self._waiting[: self._num_waiting], np.empty(more)])
            self._heads = np.concatenate([self._heads[: self._num_waiting], np.empty(more, dtype=bool)])
        self._num_waiting = add_compared(
            values,
            np.asarray(heads, dtype=bool).ravel(),
            np.asarray(eligible, dtype=bool).ravel(),
            self._waiting,
            self._heads,
            self._num_waiting,
        )
        if self._num_waiting >= self._compared_at_once:
            num_compared, self._num_waiting = self._num_waiting, 0
            self._compare(self._waiting[:num_compared], self._heads[:num_compared])

    def _compare(self, values: NDArray[np.float64], tutor: NDArray[np.bool_]) -> None:
        decay = 0.5 ** (values.size / self._half_life)
        self._weighted *= decay
        self._weight *= decay
        self._variance *= decay**2
        self._compared *= decay
        effect, variance = _compare(values, tutor)
        if not math.isnan(effect):
            num_heads = np.count_nonzero(tutor)
            weight = num_heads * (values.size - num_heads) / values.size
            self._weighted += weight * effect
            self._weight += weight
            self._variance += weight**2 * variance
            self._compared += values.size
        self._weigh()

    @property
    def effect(self) -> float:
        """Mean advantage on heads minus tails, in units of return; NaN before there is evidence."""
        return self._weighted / self._weight if self._weight > 0 else math.nan

    @property
    def effect_se(self) -> float:
        """Standard error of ``effect``; NaN before there is evidence."""
        return math.sqrt(self._variance) / self._weight if self._weight > 0 else math.nan

    def _weigh(self) -> None:
        """Follow a change of the running sums: these are read at every step."""
        z = self._weighted / math.sqrt(self._variance) if self._variance > 0 else 0.0
        bonus = OPTIMISM * (1.0 - 2.0 * self._compared / (self._compared + PROBATION_STEPS))
        weight = min(1.0, self._compared / PROBATION_STEPS) if z < 0 else 1.0
        self.trust = 0.5 * math.erfc(-(weight * z + bonus) / math.sqrt(2.0))
        self.factor = max(self.trust, self._floor)
        proven = z + min(bonus, 0.0)
        self.evidence = math.erf(proven / math.sqrt(2.0)) if proven > 0 else 0.0

    def get_state(self) -> dict[str, Any]:
        """The running sums and the steps that wait to be compared."""
        return {
            "weighted": self._weighted,
            "weight": self._weight,
            "variance": self._variance,
            "compared": self._compared,
            "waiting": self._waiting[: self._num_waiting].copy(),
            "heads": self._heads[: self._num_waiting].copy(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``."""
        self._weighted = float(state["weighted"])
        self._weight = float(state["weight"])
        self._variance = float(state["variance"])
        self._compared = float(state["compared"])
        self._waiting, self._heads = state["waiting"].copy(), state["heads"].copy()
        self._num_waiting = len(self._waiting)
        self._weigh()


@compiled
def add_compared(
    advantages: NDArray[np.floating[Any]],
    heads: NDArray[np.bool_],
    eligible: NDArray[np.bool_],
    waiting: NDArray[np.float64],
    waiting_heads: NDArray[np.bool_],
    num_waiting: int,
) -> int:
    """Add the steps that are part of the comparison to those that wait for it; how many wait then."""
    for step in range(len(advantages)):
        advantage = np.float64(advantages[step])
        if eligible[step] and abs(advantage) < LARGEST:
            waiting[num_waiting], waiting_heads[num_waiting] = advantage, heads[step]
            num_waiting += 1
    return num_waiting


@compiled
def _compare(values: NDArray[np.float64], heads: NDArray[np.bool_]) -> tuple[float, float]:
    """Mean on heads minus mean on tails, and its squared standard error; NaN where one is empty or all are the same."""
    counts, sums, squares = np.zeros(2), np.zeros(2), np.zeros(3)
    largest = 0.0
    for step in range(len(values)):
        group = 1 if heads[step] else 0
        counts[group] += 1.0
        sums[group] += values[step]
        largest = max(largest, abs(values[step]))
    if counts.min() == 0.0:
        return math.nan, math.nan
    means, mean = sums / counts, sums.sum() / counts.sum()
    for step in range(len(values)):
        group = 1 if heads[step] else 0
        squares[group] += (values[step] - means[group]) ** 2
        squares[2] += (values[step] - mean) ** 2
    total = squares[2] / (counts.sum() - 1.0)
    if total <= max(1e-18 * largest**2, 1e-100):
        return math.nan, math.nan
    variance = 0.0
    for group in range(2):
        shrunk = (squares[group] + SHRINKAGE * total) / (counts[group] - 1.0 + SHRINKAGE)
        variance += shrunk / counts[group]
    return means[1] - means[0], variance


Evidence = tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]


class ReturnComparison:
    """Collect steps until their episodes end.

    Args:
        gamma: Discount in [0, 1].
    """

    def __init__(self, gamma: float):
        self._gamma = gamma
        self._running: dict[str, list[list[float]]] = {}
        self._finished: list[tuple[float, float, float]] = []
        self._num_dropped = 0

    @property
    def finished(self) -> list[tuple[float, float, float]]:
        """Return, heads and eligible of the steps that wait to be taken."""
        return list(self._finished)

    @property
    def first_finished(self) -> int:
        """Number of the first of them, among all that were ever finished here."""
        return self._num_dropped

    def drop(self, num_steps: int) -> None:
        """Forgets finished steps up to a number: they were taken elsewhere."""
        num_new = max(0, num_steps - self._num_dropped)
        self._finished = self._finished[num_new:]
        self._num_dropped += num_new

    def add_finished(self, steps: list[tuple[float, float, float]]) -> None:
        """Take over ``finished`` steps from elsewhere."""
        self._finished.extend(steps)

    def add_decisions(self, episodes: list[str], heads: NDArray[np.bool_], eligible: NDArray[np.bool_]) -> None:
        """Who acted in a step of these episodes, ``(n,)`` each; the reward is yet to come."""
        for episode, is_heads, is_eligible in zip(episodes, heads.tolist(), eligible.tolist(), strict=True):
            self._running.setdefault(episode, []).append([float(is_heads), float(is_eligible), 0.0])

    def add_rewards(self, episodes: list[str], rewards: NDArray[np.float64], ended: NDArray[np.bool_]) -> None:
        """Rewards of the last step, ``(n,)``; closes the episodes that ended and forgets those that are gone."""
        self._running = {episode: self._running[episode] for episode in episodes if episode in self._running}
        for episode, reward, is_over in zip(episodes, rewards.tolist(), ended.tolist(), strict=True):
            steps = self._running.get(episode)
            if not steps:
                continue
            steps[-1][2] = reward
            if is_over:
                self._close(self._running.pop(episode))

    def take(self) -> Evidence | None:
        """Centred returns, heads and eligible of ``MIN_STEPS`` or more steps, ``(n,)`` each; None: too few yet."""
        if len(self._finished) < MIN_STEPS:
            return None
        returns, heads, eligible = np.array(self._finished).T
        self._finished = []
        return returns - returns.mean(), heads > 0.5, eligible > 0.5

    def _close(self, steps: list[list[float]]) -> None:
        following, closed = 0.0, []
        for heads, eligible, reward in reversed(steps):
            following = reward + self._gamma * following
            closed.append((following, heads, eligible))
        self._finished.extend(reversed(closed))

    def get_state(self) -> dict[str, Any]:
        """Finished steps; running episodes do not outlive the EnvRunner."""
        return {"finished": list(self._finished)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``."""
        self._finished = list(state["finished"])
        self._running = {}
