"""Convergence and statistics, against answers that are known."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_sweeps.report.convergence import (
    FloatArray,
    Scale,
    area_under_curve,
    final_return,
    progress,
    stability,
    trailing_mean,
)
from tune_sweeps.report.statistics import (
    Bootstrap,
    Comparison,
    Interval,
    band,
    holm,
    improvement,
    interquartile_mean,
    mean_difference,
    mean_interval,
    not_worse,
    over_looks,
    permutation_test,
    pooled_speed_up,
    speed_up,
    spent_shares,
)

STEPS = np.arange(0.0, 201.0)


def ramp(full_at: float, top: float = 1.0) -> FloatArray:
    return np.minimum(top, STEPS / full_at)


def comparison(untutored: list[FloatArray], tutored: list[FloatArray], **changes: Any) -> Comparison:
    finals = [np.array([final_return(STEPS, curve, 20) for curve in curves]) for curves in (untutored, tutored)]
    fields = {
        "untutored": [progress(STEPS, curve, 20) for curve in untutored],
        "tutored": [progress(STEPS, curve, 20) for curve in tutored],
        "tutored_finals": finals[1],
        "scale": Scale(0.0, (finals[0],)),
        "horizon": 200.0,
        "resolution": 1.0,
    }
    return Comparison(**(fields | changes))


def test_the_trailing_mean_looks_back_by_env_steps_and_waits_for_a_whole_window() -> None:
    assert trailing_mean([0, 10, 20, 30], [1, 2, 3, 4], 30) == pytest.approx([np.nan, np.nan, 2, 3], nan_ok=True)
    assert trailing_mean([0, 10, 20, 30], [1, 2, 3, 4], 1) == pytest.approx([1, 2, 3, 4])
    assert np.isnan(trailing_mean([0, 10], [1, 2], 100)).all()
    assert trailing_mean([0, 10, 20, 25], [1, 2, 3, 9], 20)[-1] == pytest.approx((2 + 3 + 9) / 3)


def test_a_trial_converges_where_it_stays_and_its_first_hit_is_kept_beside() -> None:
    steps, returns = [0, 10, 20, 30, 40, 50, 60], [0.0, 9, 9, 0, 0, 9, 9]
    sustained, hits = progress(steps, returns, 20), progress(steps, returns, 20, sustained=False)
    assert (sustained.convergence(9.0).steps, hits.convergence(9.0).steps) == (60.0, 20.0)
    assert sustained.convergence(9.0).converged
    fallen = progress(steps, [0.0, 9, 9, 9, 9, 9, 0], 20)
    assert (fallen.convergence(9.0).steps, fallen.convergence(9.0).converged) == (60.0, False)
    assert progress(steps, returns, 20, sustained=False).convergence(4.5).steps == 10.0


@given(returns=st.lists(st.floats(-5, 5), min_size=1, max_size=30), level=st.floats(-5, 5), window=st.integers(1, 9))
@settings(max_examples=80, deadline=None)
def test_convergence_agrees_with_its_definition(returns: list[float], level: float, window: int) -> None:
    steps = [10 * i for i in range(len(returns))]
    means = trailing_mean(steps, returns, 10 * window)
    kept = [i for i, mean in enumerate(means) if not np.isnan(mean)]
    held = [steps[i] for i in kept if all(means[j] >= level for j in kept if j >= i)]
    hit = [steps[i] for i in kept if means[i] >= level]
    for first, sustained in ((held, True), (hit, False)):
        found = progress(steps, returns, 10 * window, sustained=sustained).convergence(level)
        assert (found.converged, found.steps) == ((True, first[0]) if first else (False, steps[-1]))


def test_final_return_area_and_stability() -> None:
    assert final_return([0, 10, 20, 30], [9, 1, 2, 3], 20) == pytest.approx(2.5)
    assert area_under_curve([0, 10, 30], [0, 1, 1]) == pytest.approx((5 + 20) / 30)
    steps, returns = [0, 1, 2, 3, 4], [1.0, 1.0, 1.0, 0.0, 1.0]
    hits = progress(steps, returns, 2, sustained=False)
    assert stability(steps, returns, 1.0, hits.convergence(1.0)) == pytest.approx(2 / 3)
    assert stability(steps, returns, 2.0, hits.convergence(2.0)) is None


def test_a_level_is_a_share_of_the_way_to_the_best_peer() -> None:
    own, other = np.array([0.8, 1.2]), np.array([2.0, 4.0])
    assert Scale(-1.0, (own,)).level(0.9) == pytest.approx(0.8)
    assert Scale(-1.0, (own, other)).level(0.5) == pytest.approx(1.0)
    assert Scale(-1.0, (own, other), fixed=5.0).level(0.5) == pytest.approx(2.0)
    assert Scale(3.0, (own, other)).level(0.5) is None
    without = Scale(0.0, (own, other)).levels_without_each(1.0)
    assert [list(levels) for levels in without] == [[3.0, 3.0], [4.0, 2.0]]
    assert list(Scale(0.0, (own, other)).levels(0.5, [1.0, 7.0])) == [1.5, 3.5]


def test_a_speed_up_is_a_ratio_of_geometric_means() -> None:
    slow, fast = [ramp(at) for at in (60.0, 80.0, 100.0)], [ramp(at) for at in (30.0, 40.0, 50.0)]
    found = speed_up(comparison(slow, fast), 0.9, 0.95)
    assert found is not None
    took = [[progress(STEPS, curve, 20).convergence(0.9).steps for curve in arm] for arm in (slow, fast)]
    assert found.value == pytest.approx(float(np.prod(np.divide(*took)) ** (1 / 3)))
    assert 1.6 < found.value < 2.0  # the window's lag pulls it towards 1
    assert found.low < found.value < found.high
    one = speed_up(comparison(slow[:1], fast), 0.9, 0.95)
    assert one is not None and not one.has_interval
    assert speed_up(comparison(slow, fast, scale=Scale(5.0, (np.ones(3),))), 0.9, 0.95) is None


def test_arms_of_which_no_trial_converges_are_not_compared_by_speed() -> None:
    never, fast = [ramp(40.0, top=0.5)] * 3, [ramp(40.0)] * 3
    scale = Scale(0.0, (np.ones(3),), fixed=1.0)
    assert speed_up(comparison(never, never, scale=scale), 0.9, 0.95) is None
    assert speed_up(comparison(never, [*never, *fast], scale=scale), 0.9, 0.95) is not None


def test_a_trial_that_never_converges_counts_with_all_its_steps() -> None:
    fast, never = [ramp(40.0)] * 2, ramp(40.0, top=0.5)
    both = speed_up(comparison(fast, [*fast, never]), 0.9, 0.95)
    assert both is not None
    took = progress(STEPS, fast[0], 20).convergence(0.9).steps
    assert both.value == pytest.approx((took / 200) ** (1 / 3))


def test_identical_times_leave_the_resolution_as_uncertainty() -> None:
    same = [ramp(40.0)] * 4
    found = speed_up(comparison(same, same), 0.9, 0.95)
    assert found is not None and found.low < 1.0 < found.high


def test_the_interval_covers_as_often_as_it_says_with_the_level_estimated() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(300):
        arms = [
            [
                (1 + 0.03 * rng.standard_normal()) * ramp(median * np.exp(0.5 * rng.standard_normal()))
                + 0.03 * rng.standard_normal(len(STEPS))
                for _ in range(5)
            ]
            for median in (60.0, 60.0)
        ]
        found = speed_up(comparison(*arms), 0.9, 0.95)
        assert found is not None
        covered += found.low <= 1.0 <= found.high
    assert 0.92 <= covered / 300 <= 0.98


def test_the_permutation_test_is_exact_for_few() -> None:
    slow, fast = [ramp(at) for at in (100.0, 101.0, 102.0)], [ramp(at) for at in (10.0, 11.0, 12.0)]
    assert permutation_test(comparison(slow, fast), 0.9) == pytest.approx(2 / 20)  # one of 20 ways and its mirror image
    same = [ramp(40.0)] * 3
    assert permutation_test(comparison(same, same), 0.9) == 1.0
    assert np.isnan(permutation_test(comparison(same, same, scale=Scale(5.0, (np.ones(3),))), 0.9))


def test_the_permutation_test_keeps_its_level_with_the_level_estimated() -> None:
    rng = np.random.default_rng(5)
    alarms = 0
    for _ in range(300):
        curves = [(1 + 0.1 * rng.standard_normal()) * ramp(60 * np.exp(0.5 * rng.standard_normal())) for _ in range(10)]
        alarms += permutation_test(comparison(curves[:5], curves[5:]), 0.9) <= 0.05
    assert alarms / 300 <= 0.08


def test_pooled_speed_ups_have_an_interval_around_them() -> None:
    rng = np.random.default_rng(7)
    many = [
        comparison(
            [ramp(80 * np.exp(0.2 * rng.standard_normal())) for _ in range(5)],
            [ramp(40 * np.exp(0.2 * rng.standard_normal())) for _ in range(5)],
        )
        for _ in range(3)
    ]
    found = pooled_speed_up(many, 0.9, Bootstrap(400, 0.95))
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(1.8, abs=0.3)
    assert found == pooled_speed_up(many, 0.9, Bootstrap(400, 0.95))
    assert not pooled_speed_up([comparison([ramp(80.0)], [ramp(40.0)])], 0.9, Bootstrap(400, 0.95)).has_interval


def test_looks_spend_no_more_than_there_is() -> None:
    assert spent_shares([5], None) == [0.8]
    assert spent_shares([5, 10, 15], None) == pytest.approx([0.8, 0.16, 0.032])
    assert spent_shares([5, 10, 20], 20) == pytest.approx([1 / 16, 3 / 16, 12 / 16])
    assert sum(spent_shares(list(range(5, 100, 5)), 20)) == pytest.approx(1.0)
    assert sum(spent_shares(list(range(5, 100, 5)), None)) < 1.0


def test_looks_are_combined_by_what_each_may_spend() -> None:
    p = [[0.04, 0.5, np.nan], [np.nan, 0.008, np.nan]]
    assert over_looks(p, [0.8, 0.16]) == pytest.approx([0.05, 0.05, np.nan], nan_ok=True)
    assert over_looks([[0.9]], [0.8]) == pytest.approx([1.0])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, float("nan")]) == pytest.approx([0.03, 0.06, 0.06, np.nan], nan_ok=True)
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([0.001, 0.01, 0.02, 0.2]) == pytest.approx([0.004, 0.03, 0.04, 0.2])


def test_means_have_students_intervals() -> None:
    from scipy import stats

    values = np.random.default_rng(1).normal(size=7)
    found = mean_interval(values, 0.9)
    half = stats.t.ppf(0.95, 6) * values.std(ddof=1) / np.sqrt(7)
    assert (found.high - found.low) / 2 == pytest.approx(half)
    assert mean_interval([2.0, 2.0], 0.9) == Interval(2.0, 2.0, 2.0)
    assert not mean_interval([2.0], 0.9).has_interval
    difference = mean_difference(values + 1, values, 0.95)
    assert difference.value == pytest.approx(1.0)
    assert difference.low < 1.0 < difference.high
    assert mean_difference([3.0, 3.0], [1.0, 1.0], 0.95) == Interval(2.0, 2.0, 2.0)


def test_the_interquartile_mean_drops_a_quarter_at_either_end_of_all_samples() -> None:
    assert interquartile_mean([0, 1, 2, 1_000]) == pytest.approx(1.5)
    assert interquartile_mean([0, 1_000], [1, 2]) == pytest.approx(1.5)


def test_the_probability_of_improvement_is_mann_whitneys() -> None:
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 4, 9).astype(float), rng.integers(0, 4, 6).astype(float)
    assert improvement(a, b) == pytest.approx(mannwhitneyu(a, b).statistic / 54)
    found = Bootstrap(500, 0.95).interval([a, b], improvement)
    assert found.low <= found.value <= found.high
    assert not Bootstrap(500, 0.95).interval([a, b[:1]], improvement).has_interval


def test_the_probability_of_improvement_needs_no_room_for_all_pairs() -> None:
    draws = np.random.default_rng(0).integers(0, 500, size=(20, 4_000)).astype(float)
    tracemalloc.start()
    found = improvement(draws[:, :2_000], draws[:, 2_000:])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.shape == (20,) and np.abs(found - 0.5).max() < 0.05
    assert most < 50e6  # bytes; the pairs would take 640e6


def test_a_difference_is_within_its_margin_beyond_it_or_undecided() -> None:
    assert not_worse(Interval(0.0, -0.1, 0.1), 0.2) is True
    assert not_worse(Interval(-0.5, -0.6, -0.4), 0.2) is False
    assert not_worse(Interval(-0.1, -0.3, 0.1), 0.2) is None
    assert not_worse(Interval(0.0), 0.2) is None


def test_a_band_is_a_standard_error_wide() -> None:
    found = band(np.array([[0.0, 1.0], [2.0, 1.0]]))
    assert found.mean == pytest.approx([1, 1])
    assert found.high - found.mean == pytest.approx([1, 0])
    assert found.mean - found.low == pytest.approx([1, 0])
