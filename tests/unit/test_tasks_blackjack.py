"""Blackjack's exact figures against a table from the literature, brute force and play."""

from __future__ import annotations

import numpy as np
import pytest

from rllib_plugins.envs import blackjack_odds as odds
from rllib_plugins.evaluation import evaluate, random_return
from rllib_plugins.tasks import Task, load_task
from tutor_service.errors import UserError

TASK = load_task("blackjack")


class PlayedOut(type(TASK)):  # type: ignore[misc]
    """Blackjack without its exact evaluation."""

    exact_return = Task.exact_return


def always(action: int):
    return lambda rows: np.eye(2)[np.full(len(rows), action)]


def test_the_optimal_value_is_the_known_one() -> None:
    exact = evaluate(TASK, TASK.oracle_batch, episodes=1, seed=0)
    assert exact.exact and exact.num_episodes == 0
    assert exact.return_mean == pytest.approx(-0.04656, abs=5e-6)
    start = (odds.start_probabilities() * odds.optimal_action_values().max(axis=-1)).sum()
    assert start == pytest.approx(exact.return_mean, abs=1e-12)


def test_there_are_280_decisions_and_all_odds_sum_to_one() -> None:
    assert len(np.unique(odds.states(), axis=0)) == odds.NUM_STATES == 280
    assert odds.start_probabilities().sum() == pytest.approx(1)
    assert odds.dealer_scores().sum(axis=1) == pytest.approx(np.ones(10))
    win, lose = odds.stick_outcomes()
    assert ((win >= 0) & (lose >= 0) & (win + lose <= 1 + 1e-12)).all()
    assert (odds.hit_transitions()[:10].sum(axis=1) < 1).all()  # hard 21 to 12 can go bust


def test_basic_strategy_is_the_published_one() -> None:
    """Infinite deck, dealer stands on soft 17, no doubling or splitting (Sutton & Barto, figure 5.2)."""
    for dealer in range(1, 11):
        weak = 2 <= dealer <= 6
        for total in range(4, 22):
            sticks = total >= 17 or (13 <= total <= 16 and weak) or (total == 12 and 4 <= dealer <= 6)
            assert TASK.oracle((total, dealer, 0)).argmax() == (odds.STICK if sticks else odds.HIT)
        for total in range(12, 22):
            sticks = total >= 19 or (total == 18 and 2 <= dealer <= 8)
            assert TASK.oracle((total, dealer, 1)).argmax() == (odds.STICK if sticks else odds.HIT)


def test_no_single_change_of_the_oracle_is_better() -> None:
    table = TASK.oracle_batch(TASK._states)[:, odds.HIT].reshape(28, 10)
    best = odds.policy_return(table)[0]
    for i in range(0, 28, 3):
        for j in range(0, 10, 3):
            other = table.copy()
            other[i, j] = 1 - other[i, j]
            assert odds.policy_return(other)[0] < best + 1e-15


@pytest.mark.parametrize("policy", [always(0), TASK.oracle_batch, TASK.uniform_policy])
def test_exact_evaluation_is_what_play_comes_to(policy) -> None:
    exact = evaluate(TASK, policy, episodes=1, seed=0)
    played = evaluate(PlayedOut(), policy, episodes=100_000, seed=1)
    assert exact.exact and not played.exact
    assert abs(played.return_mean - exact.return_mean) < 4 * exact.return_std / np.sqrt(played.num_episodes)
    assert played.return_std == pytest.approx(exact.return_std, abs=0.01)


def test_always_hitting_always_loses() -> None:
    assert evaluate(TASK, always(1), episodes=1, seed=0).return_mean == pytest.approx(-1)
    assert evaluate(TASK, always(1), episodes=1, seed=0).return_std == pytest.approx(0, abs=1e-6)
    assert random_return(TASK) == pytest.approx(-0.3959, abs=5e-5)


def test_the_vector_deals_every_card_as_often_as_an_endless_deck() -> None:
    envs = TASK.make_native_vec(40_000)
    (total, dealer, ace), _ = envs.reset(seed=0)
    index = {hand: i for i, hand in enumerate(odds.HANDS)}
    hands = [index[hand] for hand in zip(total.tolist(), ace.tolist(), strict=True)]
    counts = np.zeros((28, 10))
    np.add.at(counts, (hands, dealer - 1), 1)
    expected = odds.start_probabilities() * 40_000
    assert ((counts - expected) ** 2 / np.maximum(expected, 1e-9))[expected > 5].sum() < 400  # χ², 280 cells
    (after, dealer_after, ace_after), rewards, ended, _, infos = envs.step(np.ones(40_000, dtype=int))
    final = infos["final_obs"]
    assert (final[0][ended] > 21).all() and (rewards == -1.0 * ended).all()
    assert (dealer_after[~ended] == dealer[~ended]).all()
    drawn = (after - total)[~ended & (ace == ace_after)]
    assert set(drawn.tolist()) <= set(range(1, 11))


def test_words_name_the_ace_and_nothing_hidden() -> None:
    assert TASK.describe((13, 1, 0)) == "Your total: 13 (no usable ace). The dealer shows: ace."
    assert TASK.describe((18, 10, 1)) == "Your total: 18 (with a usable ace). The dealer shows: 10."


def test_encoding_is_invertible_over_all_observations() -> None:
    for total in range(32):
        for dealer in range(1, 11):
            for ace in (0, 1):
                assert TASK.unflatten(TASK.encode((total, dealer, ace))) == (total, dealer, ace)


def test_impossible_hands_are_refused() -> None:
    for observation in ((40, 3, 0), (12, 0, 0), (12, 3, 2), (float("nan"), 3, 0)):
        with pytest.raises(UserError, match="no hand"):
            TASK.describe(observation)
