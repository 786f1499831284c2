"""Earned trust: closes on bad advice, keeps good, re-opens, and survives odd samples."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rllib_plugins.advising.trust import MIN_STEPS, EarnedTrust, ReturnComparison


def feed(trust, effect, num_updates, *, gate=0.5, size=512, seed=0, deviation=1.0):
    """Updates in which heads are worth ``effect`` more than tails; returns the trust after each."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(num_updates):
        heads = rng.random(size) < gate
        trust.observe(rng.normal(0, deviation, size) + effect * heads, heads, np.ones(size, bool))
        out.append(trust.trust)
    return out


def test_starts_optimistic():
    trust = EarnedTrust(4000, 0.05)
    assert trust.trust == pytest.approx(0.8413, abs=1e-4)
    assert math.isnan(trust.effect) and math.isnan(trust.effect_se)


def test_closes_on_bad_advice_keeps_good_and_reopens():
    trust = EarnedTrust(4000, 0.05)
    assert feed(trust, -0.4, 6)[-1] < 0.01  # 3k steps
    assert trust.factor == 0.05
    assert min(feed(EarnedTrust(4000, 0.05), 0.3, 20)[2:]) > 0.9
    assert feed(trust, 0.5, 60, gate=0.05)[-1] > 0.9


def test_a_tutor_no_better_than_the_student_loses_the_benefit_of_the_doubt():
    started = [feed(EarnedTrust(4000, 0.05), 0.0, 1, size=128, seed=seed)[-1] for seed in range(200)]
    proven_equal = [feed(EarnedTrust(4000, 0.05), 0.0, 40, seed=seed)[-1] for seed in range(200)]
    assert np.mean(started) == pytest.approx(0.77, abs=0.05)  # E Φ(max(z, z/4) + 0.6), z standard normal
    assert np.mean(proven_equal) == pytest.approx(0.25, abs=0.05)  # E Φ(z − 0.84), the variance of z halved by decay


def test_one_unlucky_comparison_does_not_condemn_a_tutor():
    trust = EarnedTrust(4000, 0.05)
    heads = np.arange(128) % 2 == 0
    trust.observe(np.random.default_rng(0).normal(size=128) - 0.5 * heads, heads, np.ones(128, bool))
    assert trust.effect / trust.effect_se < -2.5
    assert trust.trust > 0.35


def test_evidence_bears_the_burden_of_proof():
    trusts = [EarnedTrust(4000, 0.05) for _ in range(200)]
    for seed, trust in enumerate(trusts):
        feed(trust, 0.0, 40, seed=seed)
    assert np.mean([trust.evidence > 0 for trust in trusts]) < 0.25
    good = EarnedTrust(4000, 0.05)
    feed(good, 0.3, 40)
    assert good.evidence > 0.99


def test_effect_is_unbiased_and_its_error_honest():
    effects, errors = [], []
    for seed in range(200):
        trust = EarnedTrust(1e12, 0.05)
        feed(trust, 0.2, 4, seed=seed, gate=0.3, size=200)
        effects.append(trust.effect)
        errors.append(trust.effect_se)
    assert np.mean(effects) == pytest.approx(0.2, abs=4 * np.std(effects) / math.sqrt(200))
    assert np.mean(errors) == pytest.approx(np.std(effects), rel=0.2)


OUTCOMES = {
    "rare +1": lambda rng, n: (rng.random(n) < 0.05) * 1.0,
    "rare -1": lambda rng, n: (rng.random(n) < 0.05) * -1.0,
    "lognormal": lambda rng, n: rng.lognormal(0.0, 1.5, n),
    "normal": lambda rng, n: rng.normal(size=n),
    "drifting": lambda rng, n: rng.normal(size=n) + np.linspace(0.0, 3.0, n),
    "overlapping": lambda rng, n: np.convolve(rng.normal(size=n + 3), np.ones(4) / 2.0, mode="valid"),
}


@pytest.mark.parametrize("gate", [0.1, 0.5, 0.9, None], ids=["0.1", "0.5", "0.9", "adaptive"])
@pytest.mark.parametrize("outcomes", OUTCOMES)
def test_advice_that_changes_nothing_has_no_effect_however_skewed_outcomes_are(outcomes, gate):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(150):
        trust = EarnedTrust(half_life=1e6, floor=0.1)
        values = OUTCOMES[outcomes](rng, 2_048)
        for start in range(0, 2_048, 64):
            open_by = 0.9 * trust.factor if gate is None else gate
            trust.observe(values[start : start + 64], rng.random(64) < open_by, np.ones(64, dtype=bool))
        found.append(trust.effect / trust.effect_se)
    assert abs(np.mean(found)) < 0.4
    assert np.mean(np.abs(found) > 1.96) <= 0.12


def test_first_update_is_the_difference_of_means():
    advantages = np.array([3.0, 1.0, 0.0, 2.0, 1.0, 100.0])
    heads = np.array([True, True, False, False, False, True])
    trust = EarnedTrust(4000, 0.05, compared_at_once=1)
    trust.observe(advantages, heads, np.array([True] * 5 + [False]))
    assert trust.effect == pytest.approx(2.0 - 1.0)
    total = np.var([3.0, 1.0, 0.0, 2.0, 1.0], ddof=1)
    tutor, student = (2.0 + 5 * total) / (1 + 5), (2.0 + 5 * total) / (2 + 5)
    assert trust.effect_se == pytest.approx(math.sqrt(tutor / 2 + student / 3))


