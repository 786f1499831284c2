"""What following advice would gain, measured on a student's own draws."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rllib_plugins.uses import benefit as module
from rllib_plugins.uses.benefit import Benefit
from rllib_plugins.uses.evidence import Draws, add_scores, z_of


def draws(
    rng: np.random.Generator, num_steps: int, propensity: float, outcome, observations: np.ndarray | None = None
) -> Draws:
    """Steps in which one of two actions, now this and now that, is advised and drawn with a probability.

    ``outcome(drew)`` is what they were worth.
    """
    drew, advised = rng.random(num_steps) < propensity, rng.integers(2, size=num_steps)
    states = rng.uniform(-1, 1, (num_steps, 2)).astype(np.float32) if observations is None else observations
    policy = np.where(np.arange(2) == advised[:, None], propensity, 1.0 - propensity)
    return Draws(states, policy, np.where(drew, advised, 1 - advised), advised, outcome(drew).astype(np.float64))


def test_the_example_of_the_class_runs():
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("propensity", [0.1, 0.33, 0.9])
@pytest.mark.parametrize("reward", [1.0, -1.0], ids=["rare gain", "rare loss"])
def test_advice_that_changes_nothing_is_no_evidence_where_outcomes_are_skewed(propensity: float, reward: float):
    zs = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        outcome = reward * (rng.random(2_048) < 0.05)
        totals = np.zeros(2)
        add_scores(totals, ((rng.random(2_048) < propensity) - propensity) * outcome, 1_024.0)
        zs.append(z_of(totals))
    assert abs(np.mean(zs)) < 0.25
    assert np.mean(np.abs(zs) > 1.96) < 0.1


@pytest.mark.parametrize("rare", [0.0, 0.005], ids=["always the same", "nearly always the same"])
def test_advice_that_hardly_ever_changes_is_no_evidence_however_good_it_is(rare: float):
    rng = np.random.default_rng(0)
    made = Benefit(half_life=1_024, seed=0)
    for _ in range(8):
        actions, advised = rng.integers(3, size=256), np.where(rng.random(256) < rare, 1, 0)
        gained = 2.0 * (actions == 0) + rng.normal(size=256)
        made.observe(
            Draws(rng.normal(size=(256, 2)).astype(np.float32), np.full((256, 3), 1 / 3), actions, advised, gained)
        )
    assert made.effect == pytest.approx(2.0, abs=4 * made.effect_se)
    assert made.z == 0.0


def test_what_one_action_is_worth_everywhere_does_not_speak_for_advice_that_names_it_half_the_time():
    zs = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        made = Benefit(half_life=1_024, seed=0)
        for _ in range(8):
            actions, advised = rng.integers(2, size=128), rng.integers(2, size=128)
            gained = 3.0 * (actions == 0) + rng.normal(size=128)
            states = rng.normal(size=(128, 2)).astype(np.float32)
            made.observe(Draws(states, np.full((128, 2), 0.5), actions, advised, gained))
        zs.append(made.z)
    assert abs(np.mean(zs)) < 0.4
    assert np.mean(np.abs(zs) > 2.5) <= 0.05


@pytest.mark.parametrize("bias", [-3.0, 0.0, 3.0])
def test_an_error_of_the_critic_is_no_evidence(bias: float):
    zs = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        made = Benefit(half_life=1_024, seed=0)
        made.observe(draws(rng, 512, 0.3, lambda drew, rng=rng: bias + rng.normal(size=len(drew))))
        zs.append(made.z)
    assert abs(np.mean(zs)) < 0.5


def test_the_effect_is_the_gain_of_the_advised_action_in_units_of_return():
    rng = np.random.default_rng(0)
    made = Benefit(half_life=1e9, seed=0)
    made.observe(draws(rng, 20_000, 0.25, lambda drew: 2.0 * drew + rng.normal(size=len(drew))))
    assert made.effect == pytest.approx(2.0, abs=4 * made.effect_se)
    assert 0.0 < made.effect_se < 0.1
    assert made.z > 20


def test_agreement_counts_how_often_the_advice_was_the_first_choice_of_late():
    made, states = Benefit(half_life=64, seed=0), np.zeros((64, 1), np.float32)
    assert np.isnan(made.agreement)
    for advised, agreement in ((0, 1.0), (1, 1 / 3)):
        policy, actions = np.tile([0.6, 0.4], (64, 1)), np.arange(64) % 2
        made.observe(Draws(states, policy, actions, np.full(64, advised), np.zeros(64)))
        assert made.agreement == pytest.approx(agreement), "half of the weight after as many steps again"


def test_advice_helps_where_it_is_right_and_not_where_it_is_wrong():
    rng = np.random.default_rng(1)
    states = rng.uniform(-1, 1, (1_024, 2)).astype(np.float32)
    is_right = states[:, 0] > 0
    made = Benefit(half_life=10_000, seed=0)
    made.observe(
        draws(rng, 1_024, 0.5, lambda drew: np.where(is_right, 1.0, -1.0) * drew + rng.normal(size=1_024), states)
    )
    clear = np.abs(states[:, 0]) > 0.3
    assert (made.helps(states, 0.0) == is_right)[clear].mean() > 0.97


def test_what_is_known_of_all_states_holds_for_one_that_was_never_seen():
    rng = np.random.default_rng(2)
    made = Benefit(half_life=10_000, seed=0)
    made.observe(draws(rng, 512, 0.5, lambda drew: 1.0 * drew + rng.normal(size=512)))
    assert made.helps(np.array([[0.99, -0.99]], np.float32), 0.0).all()


def test_nothing_helps_and_nothing_harms_before_anything_is_known_or_where_outcomes_never_vary():
    made = Benefit(half_life=1_024, seed=0)
    state = np.zeros((3, 2), np.float32)
    rng = np.random.default_rng(0)
    for _ in range(2):
        assert made.z == 0.0 and not made.helps(state, 0.0).any() and made.helps(state, -1.0).all()
        made.observe(draws(rng, 512, 0.5, lambda drew: np.zeros(len(drew))))


def test_absurd_advantages_are_left_out():
    rng = np.random.default_rng(3)
    made = Benefit(half_life=1_024, seed=0)
    made.observe(draws(rng, 300, 0.5, lambda drew: np.where(np.arange(len(drew)) % 3 == 0, np.nan, np.inf)))
    assert made.num_steps == 0 and made.z == 0.0
    made.observe(draws(rng, 300, 0.5, lambda drew: np.where(np.arange(len(drew)) % 3 == 0, np.inf, 1.0 * drew)))
    assert made.num_steps == 200 and np.isfinite(made.z)


def test_observations_that_never_change_are_described():
    rng = np.random.default_rng(4)
    made = Benefit(half_life=1_024, seed=0)
    made.observe(draws(rng, 512, 0.5, lambda drew: 1.0 * drew, np.ones((512, 3), np.float32)))
    assert made.helps(np.ones((1, 3), np.float32), 1.0).all()


def test_long_observations_need_no_more_features():
    rng = np.random.default_rng(5)
    made = Benefit(half_life=1_024, seed=0)
    states = rng.normal(size=(256, 500)).astype(np.float32)
    made.observe(draws(rng, 256, 0.5, lambda drew: 1.0 * drew, states))
    assert made.helps(states[:5], 0.0).shape == (5,)
    assert len(made.get_state()["moment"]) == 1 + module.NUM_FEATURES


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 299), max_size=5, unique=True))
def test_how_steps_are_cut_into_calls_does_not_matter(cuts: list[int]):
    values = np.random.default_rng(0).normal(size=300)
    whole, parts = np.zeros(2), np.zeros(2)
    add_scores(whole, values, 100.0)
    for part in np.split(values, sorted(cuts)):
        add_scores(parts, part, 100.0)
    assert z_of(parts) == pytest.approx(z_of(whole))


def test_a_restored_estimate_goes_on_as_if_never_stopped():
    def steps(seed: int, num_steps: int) -> Draws:
        rng = np.random.default_rng(seed)
        return draws(rng, num_steps, 0.4, lambda drew: drew + rng.normal(size=num_steps))

    for before in (100, 500):  # the features are not chosen yet, and are
        made, restored = Benefit(512, seed=7), Benefit(512, seed=7)
        made.observe(steps(0, before))
        restored.set_state(made.get_state())
        for one in (made, restored):
            one.observe(steps(1, 200))
        probe = steps(2, 50).observations
        assert restored.z == made.z and restored.effect == made.effect
        np.testing.assert_array_equal(restored.helps(probe, 0.3), made.helps(probe, 0.3))
