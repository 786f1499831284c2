"""Shaping: what a tutor's opinion of an action adds to its reward."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.rollout.arrays import RolloutArrays
from rllib_plugins.rollout.replay import ArrayReplayBuffer, gather
from tests.unit.advising_fakes import NUM_ENVS, NUM_STATES, NUM_STEPS, SAYS, THETA, Visitor
from tutor_service.errors import UserError

Student = partial(Visitor, "shape")


def test_an_action_earns_what_the_tutor_gives_it_above_a_uniform_ones_share() -> None:
    student = Student(use_options={"weight": 2.0})
    assert not student.rewards([3, 5], [0, 2]).any(), "nobody was asked yet"
    student.play()
    expected = 2.0 * (1.0 - 128 / THETA) * (SAYS[[3, 5], [0, 2]] - 1 / 3)
    assert student.rewards([3, 5], [0, 2]) == pytest.approx(expected, rel=1e-5)
    assert student.use.gauges()["advice/trust"] == pytest.approx(1.0 - 128 / THETA)


def test_only_legal_actions_share_the_uniform_part() -> None:
    says = np.tile([0.5, 0.5, 0.0], (NUM_STATES, 1))
    legal = np.tile([True, True, False], (NUM_STATES, 1))
    student = Student(says, legal)
    student.play()
    assert not student.rewards([0, 1], [0, 1]).any(), "a tutor that prefers nothing adds nothing"


def test_nothing_is_left_of_it_from_theta_on_and_nobody_is_asked() -> None:
    student = Student(probability_final=1.0)
    student.play(8)
    asked = student.use.counters()["advice/consultations"]
    assert asked == 7 * NUM_STEPS * NUM_ENVS, "the eighth rollout ends behind θ"
    assert not student.rewards([0, 1], [0, 1]).any()


def test_missed_advice_adds_nothing_and_a_budget_bounds_what_is_asked() -> None:
    missing = SAYS.copy()
    missing[4] = np.nan
    student = Student(missing, advice_budget=100)
    student.play(4)
    assert not student.rewards([4, 4, 4], [0, 1, 2]).any()
    assert student.use.counters()["advice/consultations"] == 100


def test_replayed_rewards_are_the_kept_ones_and_what_advice_adds_now() -> None:
    rollout = RolloutArrays.allocate((4, 2), 1, 3, for_replay=True, with_advice=False, with_masks=False)
    rollout.rewards[:] = np.arange(8, dtype=np.float32).reshape(4, 2)
    buffer = ArrayReplayBuffer(8, 1, seed=0)
    buffer.add(rollout, 0, 4)
    drawn = buffer.draw(16)
    kept = gather(drawn).rewards
    np.testing.assert_array_equal(kept, drawn.places)
    added = gather(drawn._replace(rewards=np.full(16, 0.5, np.float32))).rewards
    np.testing.assert_array_equal(added, kept + 0.5)
    np.testing.assert_array_equal(gather(drawn).rewards, kept, "what is kept does not change")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"use_options": {"weight": 0.0}}, r"advice\.use_options\.weight"),
        ({"imitation": "all"}, r"advice\.imitation = 'all'.*'coin'"),
    ],
)
def test_what_it_cannot_honour_is_refused_by_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        AdviceConfig(use="shape", **fields)
