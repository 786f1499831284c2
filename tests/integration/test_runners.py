"""Students whose environments are stepped in several processes: the same experiment as in one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from rllib_plugins import metrics
from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.config import StudentConfig
from rllib_plugins.evaluation import random_return
from rllib_plugins.rollout import gathering
from rllib_plugins.rollout.gathering import GatheredRollout, OrderedEnvRunner
from rllib_plugins.sharing import explorer
from rllib_plugins.tasks import load_task
from rllib_plugins.trial import StudentTrial, algorithm_config, build_algorithm, ensure_ray, train
from tests.integration.fresh_episodes import times_told
from tutor_service.errors import UserError

NUM_RUNNERS = 2


@pytest.fixture(scope="module", autouse=True)
def local_ray():
    ensure_ray(num_cpus=4)
    yield
    ray.shutdown()


def student(num_env_runners: int = NUM_RUNNERS, **fields: Any) -> StudentConfig:
    defaults = {"algorithm": "ppo", "task": "blackjack", "num_env_steps": 2_000, "eval_interval_steps": 500, "seed": 3}
    return StudentConfig(num_env_runners=num_env_runners, **(defaults | fields))


def run(trial: StudentTrial, count: int) -> list[dict[str, Any]]:
    """Results without what depends on the clock."""
    clock = ("env_steps_per_s", "eval/time_share", "advice/latency_ms")
    return [{k: v for k, v in trial.step().items() if k not in clock} for _ in range(count)]


@pytest.mark.parametrize(("algorithm", "use"), [("ppo", "coin"), ("dqn", "coin"), ("a2c", "distil")])
def test_a_restored_trial_goes_on_as_if_never_stopped(algorithm: str, use: str, tmp_path: Path):
    advice = AdviceConfig(use=use, advice_budget=400)
    config = student(algorithm=algorithm, tutor="oracle", advice=advice).model_dump()
    trial = StudentTrial(config=config)
    whole = run(trial, 2)
    trial.save_checkpoint(str(tmp_path))
    whole += run(trial, 3)
    trial.cleanup()
    restored = StudentTrial(config=config)
    restored.load_checkpoint(str(tmp_path))
    again = run(restored, 3)
    restored.cleanup()
    np.testing.assert_equal(again, whole[2:])
    assert [result[metrics.STEP_AXIS] for result in whole] == [0, 504, 1_000, 1_504, 2_000]
    spent = [result["advice/consultations"] for result in whole]
    assert spent == sorted(spent) and 0 < spent[1] <= spent[-1] <= 400
    assert spent[-1] >= 398  # a consultation may be left with a runner that had no occasion


def test_runners_know_what_the_trial_knows():
    algorithm = build_algorithm(student(tutor="oracle", advice=AdviceConfig(use="coin", trust="fixed")))
    algorithm.train_to(1_024)
    algorithm.train_to(1_032)
    states = algorithm.env_runner_group.foreach_env_runner("get_state", local_env_runner=False)
    holder, rollout = algorithm.runner.core, algorithm.runner.rollout
    own = [state["core"]["counters"]["consultations"] for state in states]
    assert sum(own) == holder.num_consultations == algorithm.advice_counters()["advice/consultations"]
    assert min(own) > 100
    known = [len(state["core"]["dictionary"]["actions"]) for state in states]
    assert max(known) - min(known) <= 8 < min(known)  # what the last eight steps added
    assert [state["num_env_steps_sampled_lifetime"] for state in states] == [1_032] * 2
    assert not np.array_equal(rollout.observations[:, :4], rollout.observations[:, 4:])
    whole = np.concatenate([state["rollout"]["actions"] for state in states], axis=1)
    np.testing.assert_array_equal(rollout.actions, whole)
    algorithm.stop()


def test_the_gate_follows_the_trial_s_steps():
    results = train(student(tutor="oracle", advice=AdviceConfig(use="coin", trust="fixed", theta_frac=0.5)))
    gates = [result["advice/probability"] for result in results]
    expected = [max(0.1, 1.0 - 0.9 * step / 1_000) for step in (504, 1_000, 1_504, 2_000)]
    assert gates[1:] == pytest.approx(expected, abs=0.01)


def test_a_use_is_told_of_fresh_episodes_of_all_runners_that_begin_between_rollouts(tmp_path: Path, monkeypatch: Any):
    config = student(algorithm="a2c", task="tests.unit.foreign_envs:LockedTask", tutor="random").model_dump()
    assert times_told(config, 1, 0, tmp_path, monkeypatch) == 1


def test_a_trial_goes_on_from_its_checkpoint_when_a_runner_is_lost(tmp_path: Path):
    config = student(tutor="oracle").model_dump()
    trial = StudentTrial(config=config)
    run(trial, 2)
    trial.save_checkpoint(str(tmp_path))
    (pid, _) = trial.algorithm.env_runner_group.foreach_env_runner(lambda runner: os.getpid(), local_env_runner=False)
    os.kill(pid, 9)
    with pytest.raises((ray.exceptions.RayError, RuntimeError)):
        trial.step()
    trial.cleanup()
    restored = StudentTrial(config=config)
    restored.load_checkpoint(str(tmp_path))
    assert run(restored, 1)[0][metrics.STEP_AXIS] == 1_000
    restored.cleanup()


def test_more_runners_than_cpus_are_refused():
    with pytest.raises(UserError, match=r"num_env_runners = 8.*has 4"):
        train(student(8))


class InThisProcess:
    """RLlib's group of EnvRunners, without processes: many seeds in little time."""

    def __init__(self, config: Any) -> None:
        self.runners = [
            OrderedEnvRunner(config=config, worker_index=number) for number in range(1, config.num_env_runners + 1)
        ]

    def foreach_env_runner(self, method: str, kwargs: Any = None, local_env_runner: bool = False) -> list[Any]:
        several = kwargs if isinstance(kwargs, list) else [kwargs or {}] * len(self.runners)
        found = []
        for runner, given in zip(self.runners, several, strict=True):
            resolved = {k: ray.get(v) if isinstance(v, ray.ObjectRef) else v for k, v in given.items()}
            found.append(getattr(runner, method)(**resolved))
        return found


