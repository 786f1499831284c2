"""Handover: whose an episode's steps are, and how the tutor's part shrinks."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.advising.explorer import Explorer
from rllib_plugins.uses.handover import Curriculum, HandoverExplorer
from rllib_plugins.uses.options import Handover, make_use
from tests.unit.advising_fakes import TableAdvisor, states
from tutor_service.errors import UserError

NUM_ENVS = 4
SAYS = np.eye(3)[[0, 1, 2, 0, 1]]
OWN = np.array([[0.2, 0.3, 0.5]] * NUM_ENVS)


def make_explorer(says: Any = SAYS, *, advice: dict[str, Any] | None = None, **options: Any) -> HandoverExplorer:
    config = AdviceConfig(use="handover", use_options=options, **advice or {})
    use = make_use("handover", config.use_options)
    made = use.explorer()(config, num_actions=3, theta_steps=100.0, advisor=TableAdvisor(says, keeps=True), seed=1)
    assert isinstance(made, HandoverExplorer)
    return made


def step(explorer: Explorer, t: int, *, ended: list[int] = [], reward: float = 1.0) -> Any:  # noqa: B006
    decision = explorer.act(states(*(np.arange(NUM_ENVS) % len(SAYS))), OWN, step=t * NUM_ENVS)
    explorer.note_step(np.full(NUM_ENVS, reward), np.isin(np.arange(NUM_ENVS), ended))
    return decision


def test_the_tutor_takes_the_first_steps_of_each_episode_and_the_student_the_rest() -> None:
    explorer = make_explorer(horizon=3, episodes=50)
    consulted = [step(explorer, t, ended=[1] if t == 4 else []).consulted.tolist() for t in range(9)]
    first = [[True] * 4] * 3 + [[False] * 4] * 2
    assert consulted == first + [[False, True, False, False]] * 3 + [[False] * 4]
    assert explorer.counters()["advice/consultations"] == 15 == explorer.num_tutor_steps


def test_the_tutors_steps_are_weighted_as_its_own() -> None:
    explorer = make_explorer(horizon=1, episodes=50)
    decision = step(explorer, 0)
    np.testing.assert_array_equal(decision.actions, [0, 1, 2, 0])
    np.testing.assert_allclose(decision.behaviour, 1.0)
    np.testing.assert_allclose(decision.policy, [0.2, 0.3, 0.5, 0.2])
    decision = step(explorer, 1)
    np.testing.assert_array_equal(decision.behaviour, decision.policy)
    assert not explorer.imitation(0).better, "nothing is imitated"


def test_the_part_shrinks_to_nothing_while_returns_hold_and_no_tutor_is_asked_any_more() -> None:
    explorer = make_explorer(horizon=4, stages=2, episodes=NUM_ENVS)
    everywhere, shares = list(range(NUM_ENVS)), []
    for t in range(4):
        step(explorer, t, ended=everywhere)
        shares.append(explorer.gauges()["advice/trust"])
    assert shares == [0.5, 0.0, 0.0, 0.0], "each stage took one episode in each environment"
    asked = explorer.counters()["advice/consultations"]
    step(explorer, 9)
    assert explorer.counters()["advice/consultations"] == asked


def test_episodes_that_began_in_an_earlier_stage_do_not_count() -> None:
    explorer = make_explorer(horizon=4, stages=4, episodes=2)
    step(explorer, 0, ended=[0, 1])
    assert explorer.gauges()["advice/trust"] == 0.75
    step(explorer, 1, ended=[2, 3])
    assert explorer.gauges()["advice/trust"] == 0.75, "these began with the whole part"
    step(explorer, 2, ended=[0, 1])
    assert explorer.gauges()["advice/trust"] == 0.5


def test_a_missed_state_and_a_spent_budget_leave_the_step_to_the_student() -> None:
    missing = SAYS.copy()
    missing[1] = np.nan
    decision = step(make_explorer(missing, horizon=5), 0)
    assert decision.consulted.tolist() == [True, False, True, True]
    assert decision.behaviour[1] == decision.policy[1]
    bounded = make_explorer(horizon=5, advice={"advice_budget": 6})
    assert sum(int(step(bounded, t).consulted.sum()) for t in range(4)) == 6


def test_a_restored_explorer_goes_on_as_if_never_stopped() -> None:
    one, other = make_explorer(horizon=3, episodes=2), make_explorer(horizon=3, episodes=2)
    ends = [[], [2], [0, 1], [], [3], [0], [], [1, 2]]
    for t in range(4):
        step(one, t, ended=ends[t])
    other.set_state(pickle.loads(pickle.dumps(one.get_state())))
    for t in range(4, 8):
        mine, theirs = step(one, t, ended=ends[t]), step(other, t, ended=ends[t])
        np.testing.assert_array_equal(mine.actions, theirs.actions)
        np.testing.assert_array_equal(mine.consulted, theirs.consulted)
    np.testing.assert_equal(one.get_state(), other.get_state())


def test_episodes_that_are_begun_anew_begin_with_the_tutor() -> None:
    explorer = make_explorer(horizon=2)
    for t in range(3):
        decision = step(explorer, t)
    assert not decision.consulted.any()
    explorer.begin_episodes()
    assert step(explorer, 3).consulted.all()


@given(
    st.lists(st.floats(-100, 100), max_size=80),
    st.integers(1, 50),
    st.integers(1, 7),
    st.integers(1, 5),
)
def test_the_part_never_grows_and_ends_at_nothing(returns: list[float], horizon: int, stages: int, window: int) -> None:
    curriculum = Curriculum(Handover(horizon=horizon, stages=stages, episodes=window))
    lengths = [curriculum.length]
    for value in returns:
        curriculum.note([value])
        lengths.append(curriculum.length)
    assert lengths[0] == horizon and lengths == sorted(lengths, reverse=True) and lengths[-1] >= 0
    assert len(curriculum.returns) <= window
    curriculum.stage = stages
    assert curriculum.length == 0


def test_a_student_that_falls_behind_the_best_by_more_than_the_tolerance_keeps_its_tutor() -> None:
    curriculum = Curriculum(Handover(horizon=10, stages=5, episodes=2, tolerance=0.1))
    curriculum.note([10.0, 10.0])
    assert curriculum.length == 8 and curriculum.best == 10.0
    curriculum.note([8.0, 9.0])
    assert curriculum.length == 8
    curriculum.note([9.2])
    assert curriculum.length == 6, "the mean of the latest two is 9.1"
    assert not math.isinf(curriculum.best)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"use_options": {"horizon": 0}}, r"advice\.use_options\.horizon"),
        ({"use_options": {"tolerance": 1.5}}, r"advice\.use_options\.tolerance"),
        ({"use_options": {"stage": 3}}, r"advice\.use_options\.stage.*stages"),
        ({"probability_final": 0.5}, r"advice\.probability_final = 0\.5.*'handover' decides by itself"),
        ({"rule": "importance"}, r"advice\.rule = 'importance'.*'handover' decides by itself"),
        ({"imitation": "all"}, r"advice\.imitation = 'all'.*'coin'"),
        ({"dqn_random_share": 0.0}, r"advice\.dqn_random_share = 0\.0.*'coin'"),
    ],
)
def test_what_it_cannot_honour_is_refused_by_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        AdviceConfig(use="handover", **fields)


def test_stored_advice_and_weights_of_the_tutors_steps_are_its_to_read() -> None:
    advice = AdviceConfig(use="handover", reuse="off", weights="policy", weight_cap=2.0)
    assert advice.use == "handover"
