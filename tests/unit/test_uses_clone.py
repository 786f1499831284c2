"""Cloning: what a student asks and imitates that learns nothing from reward."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box

from rllib_plugins.advising.advisor import AdviceBatch, Advisor
from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.advising.llm import LLMAdvisor, Reading
from rllib_plugins.config import StudentConfig
from rllib_plugins.metrics import Source
from rllib_plugins.rollout.arrays import RolloutArrays
from rllib_plugins.tasks import Task, load_task
from rllib_plugins.uses.base import UseContext
from rllib_plugins.uses.options import make_use
from tutor_service.client import ClientStats
from tutor_service.errors import UserError
from tutor_service.schema import Advice

NUM_STEPS, NUM_ENVS, NUM_ACTIONS = 16, 8, 2


class Told(Advisor):
    """Says what a function of the observations says."""

    def __init__(self, says: Any) -> None:
        super().__init__(load_task("blackjack"), Source.MODEL)
        self._says = says

    def evaluate(self, observations: Any) -> AdviceBatch:
        rows = np.asarray(self._says(observations), dtype=np.float64)
        return AdviceBatch(rows, np.full(len(rows), Source.MODEL, np.int8))


class Learner:
    """Keeps what gradient steps were about."""

    def __init__(self) -> None:
        self.samples: list[Any] = []

    def imitate_again(self, sample: Any, goal: Any) -> bool:
        self.samples.append(sample)
        return True


class Student:
    """Acts at random in random states."""

    def __init__(self, tutor: Any, **advice: Any) -> None:
        self._rng = np.random.default_rng(0)
        rollout = RolloutArrays.allocate(
            (NUM_STEPS, NUM_ENVS), 3, NUM_ACTIONS, for_replay=False, with_advice=False, with_masks=False
        )
        self.runner = SimpleNamespace(rollout=rollout, num_env_steps_sampled_lifetime=0)
        config = SimpleNamespace(
            advice=AdviceConfig(use="clone", **advice), seed=0, theta_steps=1_000.0, value_based=False
        )
        self.learner = Learner()
        use = make_use("clone", config.advice.use_options)
        advisor = tutor if isinstance(tutor, Advisor) else Told(tutor)
        self.use = use.make(UseContext(config, self.runner, advisor))  # type: ignore[arg-type]

    def play(self, num_rollouts: int = 1) -> None:
        rollout, shape = self.runner.rollout, (NUM_STEPS, NUM_ENVS)
        for _ in range(num_rollouts):
            rollout.observations[:] = np.round(self._rng.uniform(-1, 1, (*shape, 3)), 1)
            rollout.actions[:] = self._rng.integers(NUM_ACTIONS, size=shape)
            self.runner.num_env_steps_sampled_lifetime += rollout.rewards.size
            self.use.remember()
            step = self.runner.num_env_steps_sampled_lifetime
            self.use.imitate(self.learner, step, self.use.weights(step))


def by_state(observations: Any) -> Any:
    return np.eye(2)[(observations[:, 1] > 0).astype(int)]


def test_the_best_guess_is_imitated_without_any_evidence() -> None:
    student = Student(lambda states: 0.45 + 0.1 * by_state(states))
    student.play(2)
    assert len(student.learner.samples) == 2 * NUM_STEPS * NUM_ENVS * 60 // 256
    sample = student.learner.samples[-1]
    assert (sample.advice == by_state(sample.observations)).all()
    assert not student.use.learns_from_reward
    assert student.use.gauges()["advice/agreement"] == pytest.approx(0.5, abs=0.1)


def test_it_asks_as_often_as_another_student_may() -> None:
    student = Student(by_state, probability_final=0.0)
    student.play(8)
    asked = student.use.counters()["advice/consultations"]
    assert 400 < asked < 700, "P falls from 1 to 0 over 1,000 of the 1,024 env steps"
    bounded = Student(by_state, advice_budget=100)
    bounded.play(8)
    assert bounded.use.counters()["advice/consultations"] == 100
    assert len(bounded.learner.samples) > 100, "what was told is imitated further"


def test_advice_without_a_guess_and_advice_that_the_rule_does_not_follow_are_not_imitated() -> None:
    undecided = Student(lambda states: np.full((len(states), 2), 0.5))
    unsure = Student(lambda states: 0.3 + 0.4 * by_state(states), rule="confidence", rule_options={"threshold": 0.8})
    for student in (undecided, unsure):
        student.play(2)
        assert not student.learner.samples
        assert student.use.counters()["advice/consultations"] > 0


class Plane(Task):
    """Has the student's random states."""

    name, rules, actions = "plane", "Go to the edge.", ("left", "right")
    raw_observation_space = Box(-1.0, 1.0, (3,))

    def legal(self, observation: Any) -> Any:
        return np.ones(2, dtype=bool)

    def describe(self, observation: Any) -> str:
        return f"{observation[1]}"


class Sure:
    """Answers "right" on the right with a probability, and is never sure on the left."""

    stats = ClientStats()

    def advise(self, requests: Any) -> list[Advice]:
        rows = [(0.1, 0.9) if float(request.state) > 0 else (0.6, 0.4) for request in requests]
        return [Advice(row, 0.9, "model", 5.0) for row in rows]


@pytest.mark.parametrize("advice", ["best", "sampled"])
def test_how_sure_an_llm_is_counts_whatever_of_its_distribution_is_followed(advice: Any) -> None:
    llm = LLMAdvisor(Plane(), Sure(), Reading(advice=advice))  # type: ignore[arg-type]
    student = Student(llm, rule="confidence", rule_options={"threshold": 0.8})
    student.play(2)
    told = np.concatenate([sample.observations for sample in student.learner.samples])
    assert (told[:, 1] > 0).all()


def test_the_stock_rollout_has_no_clones() -> None:
    with pytest.raises(UserError, match="'clone' learns beside the lean rollout"):
        StudentConfig(
            algorithm="ppo", task="blackjack", tutor="oracle", rollout="stock", advice=AdviceConfig(use="clone")
        )