def results_of(config: StudentConfig) -> list[dict[str, Any]]:
    """Results of a trial, its runners in this process."""
    trial = StudentTrial(config=config.model_copy(update={"num_env_runners": 0}).model_dump())
    algorithm, several = trial.algorithm, algorithm_config(config)
    if config.num_env_runners:
        algorithm._gathered = GatheredRollout(several, InThisProcess(several))
        algorithm._gathered.follow(algorithm.learner.network.parameters)
        algorithm.advice = algorithm._make_use()
    results = run(trial, 1 + config.num_env_steps // config.eval_interval_steps)
    trial.cleanup()
    assert results[-1]["done"]
    return results


@pytest.mark.parametrize(
    ("algorithm", "use"), [("ppo", "coin"), ("dqn", "coin"), ("a2c", "distil"), ("ppo", "kickstart"), ("dqn", "shape")]
)
def test_with_the_same_random_streams_one_runner_is_one_process(algorithm: str, use: str, monkeypatch):
    fields = {"algorithm": algorithm, "tutor": "oracle+random:0.5", "advice": AdviceConfig(use=use, advice_budget=600)}
    alone = results_of(student(0, **fields))
    for module in (explorer, gathering):
        monkeypatch.setattr(module, "derive_seed", lambda seed, *path: seed)
    np.testing.assert_equal(results_of(student(1, **fields)), alone)


def returns(config: StudentConfig) -> list[float]:
    """Greedy returns after the first evaluation."""
    return [result["eval/return_mean"] for result in results_of(config)[1:]]


@pytest.mark.parametrize(("algorithm", "use"), [("ppo", "coin"), ("dqn", "coin"), ("a2c", "distil")])
def test_four_runners_learn_what_one_process_learns(algorithm: str, use: str):
    """Within the seeds' spread: the means of the mean returns differ by less than three of that difference's errors."""
    fields = {
        "algorithm": algorithm,
        "tutor": "oracle+random:0.5",
        "num_env_steps": 4_000,
        "eval_interval_steps": 1_000,
    }
    advice = AdviceConfig(use=use)
    one, four = (
        np.array([np.mean(returns(student(number, seed=seed, advice=advice, **fields))) for seed in range(6)])
        for number in (0, 4)
    )
    error = np.sqrt(one.var(ddof=1) / len(one) + four.var(ddof=1) / len(four))
    assert abs(one.mean() - four.mean()) < 3 * error
    assert min(one.mean(), four.mean()) > random_return(load_task("blackjack"))
