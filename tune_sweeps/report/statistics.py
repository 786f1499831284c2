"""Estimate, bound and test what a sweep shows: intervals, tests over cells and looks, aggregates.

Sources: Efron & Stein 1981 (jackknife); Welch 1947 (degrees of freedom); Ernst 2004 (permutation tests); Holm 1979
(many tests); Lan & DeMets 1983 (looks); Agarwal et al. 2021 (interquartile mean, probability of improvement, profiles).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tune_sweeps.report.convergence import FloatArray, Progress, Scale

_MOST_PERMUTATIONS = 20_000
_UNPLANNED_SHARE = 0.8
"""Share of the error rate that is left which each look spends where nobody planned how many there would be."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        value: The estimate.
        low: Lower end; NaN where the sample is too small for one.
        high: Upper end; NaN where the sample is too small for one.
    """

    value: float
    low: float = float("nan")
    high: float = float("nan")

    @property
    def has_interval(self) -> bool:
        """There were enough values for an interval."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))


@dataclass(frozen=True)
class Comparison:
    """Two arms that are compared at a share of the way to a student's final return.

    Attributes:
        untutored: Progress of the trials to compare with, whose final returns are the scale's first peer.
        tutored: Progress of the other trials.
        tutored_finals: Their final returns, ``(m,)``.
        scale: From which return the way is counted, and to which.
        horizon: Env steps that all trials were trained for.
        resolution: Env steps between evaluations.
    """

    untutored: Sequence[Progress]
    tutored: Sequence[Progress]
    tutored_finals: FloatArray
    scale: Scale
    horizon: float
    resolution: float

    @property
    def sizes(self) -> tuple[int, int]:
        """Numbers of untutored and tutored trials."""
        return len(self.untutored), len(self.tutored)

    def reaches(self, level: float) -> bool:
        """Tell whether any trial of either arm came to a level."""
        return any(item.convergence(level).converged for item in (*self.untutored, *self.tutored))

    def log_times(self, levels: ArrayLike) -> FloatArray:
        """Return the logarithms of the env steps to ``(k,)`` levels, at most the horizon: ``(k, trials)``."""
        return np.stack(
            [
                np.log(np.clip(item.times(levels), self.resolution, self.horizon))
                for item in (*self.untutored, *self.tutored)
            ],
            axis=1,
        )


def speed_up(comparison: Comparison, frac: float, confidence: float) -> Interval | None:
    """Return how many times fewer env steps the tutored trials took to the level.

    The ratio of the geometric means of the env steps; trials that never got there count with the horizon. The interval
    is Student's t on the logarithm with a jackknife standard error: each trial is left out in turn and the level
    estimated anew without it, so that the interval accounts for the estimated level. Times are known to the resolution
    of the evaluations, whose variance is added.

    Args:
        comparison: The arms.
        frac: Share of the way to the level.
        confidence: Level of the interval.

    Returns:
        None where there is no way to go, and where no trial of either arm got there: a ratio of two horizons would be 1
        with an interval of no width. An estimate without interval where an arm has fewer than two trials.
    """
    level = comparison.scale.level(frac)
    if level is None or not comparison.reaches(level):
        return None
    n, m = comparison.sizes
    logs = comparison.log_times([level])[0]
    estimate = float(logs[:n].mean() - logs[n:].mean())
    if min(n, m) < 2:
        return Interval(float(np.exp(estimate)))
    variances, sizes = [], []
    for index, levels in enumerate(comparison.scale.levels_without_each(frac)):
        table = comparison.log_times(levels)
        own = _means_without_each(table[:, :n]) if index == 0 else table[:, :n].mean(axis=1)
        variances.append(_jackknife_variance(own - table[:, n:].mean(axis=1)))
        sizes.append(len(levels))
    variances.append(_jackknife_variance(logs[:n].mean() - (logs[n:].sum() - logs[n:]) / (m - 1)))
    sizes.append(m)
    rounding = comparison.resolution**2 / 12 / np.exp(2 * logs)
    variances[0] += rounding[:n].sum() / n**2
    variances[-1] += rounding[n:].sum() / m**2
    half = _t_quantile(variances, sizes, confidence) * float(np.sqrt(sum(variances)))
    return Interval(*(float(np.exp(value)) for value in (estimate, estimate - half, estimate + half)))


def _means_without_each(square: FloatArray) -> FloatArray:
    """Return the mean of each row of ``(n, n)`` without its diagonal element."""
    n = len(square)
    return (square.sum(axis=1) - np.diagonal(square)) / (n - 1)


def _jackknife_variance(values: FloatArray) -> float:
    n = len(values)
    return float((n - 1) / n * ((values - values.mean()) ** 2).sum()) if n > 1 else 0.0


def _t_quantile(variances: Sequence[float], sizes: Sequence[int], confidence: float) -> float:
    """Return Student's quantile for a sum of independent variances, by Welch's degrees of freedom."""
    from scipy import special  # scipy.stats takes seconds to import

    weights = sum(v**2 / (size - 1) for v, size in zip(variances, sizes, strict=True) if size > 1)
    degrees = sum(variances) ** 2 / weights if weights else np.inf
    return float(special.stdtrit(degrees, 0.5 + confidence / 2))


