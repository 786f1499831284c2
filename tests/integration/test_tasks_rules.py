"""The games at length: rules against independent implementations, reference players at their full strength."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from rllib_plugins.envs.connect_four import ConnectFourEnv
from rllib_plugins.envs.connect_four_vector import ConnectFourVectorEnv
from rllib_plugins.evaluation import evaluate, random_return
from rllib_plugins.tasks import load_task
from tests.unit.connect_four_peer import Peer, replay_single, replay_vector


def test_ten_thousand_games_of_connect_four_follow_pettingzoo() -> None:
    peer = Peer()
    for opponent in ("random", "greedy"):
        replay_single(peer, ConnectFourEnv(opponent=opponent), num_games=2_500, seed=1)
        replay_vector(peer, ConnectFourVectorEnv(64, opponent=opponent), num_games=2_500, seed=1)
    assert peer.num_games >= 10_000


def test_perfect_play_beats_every_opponent_when_it_begins() -> None:
    for opponent in ("random", "greedy"):
        task = load_task("connect_four", opponent=opponent, first="student")
        assert evaluate(task, task.oracle_batch, episodes=15, seed=0).return_mean == 1.0
    task = load_task("connect_four", opponent="perfect", error_rate=0.3, first="random")
    assert evaluate(task, task.oracle_batch, episodes=20, seed=0).return_mean > 0.5


def test_perfect_play_against_perfect_play_is_won_by_who_begins() -> None:
    for first, result in (("student", 1.0), ("opponent", -1.0)):
        task = load_task("connect_four", opponent="perfect", first=first)
        assert evaluate(task, task.oracle_batch, episodes=2, seed=0).return_mean == result


def test_snakes_safe_path_fills_six_by_six() -> None:
    task = load_task("snake", observation="grid")
    result = evaluate(task, task.oracle_batch, episodes=100, seed=3)
    assert (result.return_mean, result.return_std) == (33.0, 0.0)


def test_the_blackjack_oracle_plays_gymnasiums_own_game_to_its_exact_value() -> None:
    task = load_task("blackjack")
    exact = evaluate(task, task.oracle_batch, episodes=1, seed=0)
    env = gym.make("Blackjack-v1", natural=False, sab=False)
    returns = []
    observation, _ = env.reset(seed=0)
    while len(returns) < 30_000:
        observation, reward, terminated, _, _ = env.step(int(task.oracle(observation).argmax()))
        if terminated:
            returns.append(reward)
            observation, _ = env.reset()
    assert abs(np.mean(returns) - exact.return_mean) < 4 * exact.return_std / np.sqrt(len(returns))


def test_the_blackjack_vector_deals_as_gymnasium_deals() -> None:
    """The same random play on both: shares of (sum, usable ace, reward) after the first action agree."""
    num_hands = 30_000
    rng = np.random.default_rng(0)
    env = gym.make("Blackjack-v1", natural=False, sab=False)
    env.reset(seed=0)
    theirs = []
    for action in rng.integers(2, size=num_hands).tolist():
        env.reset()
        (total, _, ace), reward, *_ = env.step(action)
        theirs.append((action, total, ace, reward))
    envs = load_task("blackjack").make_native_vec(num_hands)
    envs.reset(seed=0)
    actions = rng.integers(2, size=num_hands)
    (total, _, ace), rewards, ended, _, infos = envs.step(actions)
    final_total, _, final_ace = infos["final_obs"]
    ours = list(
        zip(
            actions.tolist(),
            np.where(ended, final_total, total).tolist(),
            np.where(ended, final_ace, ace).tolist(),
            rewards.tolist(),
            strict=True,
        )
    )
    for outcome in set(theirs) | set(ours):
        a, b = theirs.count(outcome), ours.count(outcome)
        assert abs(a - b) < 5 * np.sqrt(a + b + 1), outcome


@pytest.mark.parametrize("task_name", ["blackjack", "snake", "connect_four"])
def test_single_and_vector_environments_are_worth_the_same_to_a_random_student(task_name: str) -> None:
    task = load_task(task_name)
    env = task.make()
    rng = np.random.default_rng(0)
    returns = []
    flat, _ = env.reset(seed=0)
    total = 0.0
    while len(returns) < 4_000:
        flat, reward, terminated, truncated, _ = env.step(
            int(rng.choice(np.flatnonzero(task.legal(task.raw_observation(flat)))))
        )
        total += float(reward)
        if terminated or truncated:
            returns.append(total)
            total = 0.0
            flat, _ = env.reset()
    assert abs(np.mean(returns) - random_return(task)) < 5 * np.std(returns) / np.sqrt(len(returns))
