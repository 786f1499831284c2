"""The statistics of a report: restricted means, intervals, tests and robust means. Pure functions of arrays.

Sources: Kaplan & Meier 1958 (survival); restricted mean survival time: Royston & Parmar 2013; log-rank test: Mantel
1966, here by permutation; Holm 1979 (many tests); expanded percentile interval: Hesterberg 2015, section 5.3;
interquartile mean with stratified bootstrap: Agarwal et al. 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
Statistic = Callable[[FloatArray], FloatArray]
"""From samples ``(resamples, n)`` to one value per row ``(resamples,)``."""

_ALL_PERMUTATIONS = 200_000
_DRAWN_PERMUTATIONS = 20_000


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
        """Whether there were enough values for an interval."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))


@dataclass(frozen=True, slots=True)
class Survival:
    """Times until an event, some of them censored.

    Attributes:
        times: ``(n,)``: when it happened, or until when it is known not to have.
        events: ``(n,)``: False where the time is censored.
    """

    times: FloatArray
    events: NDArray[np.bool_]

    @staticmethod
    def of(times: ArrayLike, events: ArrayLike) -> Survival:
        """From anything that NumPy makes arrays of."""
        return Survival(np.asarray(times, dtype=np.float64), np.asarray(events, dtype=bool))

    def __len__(self) -> int:
        return len(self.times)


def survival_curve(sample: Survival) -> tuple[FloatArray, FloatArray]:
    """The Kaplan–Meier curve: times from 0 on and the share without the event after each, both ``(k,)``."""
    times = np.unique(sample.times)
    at_risk = (sample.times[None, :] >= times[:, None]).sum(axis=1)
    events = ((sample.times[None, :] == times[:, None]) & sample.events[None, :]).sum(axis=1)
    return np.concatenate([[0.0], times]), np.concatenate([[1.0], np.cumprod(1.0 - events / at_risk)])


def restricted_means(times: FloatArray, events: NDArray[np.bool_], horizon: float) -> FloatArray:
    """Restricted mean survival time of each row: the area under its Kaplan–Meier curve up to the horizon.

    Args:
        times: ``(resamples, n)``.
        events: ``(resamples, n)``; False where censored.
        horizon: Where the area ends. Beyond the last time the curve is carried on flat.

    Returns:
        ``(resamples,)``.
    """
    n = times.shape[1]
    order = np.lexsort((~events, times), axis=1)  # at equal times events come before censorings
    ordered = np.take_along_axis(times, order, axis=1)
    happened = np.take_along_axis(events, order, axis=1) & (ordered <= horizon)
    survived = np.cumprod(1.0 - happened / (n - np.arange(n)), axis=1)
    edges = np.minimum(ordered, horizon)
    starts = np.concatenate([np.zeros((len(times), 1)), edges], axis=1)
    ends = np.concatenate([edges, np.full((len(times), 1), horizon)], axis=1)
    heights = np.concatenate([np.ones((len(times), 1)), survived], axis=1)
    return ((ends - starts) * heights).sum(axis=1)


def restricted_mean(sample: Survival, horizon: float) -> float:
    """Restricted mean survival time of one sample."""
    return float(restricted_means(sample.times[None, :], sample.events[None, :], horizon)[0])


def speed_up(
    untutored: Survival,
    tutored: Survival,
    horizon: float,
    *,
    resamples: int,
    confidence: float,
    rng: np.random.Generator,
) -> Interval:
    """How many times fewer env steps: restricted mean untutored / restricted mean tutored, with a bootstrap interval.

    The interval is taken on the logarithm, from resamples of both groups, with percentiles expanded for their sizes.

    Args:
        untutored: Steps to convergence, one per seed.
        tutored: The same with a tutor.
        horizon: Env steps that both were trained for.
        resamples: Bootstrap resamples.
        confidence: Level of the interval.
        rng: Source of the resamples.
    """
    value = restricted_mean(untutored, horizon) / restricted_mean(tutored, horizon)
    if min(len(untutored), len(tutored)) < 2:
        return Interval(value)
    logs = [np.log(restricted_means(*_resample(group, resamples, rng), horizon)) for group in (untutored, tutored)]
    low, high = expanded_percentiles(logs[0] - logs[1], [len(untutored), len(tutored)], confidence)
    return Interval(value, float(np.exp(low)), float(np.exp(high)))