def permutation_test(comparison: Comparison, frac: float) -> float:
    """Return the two-sided p-value that both arms need equally long.

    The groups' labels are permuted, and the level is estimated anew from those that are then called untutored, so that
    the test holds at any size although the level is estimated. All permutations are tried up to 20,000 (8 against 8),
    else 20,000 are drawn, always the same ones. Few seeds cannot give a small p: 5 against 5 no less than 2/252.

    Args:
        comparison: The arms.
        frac: Share of the way to the level.

    Returns:
        p in (0, 1]; NaN where there is no way to go.
    """
    if comparison.scale.level(frac) is None:
        return float("nan")
    n, m = comparison.sizes
    finals = np.concatenate([comparison.scale.peers[0], comparison.tutored_finals])
    groups, drawn = _permuted_groups(n + m, n)

    def effects(first: NDArray[np.integer]) -> FloatArray:
        levels = comparison.scale.levels(frac, finals[first].mean(axis=1))
        order = np.argsort(levels)  # neighbours are looked up where the last one was
        logs, chosen = comparison.log_times(levels[order]), first[order]
        untutored = np.take_along_axis(logs, chosen, axis=1).sum(axis=1)
        return np.abs(untutored / n - (logs.sum(axis=1) - untutored) / m)

    observed = effects(np.arange(n)[None, :])[0]
    extreme = int((effects(groups) >= observed - 1e-9).sum())
    return (extreme + drawn) / (len(groups) + drawn)


def spent_shares(num_seeds: Sequence[int], max_seeds: int | None) -> list[float]:
    """Return the share of the error rate that each look at a growing sweep may spend; at most 1 in all.

    With a planned largest number of seeds, the square of the share of seeds that are there (Lan & DeMets 1983, Kim &
    DeMets 1987): late looks get most. Without a plan each look spends four fifths of what is left, so that there is
    always something left for one more.

    Args:
        num_seeds: Seeds at each look, ascending.
        max_seeds: The planned largest number of seeds; None: not planned.
    """
    if max_seeds is None:
        return [_UNPLANNED_SHARE * (1 - _UNPLANNED_SHARE) ** look for look in range(len(num_seeds))]
    spent = [min(1.0, seeds / max_seeds) ** 2 for seeds in num_seeds]
    return [now - before for now, before in zip(spent, [0.0, *spent], strict=False)]


def over_looks(p_values: ArrayLike, shares: Sequence[float]) -> FloatArray:
    """Combine the p-values of several looks by Bonferroni's inequality, weighted by what each look may spend.

    Args:
        p_values: ``(looks, cells)``; NaN where a cell was not tested.
        shares: Per look, in [0, 1], at most 1 in all.

    Returns:
        ``(cells,)``: smallest p over share, at most 1; NaN where a cell was never tested.
    """
    p, share = np.asarray(p_values, dtype=np.float64), np.asarray(shares, dtype=np.float64)
    scaled = np.where(np.isnan(p), np.inf, p / np.where(share > 0, share, np.nan)[:, None])
    least = np.nanmin(np.concatenate([scaled, np.full((1, p.shape[1]), np.inf)]), axis=0)
    return np.where(np.isinf(least), np.nan, np.minimum(1.0, least))


def holm(p_values: ArrayLike) -> list[float]:
    """Adjust p-values for their number by Holm's step-down procedure; NaN stays NaN and is not counted."""
    p = np.asarray(p_values, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(p))
    adjusted = np.full(len(p), np.nan)
    largest = 0.0
    for rank, index in enumerate(known[np.argsort(p[known], kind="stable")]):
        largest = max(largest, min(1.0, (len(known) - rank) * p[index]))
        adjusted[index] = largest
    return [float(value) for value in adjusted]


def mean_interval(values: ArrayLike, confidence: float) -> Interval:
    """Return the mean of ``(n,)`` values with Student's t interval."""
    return _t_interval([np.asarray(values, dtype=np.float64)], confidence)


def mean_difference(first: ArrayLike, second: ArrayLike, confidence: float) -> Interval:
    """Return the mean of ``first`` minus the mean of ``second`` with Welch's t interval."""
    return _t_interval([np.asarray(first, dtype=np.float64), -np.asarray(second, dtype=np.float64)], confidence)


