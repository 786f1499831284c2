"""Pooling: what a student acts by beside its tutor."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.policies import masked_softmax
from rllib_plugins.uses.options import make_use
from rllib_plugins.uses.pool import PoolingExplorer, log_advice
from tests.unit.advising_fakes import TableAdvisor, states
from tutor_service.errors import UserError

SAYS = np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0], [np.nan] * 3, [1 / 3] * 3])
THETA = 100.0


def make_explorer(says: Any = SAYS, *, advice: dict[str, Any] | None = None, **options: Any) -> PoolingExplorer:
    config = AdviceConfig(use="pool", use_options=options, **advice or {})
    use = make_use("pool", config.use_options)
    made = use.explorer()(config, num_actions=3, theta_steps=THETA, advisor=TableAdvisor(says, keeps=True), seed=1)
    assert isinstance(made, PoolingExplorer)
    return made


@given(st.integers(0, 2**32 - 1), st.floats(0.25, 4.0), st.floats(0.01, 0.9))
def test_the_behaviour_is_the_product_of_both_policies(seed: int, strength: float, floor: float) -> None:
    rng = np.random.default_rng(seed)
    logits, says = rng.normal(size=(4, 3)).astype(np.float32), rng.dirichlet(np.ones(3), 4)
    bonus = make_explorer(says, strength=strength, floor=floor).bonus(states(0, 1, 2, 3), None, 50)
    assert bonus is not None
    mixed = (1.0 - floor) * says + floor / 3.0
    product = masked_softmax(logits, None) * mixed ** (strength * 0.5)
    np.testing.assert_allclose(
        masked_softmax(logits + bonus, None), product / product.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-7
    )
    np.testing.assert_allclose(bonus.sum(axis=1), 0.0, atol=1e-4)


def test_missed_and_illegal_actions_have_no_bonus() -> None:
    legal = np.array([[True, True, False]] * 4)
    said = np.where(legal, SAYS, np.where(np.isnan(SAYS), np.nan, 0.0))
    found = log_advice(said, legal, 0.1)
    assert not found[2].any(), "missed"
    assert not found[:, 2].any(), "illegal"
    assert found[1] == pytest.approx([np.log(0.05 / 0.95) / 2, np.log(0.95 / 0.05) / 2, 0.0])
    assert not log_advice(said, np.zeros((4, 3), bool), 0.1).any(), "a finished game has no legal action"


def test_the_bonus_falls_to_nothing_at_theta_and_nobody_is_asked_from_there_on() -> None:
    explorer = make_explorer()
    sizes = [np.abs(explorer.bonus(states(0), None, step)).max() for step in (0, 25, 50, 75)]  # type: ignore[arg-type]
    assert sizes == pytest.approx([sizes[0] * share for share in (1.0, 0.75, 0.5, 0.25)], rel=1e-5)
    assert explorer.gauges()["advice/trust"] == 0.25
    assert explorer.bonus(states(0), None, 100) is None
    assert explorer.counters()["advice/consultations"] == 4
    assert explorer.num_tutor_steps == 0, "its own steps run its exploration schedule down"


def test_a_budget_bounds_what_is_asked() -> None:
    explorer = make_explorer(advice={"advice_budget": 3})
    first, second = explorer.bonus(states(0, 1), None, 0), explorer.bonus(states(0, 1), None, 2)
    assert first is not None and second is not None
    np.testing.assert_allclose(first[0], second[0], rtol=0.05)
    assert first[1].any() and not second[1].any()
    assert explorer.bonus(states(0), None, 4) is None


def test_the_student_acts_by_what_it_is_given_and_that_is_its_target_policy() -> None:
    policy = np.array([[0.1, 0.2, 0.7]] * 4)
    decision = make_explorer().act(states(0, 1, 2, 3), policy, step=0)
    np.testing.assert_array_equal(decision.behaviour, decision.policy)
    assert not decision.consulted.any()


def test_a_restored_explorer_goes_on_as_if_never_stopped() -> None:
    one, other = make_explorer(), make_explorer()
    one.bonus(states(0, 1), None, 10)
    other.set_state(pickle.loads(pickle.dumps(one.get_state())))
    for explorer in (one, other):
        explorer.bonus(states(0, 3), None, 20)
    np.testing.assert_equal(one.get_state(), other.get_state())
    assert one.counters() == other.counters()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"use_options": {"strength": 0.0}}, r"advice\.use_options\.strength"),
        ({"use_options": {"floor": 0.0}}, r"advice\.use_options\.floor"),
        ({"use_options": {"floor": 1.0}}, r"advice\.use_options\.floor"),
        ({"probability_initial": 0.5}, r"advice\.probability_initial = 0\.5.*'pool' decides by itself"),
        ({"reuse": "off"}, r"advice\.reuse = 'off'.*'coin'"),
    ],
)
def test_what_it_cannot_honour_is_refused_by_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        AdviceConfig(use="pool", **fields)
