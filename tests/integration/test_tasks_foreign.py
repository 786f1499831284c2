"""Other people's environments through whole trials: trained, checkpointed, restored in another trial, evaluated."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rllib_plugins.algorithms.registry import ALGORITHMS
from rllib_plugins.config import StudentConfig
from rllib_plugins.evaluation import random_return
from rllib_plugins.metrics import STEP_AXIS
from rllib_plugins.tasks import Task, load_task
from rllib_plugins.trial import StudentTrial, ensure_ray
from tests.integration.fresh_episodes import times_told
from tests.unit import drawn_tasks
from tests.unit import foreign_envs as foreign
from tutor_service.errors import UserError

TASKS = ("RebuiltTask", "LockedTask", "RaggedTask", "MaskedTask", "MaskedListTask", "SpokenTask")
NUM_ENVS = 4


@pytest.fixture(scope="module", autouse=True)
def _ray():
    started = not ray.is_initialized()
    ensure_ray()
    yield
    if started:
        ray.shutdown()


def config(task: str, **fields: Any) -> dict[str, Any]:
    steps = {"num_env_steps": 600, "eval_interval_steps": 200, "eval_episodes": 20, "num_envs": NUM_ENVS}
    return StudentConfig(task=f"tests.unit.foreign_envs:{task}", tutor="random", **(steps | fields)).model_dump()


@pytest.mark.parametrize(("algorithm", "rollout"), [("ppo", "lean"), ("dqn", "lean"), ("ppo", "stock")])
@pytest.mark.parametrize("task", TASKS)
def test_a_trial_on_a_foreign_environment_is_trained_and_restored(
    task: str, algorithm: str, rollout: str, tmp_path: Path
) -> None:
    """An illegal action raises in the masked ones."""
    foreign.CONSTRUCTED.clear()
    advice = {"trust": "fixed", "imitation": "off"} if rollout == "stock" else {}
    fields = config(task, algorithm=algorithm, rollout=rollout, advice=advice)
    trial = StudentTrial(config=fields)
    results = [trial.step() for _ in range(2)]
    trial.save_checkpoint(str(tmp_path))
    random_return(load_task(fields["task"]))
    trial.cleanup()
    assert 0 < sum(foreign.CONSTRUCTED.values()) <= 4 * NUM_ENVS
    restored = StudentTrial(config=fields)
    restored.load_checkpoint(str(tmp_path))
    while not results[-1]["done"]:
        results.append(restored.step())
    restored.cleanup()
    assert results[-1][STEP_AXIS] >= 600 and all(np.isfinite(r["eval/return_mean"]) for r in results)
    assert all(0 <= r["eval/time_share"] <= 1 for r in results)


def test_a_fresh_episode_in_a_restored_rollout_is_cut_as_by_a_time_limit(tmp_path: Path) -> None:
    fields = config("RebuiltTask", algorithm="a2c", num_env_steps=2_000, eval_interval_steps=100, eval_max_share=1.0)
    trial = StudentTrial(config=fields)
    for _ in range(2):
        trial.step()
    cursor = trial.algorithm.runner.cursor
    assert cursor % trial.algorithm.runner.rollout.num_steps, "in the middle of a rollout"
    trial.save_checkpoint(str(tmp_path))
    trial.cleanup()
    restored = StudentTrial(config=fields)
    restored.load_checkpoint(str(tmp_path))
    rollout = restored.algorithm.runner.rollout
    assert (rollout.terminated[cursor - 1] | rollout.truncated[cursor - 1]).all()
    assert np.isfinite(restored.step()["eval/return_mean"])
    restored.cleanup()


@pytest.mark.parametrize(("num_extra_steps", "num_told"), [(0, 1), (NUM_ENVS, 0)], ids=["between", "within"])
def test_a_use_is_told_of_fresh_episodes_that_begin_between_rollouts(
    num_extra_steps: int, num_told: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = config("LockedTask", algorithm="a2c", num_env_steps=2_000)
    assert times_told(fields, 3, num_extra_steps, tmp_path, monkeypatch) == num_told


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_rllib_s_own_evaluation_takes_legal_actions_alone(algorithm: str) -> None:
    fields = config("MaskedTask", algorithm=algorithm, rollout="stock", advice={"trust": "fixed", "imitation": "off"})
    wishes = set()
    for seed in range(4):  # an illegal action raises; greedy networks of some seeds wish for one
        trial = StudentTrial(config=fields | {"seed": seed})
        episodes = trial.algorithm.env_runner.sample(num_timesteps=100, explore=False)
        wishes |= {int(action) for episode in episodes for action in episode.get_actions()}
        trial.cleanup()
    assert wishes == {0, 1}


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(drawn=drawn_tasks.tasks(), algorithm=st.sampled_from(ALGORITHMS))
def test_a_drawn_task_that_is_not_refused_is_trained_restored_and_evaluated(drawn: type[Task], algorithm: Any) -> None:
    drawn_tasks.Drawn = drawn
    try:
        load_task(drawn_tasks.ADDRESS)
    except UserError:
        return
    student = {"task": drawn_tasks.ADDRESS, "tutor": "random", "num_envs": 2, "eval_episodes": 4}
    fields = StudentConfig(algorithm=algorithm, num_env_steps=200, eval_interval_steps=100, **student).model_dump()
    trial = StudentTrial(config=fields)
    results = [trial.step(), trial.step()]
    with tempfile.TemporaryDirectory() as folder:
        trial.save_checkpoint(folder)
        trial.reset_config(fields)
        trial.load_checkpoint(folder)
    while not results[-1]["done"]:
        results.append(trial.step())
    trial.cleanup()
    assert [result[STEP_AXIS] for result in results] == [0, 100, 200]
    assert all(np.isfinite(result["eval/return_mean"]) for result in results)
