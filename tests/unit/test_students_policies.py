"""Distributions over actions from scores, with and without masks."""

from __future__ import annotations

import numpy as np

from rllib_plugins.policies import best_values, epsilon_greedy, greedy, masked_softmax

LEGAL = np.array([[True, False, True, True], [False, True, False, False]])
SCORES = np.array([[1.0, 9.0, 3.0, 2.0], [5.0, 1.0, 5.0, 5.0]], np.float32)


def test_illegal_actions_get_nothing():
    policy = masked_softmax(SCORES, LEGAL)
    assert not policy[~LEGAL].any()
    np.testing.assert_allclose(policy.sum(axis=1), 1.0)
    weights = np.exp([1.0, 3.0, 2.0])
    np.testing.assert_allclose(policy[0][LEGAL[0]], weights / weights.sum())
    assert greedy(SCORES, LEGAL).argmax(axis=1).tolist() == [2, 1]
    assert greedy(SCORES, None).argmax(axis=1).tolist() == [1, 0]
    assert best_values(SCORES, LEGAL).tolist() == [3.0, 1.0]
    explored = epsilon_greedy(SCORES, LEGAL, 0.3)
    np.testing.assert_allclose(explored, [[0.1, 0.0, 0.8, 0.1], [0.0, 1.0, 0.0, 0.0]])


def test_a_finished_game_has_a_value_all_the_same():
    assert np.isfinite(best_values(SCORES, np.zeros_like(LEGAL))).all()


def test_very_large_logits_stay_probabilities():
    policy = masked_softmax(np.array([[1e30, -1e30]], np.float32), None)
    assert policy.tolist() == [[1.0, 0.0]]
