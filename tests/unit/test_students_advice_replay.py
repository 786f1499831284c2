"""Advice that is imitated again: what is remembered, and how often it is learnt from."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from rllib_plugins.advising.config import PAPER_ADVICE, AdviceConfig
from rllib_plugins.algorithms.advice_replay import BATCH, AdviceMemory, AdviceReplay
from rllib_plugins.rollout.arrays import RolloutArrays


class Learner:
    """Takes the steps that it is given until it follows the advice."""

    def __init__(self, follows_after: int = 10**9) -> None:
        self.samples: list[np.ndarray] = []
        self._follows_after = follows_after

    def imitate_again(self, sample, goal) -> bool:
        if len(self.samples) >= self._follows_after:
            return False
        self.samples.append(sample.observations[:, 0].copy())
        return True


def rollout(first: int = 0, *, every: int = 1, num_steps: int = 16) -> RolloutArrays:
    """Numbered steps of 4 environments, every so many of them advised."""
    made = RolloutArrays.allocate((num_steps, 4), 2, 3, for_replay=False, with_advice=True, with_masks=True)
    numbers = np.arange(first, first + 4 * num_steps).reshape(num_steps, 4)
    made.observations[:] = numbers[..., None]
    made.consulted[:] = numbers % every == 0
    made.advice[:] = np.eye(3)[numbers % 3]
    made.legal[:] = made.advice > 0
    return made


def replay(max_gradient_steps: int = 100, seed: int = 0) -> AdviceReplay:
    return AdviceReplay(AdviceMemory(2, 3, with_masks=True, seed=seed), max_gradient_steps, 0.8)


def add(made: AdviceReplay, steps: RolloutArrays) -> None:
    """As a trial does, which has counted the consultations."""
    made.add(steps, made.get_state()["num_consultations"] + int(steps.consulted.sum()))


def test_the_memory_holds_the_newest_advised_steps():
    memory = AdviceMemory(2, 3, with_masks=True, seed=0, capacity=40)
    assert [memory.add(rollout(64 * block, every=4)) for block in range(4)] == [16] * 4
    assert len(memory) == 40
    sample = memory.sample(2_000)
    numbers = sample.observations[:, 0].astype(int)
    assert set(numbers) == set(range(256 - 40 * 4, 256, 4))
    np.testing.assert_array_equal(sample.advice, np.eye(3)[numbers % 3])
    np.testing.assert_array_equal(sample.legal, sample.advice > 0)


def test_more_than_fits_at_once_leaves_the_newest():
    memory = AdviceMemory(2, 3, with_masks=False, seed=0, capacity=10)
    memory.add(rollout(num_steps=8))
    sample = memory.sample(500)
    assert set(sample.observations[:, 0]) == set(range(22, 32)) and not len(sample.legal)


@pytest.mark.parametrize(("passes", "steps"), [(0.0, 0), (1.0, 1), (0.5, 0), (16.0, 16)])
def test_gradient_steps_follow_what_is_new(passes: float, steps: int):
    learner, made = Learner(), replay()
    add(made, rollout())
    made.learn(learner, passes)
    assert len(learner.samples) == steps
    made.learn(learner, passes)
    assert len(learner.samples) == steps, "nothing is new"


def test_steps_without_a_new_consultation_are_not_looked_at():
    learner, made = Learner(), replay()
    for num_consultations in (7, 7, 9):
        made.add(rollout(), num_consultations)
        made.learn(learner, 1.0)
    assert len(learner.samples) == 2


def test_parts_of_a_step_add_up():
    learner, made = Learner(), replay()
    for block in range(8):
        add(made, rollout(64 * block, every=4))
        made.learn(learner, 1.0)
    assert len(learner.samples) == 8 * 16 // BATCH


def test_it_ends_where_the_student_follows_and_after_so_many_steps():
    learner, made = Learner(follows_after=3), replay()
    add(made, rollout())
    made.learn(learner, 10.0)
    assert len(learner.samples) == 3
    assert made.get_state()["patience"] == 4, "the next look is further off"
    learner, made = Learner(), replay(max_gradient_steps=5)
    for _ in range(3):
        add(made, rollout())
        made.learn(learner, 4.0)
    assert len(learner.samples) == 5


def test_what_is_followed_is_looked_at_ever_less_often():
    class Settled(Learner):
        looks = 0

        def imitate_again(self, sample, goal) -> bool:
            self.looks += 1
            return False

    learner, made = Settled(), replay()
    for _ in range(1_000):
        add(made, rollout())
        made.learn(learner, 1.0)
    assert learner.looks == 4 + (1_000 - 85) // 256  # after 1, 4, 16 and 64 more, then every 256
    keen = Learner()
    while not keen.samples:
        add(made, rollout())
        made.learn(keen, 1.0)
    assert len(keen.samples) == 1, "what was skipped is not made up for"


def test_a_restored_replay_goes_on_as_if_never_stopped():
    one, other = replay(), replay(seed=9)
    learners = Learner(), Learner()
    add(one, rollout(every=3))
    one.learn(learners[0], 3.5)
    add(one, rollout(64))
    other.set_state(one.get_state())
    learners[0].samples.clear()
    for made, learner in zip((one, other), learners, strict=True):
        add(made, rollout(128))
        made.learn(learner, 3.5)
    np.testing.assert_array_equal(learners[0].samples, learners[1].samples)
    assert learners[0].samples


@pytest.mark.parametrize(
    ("tutor", "advice"),
    [
        ("none", AdviceConfig()),
        ("oracle", PAPER_ADVICE),
        ("oracle", AdviceConfig(imitation_replay=0)),
        ("oracle", AdviceConfig(imitation="all")),
        ("oracle", AdviceConfig(trust="fixed")),
    ],
)
def test_without_measured_effect_nothing_is_imitated_again(tutor: str, advice: AdviceConfig):
    config, learner = SimpleNamespace(tutor=tutor, advice=advice, seed=0), Learner()
    made = AdviceReplay.for_rollout(config, rollout())
    add(made, rollout())
    made.learn(learner, 100.0)
    assert not learner.samples
