"""When a trial has converged: one definition, pure functions of its evaluations. Knows no files and no MLflow.

A trial is evaluated greedily and with the tutor off on a fixed grid of env steps. With R₀ the return of uniformly
random play and R* the final return of the untutored student of the same algorithm and task, it has converged at the
first evaluation at which the mean of the last ``window`` evaluations is at least

    R₀ + threshold_frac · (R* − R₀).

A trial that never gets there is right-censored at its last evaluation: it is known to need longer, and is never
dropped. The mean trails, so that every trial pays the same lag of (window − 1) / 2 evaluation intervals; both arms of a
comparison pay it, which pulls a speed-up towards 1 and never beyond.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class Convergence:
    """When a trial converged.

    Attributes:
        steps: Env steps until convergence, or until the last evaluation where it was not reached.
        converged: False: right-censored.
    """

    steps: float
    converged: bool


def threshold(random_return: float, untutored_return: float, frac: float) -> float | None:
    """The return that counts as converged: R₀ + frac · (R* − R₀).

    Args:
        random_return: R₀.
        untutored_return: R*.
        frac: Share of the way from R₀ to R*.

    Returns:
        None where the untutored student ended no better than random play, so that there is no way to go.
    """
    if not untutored_return > random_return:
        return None
    return random_return + frac * (untutored_return - random_return)


def moving_mean(values: ArrayLike, window: int) -> NDArray[np.float64]:
    """Mean of each value and the ``window − 1`` before it; NaN where there are fewer.

    Args:
        values: ``(n,)``.
        window: Values per mean.

    Returns:
        ``(n,)``.
    """
    series = np.asarray(values, dtype=np.float64)
    means = np.full(len(series), np.nan)
    if len(series) >= window:
        means[window - 1 :] = np.lib.stride_tricks.sliding_window_view(series, window).mean(axis=1)
    return means


def convergence(steps: Sequence[float], returns: ArrayLike, level: float, window: int) -> Convergence:
    """When a trial's moving mean first reaches a level.

    Args:
        steps: Env steps of the evaluations, ascending, ``(n,)`` with n ≥ 1.
        returns: Greedy returns, ``(n,)``.
        level: The threshold.
        window: Evaluations per mean.
    """
    reached = np.flatnonzero(moving_mean(returns, window) >= level)
    if reached.size:
        return Convergence(float(steps[int(reached[0])]), True)
    return Convergence(float(steps[-1]), False)


def final_return(returns: ArrayLike, window: int) -> float:
    """A trial's final return: the mean of its last ``window`` evaluations, or of all where there are fewer."""
    return float(np.asarray(returns, dtype=np.float64)[-window:].mean())


def area_under_curve(steps: ArrayLike, returns: ArrayLike) -> float:
    """Mean return over training: the trapezoidal area under the curve, divided by its length in env steps."""
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(returns, dtype=np.float64)
    if len(x) < 2:
        return float(y.mean())
    return float(np.trapezoid(y, x) / (x[-1] - x[0]))


def stability(steps: Sequence[float], returns: ArrayLike, level: float, found: Convergence) -> float | None:
    """Share of the evaluations after convergence that are at or above the level; 1: it never falls back.

    Returns:
        None where the trial did not converge, or was not evaluated after it had.
    """
    after = np.asarray(returns, dtype=np.float64)[np.asarray(steps) > found.steps]
    return float((after >= level).mean()) if found.converged and after.size else None
