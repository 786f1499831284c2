"""Evaluation takes no more of a trial than it may, alike for all arms; and what returns are measured against."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rllib_plugins.evaluation import affordable_episodes, episode_length, evaluate
from rllib_plugins.evaluation_plan import LEAST_INTERVALS, EvaluationWish, plan_evaluation
from rllib_plugins.seeds import derive_seed, spawn_seeds
from rllib_plugins.tasks import Task, load_task
from rllib_plugins.yardsticks import trivial_players, untrained_returns
from tests.unit import foreign_envs as foreign

DEMO = EvaluationWish(num_env_steps=20_000, interval_steps=250, episodes=200, max_share=1 / 3)


class Episodes(Task):
    """A task whose episodes take as long as one says."""

    name = env_id = "episodes"

    def __init__(self, episode_steps: int) -> None:
        super().__init__()
        self.episode_steps = episode_steps


@given(
    length=st.integers(1, 5_000),
    num_env_steps=st.integers(100, 1_000_000),
    interval=st.integers(10, 5_000),
    episodes=st.integers(1, 500),
    share=st.floats(0.05, 1.0),
)
def test_no_more_is_evaluated_than_asked_for_or_allowed(
    length: int, num_env_steps: int, interval: int, episodes: int, share: float
) -> None:
    wish = EvaluationWish(num_env_steps, interval, episodes, share)
    plan = plan_evaluation(Episodes(length), wish)
    assert 1 <= plan.episodes <= episodes and plan.interval_steps >= interval and plan.interval_steps % interval == 0
    one_each = (LEAST_INTERVALS + 1) * length
    least = one_each / (one_each + num_env_steps)  # a trial too short for its episodes still has ten evaluations
    assert plan.share <= max(share, least) + 1e-9
    assert plan_evaluation(Episodes(length), wish._replace(max_share=1.0))[:2] == (interval, episodes)


def test_short_episodes_are_evaluated_as_wished_and_long_ones_less_and_more_seldom() -> None:
    assert plan_evaluation(Episodes(1), DEMO._replace(episodes=100))[:2] == (250, 100)
    fewer = plan_evaluation(Episodes(5), DEMO)
    assert fewer.interval_steps == 250 and 10 <= fewer.episodes < 200
    rarer = plan_evaluation(Episodes(200), DEMO)
    assert rarer.interval_steps == 2_000 and rarer.episodes < 10
    assert plan_evaluation(load_task("blackjack"), DEMO) == (250, 200, 0.0)  # exact


def test_the_length_of_an_episode_is_measured_and_a_time_limit_counts() -> None:
    task = foreign.task_of(foreign.Corridor)()
    assert 3 <= episode_length(task) <= 20 and episode_length(task) == episode_length(task)
    limited = foreign.task_of(foreign.Corridor, name="limited", env_kwargs={"max_episode_steps": 1_000})()
    assert episode_length(limited) == pytest.approx(10 * episode_length(task))
    assert affordable_episodes(task, 1_000, 400) == int(400 / episode_length(task))
    assert affordable_episodes(task, 1_000, 10) == 20


def test_evaluation_points_have_fresh_seeds_that_all_arms_share() -> None:
    task = load_task("snake")
    first, again, other = (
        evaluate(task, task.uniform_policy, episodes=50, seed=derive_seed(3, 1, step)) for step in (0, 0, 2_000)
    )
    assert first == again and first.return_mean != other.return_mean
    seeds = {derive_seed(trial, stream, step) for trial in range(50) for stream in (1, 2) for step in range(0, 100, 5)}
    assert len(seeds) == 50 * 2 * 20
    spawned = np.array([spawn_seeds(trial, 8) for trial in range(100)])
    assert len(np.unique(spawned)) == spawned.size


def test_trivial_players_come_best_first_with_constants_and_heuristics() -> None:
    snake = trivial_players(load_task("snake"))
    assert snake[0].name == "to the food" and snake[0].evaluation.return_mean > 9
    assert {"random", "always 'left'", "always 'straight'"} <= {player.name for player in snake}
    four = trivial_players(load_task("connect_four"))
    assert four[0].name == "win, block, else the middle" and four[0].evaluation.return_mean > 0.2
    assert four[1].evaluation.return_mean < -0.5  # a constant column loses against it


def test_untrained_networks_are_greedy_legal_and_differ() -> None:
    returns = untrained_returns(load_task("connect_four", opponent="random"), num_policies=8, episodes=100)
    assert returns.shape == (8,) and np.ptp(returns) > 0.1 and returns.mean() > 0.2
    np.testing.assert_array_equal(
        returns, untrained_returns(load_task("connect_four", opponent="random"), num_policies=8, episodes=100)
    )
