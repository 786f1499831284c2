"""Decide from a trial's evaluations when it has converged.

A trial is evaluated greedily, with the tutor off, on a grid of env steps. Its trailing mean at an evaluation is the
mean of all evaluations within the last ``window_steps`` env steps; there is none before a whole window has passed. A
trial has converged at the first evaluation from which its trailing mean stays at or above a level until the end. One
that is below the level at its end is right-censored at its last evaluation: it is known to need longer, and is never
dropped. The first evaluation at which the trailing mean reaches the level at all is reported beside it: the first hit.

The mean trails, so that every trial pays the same lag of half a window; both arms of a comparison pay it, which pulls a
speed-up towards 1 and never beyond.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Convergence:
    """When a trial converged.

    Attributes:
        steps: Env steps until convergence, or until the last evaluation where it was not reached.
        converged: False: right-censored.
    """

    steps: float
    converged: bool


@dataclass(frozen=True)
class Progress:
    """What a trial's trailing mean had reached, by env steps.

    Attributes:
        steps: Env steps of the evaluations that end a whole window, ascending, ``(n,)``.
        reached: Non-decreasing, ``(n,)``: the least trailing mean from there to the end (sustained), or the largest so
            far (first hit).
        end: Env steps of the last evaluation.
    """

    steps: FloatArray
    reached: FloatArray
    end: float

    def times(self, levels: ArrayLike) -> FloatArray:
        """Return the env steps until each of ``(k,)`` levels, infinite where it was not reached."""
        found = np.searchsorted(self.reached, np.asarray(levels, dtype=np.float64), side="left")
        return np.append(self.steps, np.inf)[found]

    def convergence(self, level: float) -> Convergence:
        """Return when the trial converged at a level."""
        time = float(self.times([level])[0])
        return Convergence(time, True) if np.isfinite(time) else Convergence(self.end, False)


def progress(steps: ArrayLike, returns: ArrayLike, window_steps: float, *, sustained: bool = True) -> Progress:
    """Summarise the evaluations of a trial.

    Args:
        steps: Env steps of the evaluations, ascending, ``(n,)`` with n ≥ 1.
        returns: Greedy returns, ``(n,)``.
        window_steps: Env steps that a trailing mean looks back.
        sustained: Whether a level must be held to the end; else its first hit counts.
    """
    x = np.asarray(steps, dtype=np.float64)
    means = trailing_mean(x, returns, window_steps)
    whole = np.isfinite(means)
    kept = means[whole]
    reached = np.minimum.accumulate(kept[::-1])[::-1] if sustained else np.maximum.accumulate(kept)
    return Progress(x[whole], reached, float(x[-1]))


def trailing_mean(steps: ArrayLike, returns: ArrayLike, window_steps: float) -> FloatArray:
    """Return the mean of the evaluations in ``(step − window_steps, step]``; NaN before a whole window has passed.

    Args:
        steps: Env steps of the evaluations, ascending, ``(n,)``.
        returns: ``(n,)``.
        window_steps: Env steps that the mean looks back.

    Returns:
        ``(n,)``.
    """
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(returns, dtype=np.float64)
    first = np.searchsorted(x, x - window_steps, side="right")
    sums = np.concatenate([[0.0], np.cumsum(y)])
    ends = np.arange(1, len(x) + 1)
    means = (sums[ends] - sums[first]) / (ends - first)
    interval = x[1] - x[0] if len(x) > 1 else 0.0
    means[x - window_steps < x[0] - interval] = np.nan
    return means


def final_return(steps: ArrayLike, returns: ArrayLike, window_steps: float) -> float:
    """Return the mean of the evaluations in the last ``window_steps`` env steps."""
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(returns, dtype=np.float64)
    return float(y[x > x[-1] - window_steps].mean())


def area_under_curve(steps: ArrayLike, returns: ArrayLike) -> float:
    """Return the mean return over training: the trapezoidal area under the curve, per env step."""
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(returns, dtype=np.float64)
    if len(x) < 2:
        return float(y.mean())
    return float(np.trapezoid(y, x) / (x[-1] - x[0]))


def stability(steps: ArrayLike, returns: ArrayLike, level: float, first_hit: Convergence) -> float | None:
    """Return the share of the evaluations after the first hit that are at or above the level.

    Returns:
        None where the level was never hit, or nothing was evaluated after it.
    """
    after = np.asarray(returns, dtype=np.float64)[np.asarray(steps, dtype=np.float64) > first_hit.steps]
    return float((after >= level).mean()) if first_hit.converged and after.size else None


@dataclass(frozen=True)
class Scale:
    """From which return a threshold is counted, and to which.

    Attributes:
        lower: Where the way begins.
        peers: Final returns of each untutored student that the way may end at, one ``(n,)`` per student; the way ends
            at the best mean. The first is the student that is compared with.
        fixed: Where the way ends instead; None: at the best of the peers.
    """

    lower: float
    peers: tuple[FloatArray, ...]
    fixed: float | None = None

    @property
    def upper(self) -> float:
        """Where the way ends."""
        return max(float(peer.mean()) for peer in self.peers) if self.fixed is None else self.fixed

    def level(self, frac: float) -> float | None:
        """Return the return at a share of the way; None where there is no way to go."""
        return self.lower + frac * (self.upper - self.lower) if self.upper > self.lower else None

    def levels(self, frac: float, own_means: ArrayLike) -> FloatArray:
        """Return the levels, ``(k,)``, that other means of the first peer would have given."""
        others = max((float(peer.mean()) for peer in self.peers[1:]), default=-np.inf)
        upper = np.maximum(np.asarray(own_means, dtype=np.float64), others)
        return self._at(frac, upper)

    def levels_without_each(self, frac: float) -> list[FloatArray]:
        """Return, for each peer, the levels ``(n,)`` that its trials but one would have given."""
        means = [float(peer.mean()) for peer in self.peers]
        found = []
        for index, peer in enumerate(self.peers):
            others = max((mean for i, mean in enumerate(means) if i != index), default=-np.inf)
            own = (peer.sum() - peer) / max(1, len(peer) - 1)
            found.append(self._at(frac, np.maximum(own, others)))
        return found

    def _at(self, frac: float, upper: FloatArray) -> FloatArray:
        end = upper if self.fixed is None else np.full_like(upper, self.fixed)
        return self.lower + frac * (end - self.lower)
