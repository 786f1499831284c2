"""Convergence and statistics, against answers that are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_sweeps.report.convergence import (
    area_under_curve,
    convergence,
    final_return,
    moving_mean,
    stability,
    threshold,
)
from tune_sweeps.report.statistics import (
    Survival,
    band,
    expanded_percentiles,
    holm,
    interquartile_mean,
    log_rank,
    mean_difference,
    restricted_mean,
    speed_up,
    stratified_interquartile_mean,
    survival_curve,
)


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def test_the_threshold_is_a_share_of_the_way() -> None:
    assert threshold(-1.0, 1.0, 0.9) == pytest.approx(0.8)
    assert threshold(0.0, 0.0, 0.9) is None
    assert threshold(0.5, 0.2, 0.9) is None


def test_the_moving_mean_trails_and_waits_until_it_is_full() -> None:
    assert moving_mean([1, 2, 3, 4], 3) == pytest.approx([np.nan, np.nan, 2, 3], nan_ok=True)
    assert np.isnan(moving_mean([1.0], 3)).all()


def test_convergence_is_the_first_full_window_at_the_level() -> None:
    steps = [0, 10, 20, 30, 40, 50, 60]
    found = convergence(steps, [0, 9, 0, 0, 3, 3, 3], 3.0, 3)
    assert (found.steps, found.converged) == (20.0, True)
    one_lucky = convergence(steps, [0, 0, 9, 0, 0, 0, 0], 4.0, 3)
    assert (one_lucky.steps, one_lucky.converged) == (60.0, False)


def test_reaching_the_level_exactly_counts() -> None:
    assert convergence([0, 1, 2], [1.0, 1.0, 1.0], 1.0, 3).converged


def test_final_return_area_and_stability() -> None:
    assert final_return([9, 1, 2, 3], 2) == pytest.approx(2.5)
    assert area_under_curve([0, 10, 30], [0, 1, 1]) == pytest.approx((5 + 20) / 30)
    steps, returns = [0, 1, 2, 3, 4], [1.0, 1.0, 1.0, 0.0, 1.0]
    assert stability(steps, returns, 1.0, convergence(steps, returns, 1.0, 2)) == pytest.approx(2 / 3)
    assert stability(steps, returns, 2.0, convergence(steps, returns, 2.0, 2)) is None


@given(data=st.data(), n=st.integers(2, 20))
@settings(max_examples=25, deadline=None)
def test_survival_agrees_with_lifelines(data: st.DataObject, n: int) -> None:
    from lifelines import KaplanMeierFitter
    from lifelines.utils import restricted_mean_survival_time

    times = data.draw(st.lists(st.integers(1, 12), min_size=n, max_size=n))
    events = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    horizon = data.draw(st.integers(1, 12))
    sample = Survival.of(times, events)
    peer = KaplanMeierFitter().fit(times, events)
    assert restricted_mean(sample, horizon) == pytest.approx(restricted_mean_survival_time(peer, t=horizon))
    moments, share = survival_curve(sample)
    assert share == pytest.approx(peer.survival_function_at_times(moments).to_numpy())


def test_a_censored_trial_counts_as_longer_and_is_not_dropped() -> None:
    censored = restricted_mean(Survival.of([10, 100], [True, False]), 100)
    assert censored == pytest.approx((10 + 100) / 2)
    assert censored > restricted_mean(Survival.of([10], [True]), 100)


def test_the_log_rank_test_agrees_with_the_textbook_where_that_holds() -> None:
    from lifelines.statistics import logrank_test

    random = rng()
    first, second = random.exponential(1.0, 60), random.exponential(1.6, 60)
    peer = logrank_test(first, second).p_value
    assert log_rank(Survival.of(first, first > 0), Survival.of(second, second > 0)) == pytest.approx(peer, abs=0.01)


def test_the_log_rank_test_is_exact_for_few() -> None:
    apart = log_rank(Survival.of([1, 2, 3], [True] * 3), Survival.of([7, 8, 9], [True] * 3))
    assert apart == pytest.approx(2 / 20)  # one of the 20 ways and its mirror image
    same = Survival.of([5, 5, 5], [True] * 3)
    assert log_rank(same, same) == 1.0


def test_the_log_rank_test_keeps_its_level_with_five_seeds() -> None:
    random = rng()
    alarms = 0
    for _ in range(300):
        times = np.minimum(random.exponential(1.0, 10), 1.5)
        sample = Survival.of(times, times < 1.5)
        p = log_rank(Survival(sample.times[:5], sample.events[:5]), Survival(sample.times[5:], sample.events[5:]))
        alarms += p <= 0.05
    assert alarms / 300 <= 0.08


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, float("nan")]) == pytest.approx([0.03, 0.06, 0.06, np.nan], nan_ok=True)
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_agrees_with_scipys_family() -> None:
    p = [0.001, 0.01, 0.02, 0.2]
    assert holm(p) == pytest.approx([0.004, 0.03, 0.04, 0.2])


def test_the_interquartile_mean_drops_a_quarter_at_either_end() -> None:
    assert interquartile_mean([0, 1, 2, 1_000]) == pytest.approx(1.5)
    assert interquartile_mean([5]) == pytest.approx(5)
    assert interquartile_mean([1, 2, 3]) == pytest.approx((0.25 * 1 + 2 + 0.25 * 3) / 1.5)


def test_the_interquartile_mean_agrees_with_scipy_where_nothing_is_split() -> None:
    from scipy.stats import trim_mean

    values = rng().normal(size=40)
    assert interquartile_mean(values) == pytest.approx(trim_mean(values, 0.25))


def test_a_stratified_interval_holds_its_estimate_and_needs_two_per_stratum() -> None:
    random = rng()
    strata = [random.normal(size=8) for _ in range(4)]
    found = stratified_interquartile_mean(strata, resamples=500, confidence=0.95, rng=rng())
    assert found.low < found.value < found.high
    assert not stratified_interquartile_mean([[1.0], [2.0]], resamples=100, confidence=0.95, rng=rng()).has_interval


def test_a_speed_up_is_a_ratio_of_restricted_means() -> None:
    slow, fast = Survival.of([20, 40, 60], [True] * 3), Survival.of([10, 20, 30], [True] * 3)
    found = speed_up(slow, fast, 100, resamples=2_000, confidence=0.95, rng=rng())
    assert found.value == pytest.approx(2.0)
    assert found.low < 2.0 < found.high
    assert not speed_up(Survival.of([4], [True]), fast, 100, resamples=100, confidence=0.95, rng=rng()).has_interval


def test_the_same_seed_gives_the_same_interval() -> None:
    sample = Survival.of([1, 2, 3, 4], [True] * 4)
    first, second = (speed_up(sample, sample, 9, resamples=200, confidence=0.9, rng=rng()) for _ in range(2))
    assert first == second


def test_small_samples_get_wider_intervals() -> None:
    estimates = rng().normal(size=20_000)
    few, many = (np.ptp(expanded_percentiles(estimates, [n, n], 0.95)) for n in (4, 400))
    assert few > many
    assert many == pytest.approx(2 * 1.96, rel=0.05)


def test_intervals_of_a_mean_cover_as_often_as_they_say_with_five_values() -> None:
    random = rng()
    covered = 0
    for _ in range(250):
        found = mean_difference(
            random.normal(size=5), random.normal(size=5), resamples=400, confidence=0.95, rng=random
        )
        covered += found.low <= 0 <= found.high
    assert 0.91 <= covered / 250 <= 0.99


def test_a_band_is_a_standard_error_wide() -> None:
    mean, low, high = band(np.array([[0.0, 1.0], [2.0, 1.0]]))
    assert mean == pytest.approx([1, 1])
    assert high - mean == pytest.approx([1, 0])
    assert mean - low == pytest.approx([1, 0])
