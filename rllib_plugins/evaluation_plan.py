"""Plan when and how long a trial is evaluated, so that evaluation stays a bounded share of it."""

from __future__ import annotations

import math
from typing import NamedTuple

from rllib_plugins.config import StudentConfig
from rllib_plugins.evaluation import episode_length
from rllib_plugins.tasks.base import Task

LEAST_EPISODES = 10
"""Episodes of an evaluation are cut down to this many first."""

LEAST_INTERVALS = 10
"""Then evaluations are made rarer, down to this many in a trial; only then episodes are cut further."""

NATIVE_COST = 0.03
"""What an env step of an evaluation costs where the environments are array code, in env steps of training.

Between PPO's, whose training costs most per env step, and A2C's, on Snake and Connect Four.
"""


class EvaluationPlan(NamedTuple):
    """When and how long a trial is evaluated.

    Attributes:
        interval_steps: Env steps between evaluations.
        episodes: Episodes per evaluation; without meaning where evaluation is exact.
        share: Expected share of evaluation in the trial's work, in env steps of training.
    """

    interval_steps: int
    episodes: int
    share: float


class EvaluationWish(NamedTuple):
    """What was asked for.

    Attributes:
        num_env_steps: Env steps that the trial trains for.
        interval_steps: Env steps between evaluations.
        episodes: Episodes per evaluation.
        max_share: Largest share of evaluation in training and evaluation together; 1: as asked for, whatever it takes.
    """

    num_env_steps: int
    interval_steps: int
    episodes: int
    max_share: float


def evaluation_wish(student: StudentConfig) -> EvaluationWish:
    """Return what a trial's config asks for."""
    return EvaluationWish(
        student.num_env_steps, student.eval_interval_steps, student.eval_episodes, student.eval_max_share
    )


def plan_evaluation(task: Task, wish: EvaluationWish) -> EvaluationPlan:
    """Return the evaluations of a trial: as wished, or fewer where they would take more than ``max_share`` of it.

    The plan follows from the task and the numbers alone, so it is the same for every arm of a comparison.

    Example:
        >>> from rllib_plugins.tasks import load_task
        >>> lake = load_task("examples.frozen_lake:FrozenLakeTask")
        >>> wish = EvaluationWish(num_env_steps=20_000, interval_steps=250, episodes=200, max_share=1.0)
        >>> plan_evaluation(lake, wish).episodes
        200
        >>> plan_evaluation(lake, wish._replace(max_share=1 / 3)).share < 0.34
        True

    Args:
        task: The task; its episodes are measured (``episode_length``).
        wish: What was asked for.
    """
    num_env_steps, interval_steps, episodes, max_share = wish
    if task.is_exact:
        return EvaluationPlan(interval_steps, episodes, 0.0)
    cost = episode_length(task) * (NATIVE_COST if task.is_native else 1.0)

    def planned(interval: int, count: int) -> EvaluationPlan:
        work = _num_points(num_env_steps, interval) * count * cost
        return EvaluationPlan(interval, count, work / (work + num_env_steps))

    wished = planned(interval_steps, episodes)
    if wished.share <= max_share:
        return wished
    affordable = num_env_steps * max_share / (1.0 - max_share) / cost
    fewer = max(min(episodes, LEAST_EPISODES), _rounded(affordable / _num_points(num_env_steps, interval_steps)))
    if planned(interval_steps, fewer).share <= max_share:
        return planned(interval_steps, fewer)
    most_points = max(LEAST_INTERVALS + 1, int(affordable / fewer))
    interval = interval_steps * math.ceil(num_env_steps / (most_points - 1) / interval_steps)
    return planned(interval, max(1, min(fewer, _rounded(affordable / _num_points(num_env_steps, interval)))))


def _num_points(num_env_steps: int, interval_steps: int) -> int:
    """Return the number of evaluations, that before training included."""
    return 1 + math.ceil(num_env_steps / interval_steps)


def _rounded(episodes: float) -> int:
    """Round down to two significant digits, so that small differences in what was measured play no part."""
    if episodes < 1:
        return 0
    unit: int = max(1, 10 ** (math.floor(math.log10(episodes)) - 1))
    return int(episodes / unit) * unit