def mean_difference(
    first: ArrayLike, second: ArrayLike, *, resamples: int, confidence: float, rng: np.random.Generator
) -> Interval:
    """Mean of ``first`` minus mean of ``second``, with a bootstrap interval.

    Args:
        first: ``(n,)``.
        second: ``(m,)``.
        resamples: Bootstrap resamples.
        confidence: Level of the interval.
        rng: Source of the resamples.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    value = float(a.mean() - b.mean())
    if min(len(a), len(b)) < 2:
        return Interval(value)
    means = [group[rng.integers(len(group), size=(resamples, len(group)))].mean(axis=1) for group in (a, b)]
    return Interval(value, *expanded_percentiles(means[0] - means[1], [len(a), len(b)], confidence))


def mean_interval(values: ArrayLike, *, resamples: int, confidence: float, rng: np.random.Generator) -> Interval:
    """Mean of ``(n,)`` values with a bootstrap interval.

    Args:
        values: ``(n,)``.
        resamples: Bootstrap resamples.
        confidence: Level of the interval.
        rng: Source of the resamples.
    """
    sample = np.asarray(values, dtype=np.float64)
    if len(sample) < 2:
        return Interval(float(sample.mean()))
    means = sample[rng.integers(len(sample), size=(resamples, len(sample)))].mean(axis=1)
    return Interval(float(sample.mean()), *expanded_percentiles(means, [len(sample)], confidence))


def expanded_percentiles(estimates: FloatArray, sizes: Sequence[int], confidence: float) -> tuple[float, float]:
    """Ends of a percentile interval, its level expanded so that small samples cover as often as they should.

    A bootstrap distribution is too narrow by √((n−1)/n) and its quantiles are a normal's where a t's belong; with n the
    size of the smallest group the nominal tail α/2 is replaced by Φ(−√(n/(n−1)) · t(n_1 + … − k, 1 − α/2)).

    Args:
        estimates: Bootstrap estimates, ``(resamples,)``.
        sizes: Sizes of the groups that were resampled, each at least 2.
        confidence: Nominal level.
    """
    from scipy import special  # scipy.stats takes seconds to import

    smallest = min(sizes)
    degrees = sum(size - 1 for size in sizes)
    quantile = special.stdtrit(degrees, 0.5 + confidence / 2) * np.sqrt(smallest / (smallest - 1))
    tail = float(special.ndtr(-quantile))
    low, high = np.quantile(estimates, [tail, 1 - tail])
    return float(low), float(high)


def log_rank(first: Survival, second: Survival) -> float:
    """Two-sided p-value of the log-rank test that both groups need equally long.

    By permutation of the groups' labels, which holds at any size, where the textbook's χ² approximation rejects too
    often with a handful of seeds. All permutations are tried up to 10 against 10, else 20,000 are drawn, always the
    same ones. Few seeds cannot give a small p: 5 against 5 no less than 2/252.

    Args:
        first: One group.
        second: The other.

    Returns:
        p in (0, 1].
    """
    scores = _log_rank_scores(
        np.concatenate([first.times, second.times]), np.concatenate([first.events, second.events])
    )
    m = len(first)
    observed = abs(scores[:m].sum())
    groups, drawn = _permuted_groups(len(scores), m)
    extreme = int((np.abs(scores[groups].sum(axis=1)) >= observed - 1e-9 * max(1.0, observed)).sum())
    return (extreme + drawn) / (len(groups) + drawn)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm's step-down procedure; NaN stays NaN and is not counted."""
    p = np.asarray(p_values, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(p))
    adjusted = np.full(len(p), np.nan)
    largest = 0.0
    for rank, index in enumerate(known[np.argsort(p[known], kind="stable")]):
        largest = max(largest, min(1.0, (len(known) - rank) * p[index]))
        adjusted[index] = largest
    return [float(value) for value in adjusted]


def interquartile_mean(values: ArrayLike) -> float:
    """Mean of the middle half: a quarter of the values is cut off at either end, fractions of a value included."""
    return float(_interquartile_means(np.asarray(values, dtype=np.float64)[None, :])[0])


def stratified_interquartile_mean(
    strata: Sequence[ArrayLike], *, resamples: int, confidence: float, rng: np.random.Generator
) -> Interval:
    """Interquartile mean over all values, with a bootstrap interval that resamples within strata.

    Args:
        strata: One ``(n_i,)`` per stratum, e.g. the seeds of one cell.
        resamples: Bootstrap resamples.
        confidence: Level of the interval.
        rng: Source of the resamples.
    """
    groups = [np.asarray(stratum, dtype=np.float64) for stratum in strata if len(np.asarray(stratum))]
    value = interquartile_mean(np.concatenate(groups))
    if min(len(group) for group in groups) < 2:
        return Interval(value)
    drawn = [group[rng.integers(len(group), size=(resamples, len(group)))] for group in groups]
    estimates = _interquartile_means(np.concatenate(drawn, axis=1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(estimates, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def band(curves: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean of curves ``(n, points)`` and its standard error's band: mean, lower and upper, ``(points,)`` each."""
    mean = curves.mean(axis=0)
    if len(curves) < 2:
        return mean, mean, mean
    error = curves.std(axis=0, ddof=1) / np.sqrt(len(curves))
    return mean, mean - error, mean + error


def _resample(sample: Survival, resamples: int, rng: np.random.Generator) -> tuple[FloatArray, NDArray[np.bool_]]:
    rows = rng.integers(len(sample), size=(resamples, len(sample)))
    return sample.times[rows], sample.events[rows]


def _interquartile_means(rows: FloatArray) -> FloatArray:
    """Of each row of ``(k, n)``."""
    n = rows.shape[1]
    ordered = np.sort(rows, axis=1)
    edges = np.arange(n + 1)
    weight = np.clip(np.minimum(edges[1:], 0.75 * n) - np.maximum(edges[:-1], 0.25 * n), 0.0, None)
    return (ordered * weight).sum(axis=1) / weight.sum()


def _log_rank_scores(times: FloatArray, events: NDArray[np.bool_]) -> FloatArray:
    """Each value's share in (observed − expected): 1 for an event, minus the Nelson–Aalen hazard until its time."""
    points = np.unique(times[events])
    at_risk = (times[None, :] >= points[:, None]).sum(axis=1)
    hazard = ((times[None, :] == points[:, None]) & events[None, :]).sum(axis=1) / at_risk
    cumulative = np.concatenate([[0.0], np.cumsum(hazard)])
    return events - cumulative[np.searchsorted(points, times, side="right")]


@lru_cache(maxsize=8)
def _permuted_groups(n: int, m: int) -> tuple[NDArray[np.int16], int]:
    """Ways to choose m of n, ``(count, m)``, and 1 where they were drawn (the observed one is then added) or else 0."""
    if comb(n, m) <= _ALL_PERMUTATIONS:
        return np.array(list(combinations(range(n), m)), dtype=np.int16), 0
    rng = np.random.default_rng(0)
    drawn = np.argsort(rng.random((_DRAWN_PERMUTATIONS, n)), axis=1)[:, :m]
    return drawn.astype(np.int16), 1
