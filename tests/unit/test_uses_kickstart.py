"""Kickstarting: what a student asks, and what its own loss imitates."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.config import StudentConfig
from tests.unit.advising_fakes import NUM_ENVS, NUM_STATES, NUM_STEPS, SAYS, THETA, Visitor
from tutor_service.errors import UserError

Student = partial(Visitor, "kickstart")


def test_the_tutors_whole_distribution_is_imitated_with_a_weight_that_falls_to_nothing() -> None:
    student = Student(use_options={"weight": 4.0})
    student.play()
    assert student.targets(3, 5) == pytest.approx(4.0 * (1.0 - 128 / THETA) * SAYS[[3, 5]], rel=1e-6)
    student.play(3)
    assert student.targets(3) == pytest.approx(4.0 * (1.0 - 512 / THETA) * SAYS[[3]], rel=1e-6)
    assert student.use.gauges()["advice/trust"] == pytest.approx(1.0 - 512 / THETA)
    student.play(4)
    assert not len(student.targets(3))


def test_nobody_is_asked_once_advice_weighs_nothing() -> None:
    student = Student(probability_final=1.0)
    student.play(8)
    asked = student.use.counters()["advice/consultations"]
    assert asked == 7 * NUM_STEPS * NUM_ENVS, "the eighth rollout ends behind θ"
    student.play(2)
    assert student.use.counters()["advice/consultations"] == asked


def test_states_that_were_never_asked_about_and_missed_ones_have_no_target() -> None:
    missing = SAYS.copy()
    missing[4] = np.nan
    student = Student(missing)
    assert not student.targets(0, 1).any()
    student.play()
    assert student.targets(0, 1).all() and not student.targets(4).any()


def test_a_budget_bounds_what_is_asked_and_what_was_told_counts_further() -> None:
    student = Student(advice_budget=100)
    student.play(4)
    assert student.use.counters()["advice/consultations"] == 100
    assert student.targets(*range(NUM_STATES)).any()


def test_advice_that_the_rule_does_not_follow_is_not_imitated() -> None:
    student = Student(rule="confidence", rule_options={"threshold": 0.6})
    student.play()
    followed = student.targets(*range(NUM_STATES)).any(axis=1)
    np.testing.assert_array_equal(followed, SAYS.max(axis=1) >= 0.6)
    assert 0 < followed.sum() < NUM_STATES


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"use_options": {"weight": 0.0}}, r"advice\.use_options\.weight"),
        ({"use_options": {"wieght": 1.0}}, r"advice\.use_options\.wieght.*weight"),
        ({"imitation": "all"}, r"advice\.imitation = 'all'.*'coin'"),
    ],
)
def test_what_it_cannot_honour_is_refused_by_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        AdviceConfig(use="kickstart", **fields)


@pytest.mark.parametrize("use", ["kickstart", "shape", "handover", "pool", "observe"])
@pytest.mark.parametrize("algorithm", ["dqn", "ppo", "a2c"])
def test_the_stock_rollout_is_refused(algorithm: Any, use: str) -> None:
    with pytest.raises(UserError, match=rf"advice\.use = '{use}' learns beside the lean rollout"):
        StudentConfig(
            algorithm=algorithm, task="blackjack", tutor="oracle", rollout="stock", advice=AdviceConfig(use=use)
        )
