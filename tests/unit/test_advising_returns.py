"""What return followed heads, and what followed tails."""

import numpy as np

from rllib_plugins.advising.returns import MIN_STEPS, ReturnComparison


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