def test_forgets_by_steps_not_by_updates():
    rng = np.random.default_rng(0)
    advantages, heads = rng.normal(size=8192), rng.random(8192) < 0.5
    coarse, fine = EarnedTrust(1000, 0.05), EarnedTrust(1000, 0.05)
    for trust, size in ((coarse, 1024), (fine, 128)):
        for start in range(0, 8192, size):
            part = slice(start, start + size)
            trust.observe(advantages[part], heads[part], np.ones(size, bool))
    assert coarse.effect_se == pytest.approx(fine.effect_se, rel=0.35)
    feed(coarse, -1.0, 4)
    feed(coarse, 0.0, 200, gate=0.0, size=512)  # closed: no heads, so the evidence fades
    assert coarse.trust == pytest.approx(0.8413, abs=0.01)


@pytest.mark.parametrize(
    "advantages, heads",
    [
        ([], []),
        ([1.0], [True]),
        ([1.0, 1.0], [True, False]),
        ([1.0, 2.0], [True, True]),
        ([0.0] * 50, [True, False] * 25),
        ([1e300, 1e300, 1e300], [True, False, True]),
        ([math.nan, math.inf, -math.inf], [True, False, True]),
    ],
)
def test_nothing_to_learn_changes_nothing(advantages, heads):
    trust = EarnedTrust(4000, 0.05)
    trust.observe(np.array(advantages), np.array(heads, bool), np.ones(len(heads), bool))
    assert trust.trust == pytest.approx(0.8413, abs=1e-4)
    assert math.isnan(trust.effect)


def test_small_updates_are_gathered_and_survive_a_restore():
    rng = np.random.default_rng(0)
    advantages, heads, everywhere = rng.normal(size=160), np.arange(160) % 3 == 0, np.ones(160, bool)
    whole, parts = EarnedTrust(4000, 0.05, 160), EarnedTrust(4000, 0.05, 160)
    whole.observe(advantages, heads, everywhere)
    for start in range(0, 160, 40):
        assert math.isnan(parts.effect)
        part = slice(start, start + 40)
        restored = EarnedTrust(4000, 0.05, 160)
        restored.set_state(parts.get_state())
        parts = restored
        parts.observe(advantages[part], heads[part], everywhere[part])
    assert (parts.effect, parts.effect_se, parts.trust) == (whole.effect, whole.effect_se, whole.trust)


def test_groups_without_spread_are_no_certainty():
    trust = EarnedTrust(4000, 0.05, compared_at_once=1)
    trust.observe(np.array([1.0, 1.0, 0.0, 0.0]), np.array([True, True, False, False]), np.ones(4, bool))
    assert 0.1 < trust.effect_se < 2.0


@settings(max_examples=30, deadline=None)
@given(
    advantages=arrays(np.float64, 40, elements=st.floats(allow_nan=True, allow_infinity=True)),
    heads=arrays(bool, 40),
    eligible=arrays(bool, 40),
)
def test_trust_stays_a_probability(advantages, heads, eligible):
    trust = EarnedTrust(100, 0.05)
    for _ in range(3):
        with np.errstate(over="ignore"):
            trust.observe(advantages, heads, eligible)
    assert 0.0 <= trust.trust <= 1.0
    assert 0.05 <= trust.factor <= 1.0


# Where values are not known: returns that followed


def step(comparison, episodes, heads, rewards, ended):
    comparison.add_decisions(episodes, np.array(heads), np.ones(len(episodes), bool))
    comparison.add_rewards(episodes, np.array(rewards, float), np.array(ended))


def test_returns_to_go_of_finished_episodes():
    comparison = ReturnComparison(0.5)
    step(comparison, ["a", "b"], [True, False], [1.0, 7.0], [False, False])
    step(comparison, ["a", "b"], [False, True], [3.0, 8.0], [True, False])
    assert comparison.take() is None
    for _ in range(MIN_STEPS):
        step(comparison, ["c"], [True], [0.0], [True])  # gone: b
    returns, heads, eligible = comparison.take()
    assert len(returns) == MIN_STEPS + 2 and eligible.all()
    np.testing.assert_allclose(returns[:2] - returns[2], [1.0 + 0.5 * 3.0, 3.0])
    assert heads[:3].tolist() == [True, False, True]
    assert abs(returns.mean()) < 1e-12
    assert comparison.take() is None


def test_restore_keeps_finished_steps():
    comparison, other = ReturnComparison(1.0), ReturnComparison(1.0)
    for index in range(MIN_STEPS - 1):
        step(comparison, ["a"], [index % 2 == 0], [index], [True])
    other.set_state(comparison.get_state())
    for each in (comparison, other):
        step(each, ["z"], [True], [5.0], [True])
    for mine, theirs in zip(comparison.take(), other.take(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_rewards_of_episodes_without_decisions_are_ignored():
    comparison = ReturnComparison(1.0)
    comparison.add_rewards(["a"], np.array([np.nan]), np.array([False]))
    comparison.add_rewards(["a"], np.array([1.0]), np.array([True]))
    assert comparison.get_state() == {"finished": []}