def _t_interval(samples: Sequence[FloatArray], confidence: float) -> Interval:
    """Return the sum of the means of independent samples."""
    value = float(sum(sample.mean() for sample in samples))
    sizes = [len(sample) for sample in samples]
    if min(sizes) < 2:
        return Interval(value)
    variances = [float(sample.var(ddof=1)) / len(sample) for sample in samples]
    half = _t_quantile(variances, sizes, confidence) * float(np.sqrt(sum(variances)))
    return Interval(value, value - half, value + half)


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals are drawn that no formula gives.

    Attributes:
        resamples: Bootstrap resamples.
        confidence: Level of the intervals.
        seed: Makes the same report twice.
    """

    resamples: int
    confidence: float
    seed: int = 0

    def interval(self, samples: Sequence[ArrayLike], statistic: Callable[..., FloatArray]) -> Interval:
        """Return a statistic of several samples with a percentile interval; each sample is resampled by itself.

        Args:
            samples: One ``(n_i,)`` per stratum.
            statistic: From arrays ``(..., n_i)`` and ``axis`` to one value per row.
        """
        from scipy import stats

        arrays = [np.asarray(sample, dtype=np.float64) for sample in samples]
        value = float(statistic(*arrays, axis=-1))
        if min(len(array) for array in arrays) < 2:
            return Interval(value)
        found = stats.bootstrap(
            arrays,
            statistic,
            n_resamples=self.resamples,
            confidence_level=self.confidence,
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(self.seed),
        ).confidence_interval
        return Interval(value, float(found.low), float(found.high))


def interquartile_mean(*samples: ArrayLike, axis: int = -1) -> FloatArray:
    """Return the mean of the middle half of all values: a quarter is cut off at either end, rounded down."""
    from scipy import stats

    return stats.trim_mean(np.concatenate([np.asarray(sample) for sample in samples], axis=axis), 0.25, axis=axis)


def improvement(first: FloatArray, second: FloatArray, axis: int = -1) -> FloatArray:
    """Return the probability that a value of ``first`` exceeds one of ``second``; ties count half.

    It is Mann and Whitney's U over the number of pairs, by ranks: memory grows with the values, not with the pairs.
    """
    from scipy import stats

    n, m = first.shape[axis], second.shape[axis]
    ranks = np.moveaxis(stats.rankdata(np.concatenate([first, second], axis=axis), axis=axis), axis, -1)
    return np.asarray((ranks[..., :n].sum(axis=-1) - n * (n + 1) / 2) / (n * m))


def not_worse(difference: Interval, margin: float) -> bool | None:
    """Say whether a difference is above −margin (True) or below it (False) with its interval; None: undecided."""
    if not difference.has_interval:
        return None
    if difference.low > -margin:
        return True
    return False if difference.high < -margin else None


class Band(NamedTuple):
    """The mean of curves and one standard error on either side, ``(points,)`` each."""

    mean: FloatArray
    low: FloatArray
    high: FloatArray


def band(curves: FloatArray) -> Band:
    """Return the band of curves ``(n, points)``."""
    mean = curves.mean(axis=0)
    error = curves.std(axis=0, ddof=1) / np.sqrt(len(curves)) if len(curves) > 1 else np.zeros_like(mean)
    return Band(mean, mean - error, mean + error)


@lru_cache(maxsize=8)
def _permuted_groups(n: int, m: int) -> tuple[NDArray[np.intp], int]:
    """Return ways to choose m of n, ``(count, m)``, and 1 where they were drawn (the observed one is then added)."""
    if comb(n, m) <= _MOST_PERMUTATIONS:
        return np.array(list(combinations(range(n), m)), dtype=np.intp), 0
    rng = np.random.default_rng(0)
    drawn = np.argsort(rng.random((_MOST_PERMUTATIONS, n)), axis=1)[:, :m]
    return drawn, 1


def pooled_speed_up(comparisons: Sequence[Comparison], frac: float, bootstrap: Bootstrap) -> Interval:
    """Return the interquartile mean of all tutored trials' own speed-ups over several comparisons.

    A trial's own speed-up is the geometric mean of the untutored students' env steps over its own. Trials are resampled
    within their arms, and the level is estimated anew from each resample.

    Args:
        comparisons: At least one; each has a level.
        frac: Share of the way to the level.
        bootstrap: How the interval is drawn.
    """
    observed: list[FloatArray] = []
    resampled: list[FloatArray] = []
    for comparison in comparisons:
        n, m = comparison.sizes
        finals = comparison.scale.peers[0]
        rng = np.random.default_rng(bootstrap.seed)  # arms that share their untutored trials share their resamples
        rows = rng.integers(n, size=(bootstrap.resamples, n))
        columns = n + rng.integers(m, size=(bootstrap.resamples, m))
        for first, second, found in (
            (np.arange(n)[None, :], n + np.arange(m)[None, :], observed),
            (rows, columns, resampled),
        ):
            logs = comparison.log_times(comparison.scale.levels(frac, finals[first].mean(axis=1)))
            untutored = np.take_along_axis(logs, first, axis=1).mean(axis=1)
            found.append(untutored[:, None] - np.take_along_axis(logs, second, axis=1))
    value = float(interquartile_mean(*observed)[0])
    if min(min(comparison.sizes) for comparison in comparisons) < 2:
        return Interval(float(np.exp(value)))
    tail = (1 - bootstrap.confidence) / 2
    low, high = np.quantile(interquartile_mean(*resampled), [tail, 1 - tail])
    return Interval(*(float(np.exp(end)) for end in (value, low, high)))
