"""A task that is drawn at random is refused in one line, or a student samples, is restored and evaluated on it."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings

from rllib_plugins.algorithms.registry import ALGORITHMS
from rllib_plugins.config import StudentConfig
from rllib_plugins.evaluation import evaluate
from rllib_plugins.rollout.env_runner import ArrayEnvRunner
from rllib_plugins.tasks import Task, load_task
from rllib_plugins.trial import algorithm_config
from tests.unit import drawn_tasks
from tutor_service.errors import UserError


def test_a_drawn_task_is_refused_in_one_line_or_works() -> None:
    outcomes: list[bool] = []

    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
    @given(drawn=drawn_tasks.tasks())
    def draw(drawn: type[Task]) -> None:
        outcomes.append(is_accepted(drawn, ALGORITHMS[len(outcomes) % len(ALGORITHMS)]))

    draw()
    assert any(outcomes) and not all(outcomes), "both outcomes were drawn"


def is_accepted(drawn: type[Task], algorithm: Any) -> bool:
    """Whether a task is not refused; one that is not has to work."""
    drawn_tasks.Drawn = drawn
    try:
        task = load_task(drawn_tasks.ADDRESS)
    except UserError as error:
        message = str(error)
        assert "\n" not in message and "task 'drawn'" in message and len(message) < 1_500
        return False
    student = StudentConfig(algorithm=algorithm, task=drawn_tasks.ADDRESS, tutor="random", num_envs=2)
    config = algorithm_config(student)
    runner, restored = (ArrayEnvRunner(config=config) for _ in range(2))
    runner.sample(5)
    restored.set_state(runner.get_state())
    for other in (runner, restored):
        start, stop = other.sample(5)
        assert stop > start and np.isfinite(other.rollout.observations[:stop]).all()
        other.stop()
    result = evaluate(task, task.uniform_policy, episodes=6, seed=1, num_envs=2)
    assert result == evaluate(task, task.uniform_policy, episodes=6, seed=1, num_envs=2)
    task.close()
    return True
