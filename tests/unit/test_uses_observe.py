"""Observing: what a student sees of advice, and when."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box

from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.rollout.features import legal_actions, own_part, widen, widened
from rllib_plugins.tasks import load_task
from rllib_plugins.uses.observe import ObservingExplorer
from rllib_plugins.uses.options import make_use
from tests.unit.advising_fakes import TableAdvisor, states
from tutor_service.errors import UserError

SAYS = np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0], [np.nan] * 3, [1 / 3] * 3])
THETA = 1_000.0
EVERYONE = states(*[0, 1, 2, 3] * 100)


def make_explorer(says: Any = SAYS, *, advice: dict[str, Any] | None = None, **options: Any) -> ObservingExplorer:
    config = AdviceConfig(use="observe", use_options=options, **advice or {})
    use = make_use("observe", config.use_options)
    made = use.explorer()(config, num_actions=3, theta_steps=THETA, advisor=TableAdvisor(says, keeps=True), seed=1)
    assert isinstance(made, ObservingExplorer)
    return made


def test_advice_is_shown_by_how_far_it_lies_above_uniform() -> None:
    shown = make_explorer(dropout=0.0).show(states(0, 1, 2, 3), None, 0)
    assert shown[:2] == pytest.approx(SAYS[:2] - 1 / 3, rel=1e-6)
    assert not shown[2].any(), "missed"
    assert shown[3] == pytest.approx(np.zeros(3), abs=1e-7), "a tutor that prefers nothing shows nothing"


def test_illegal_actions_show_nothing() -> None:
    legal = np.array([[True, True, False]])
    shown = make_explorer(np.array([[0.75, 0.25, 0.0]]), dropout=0.0).show(states(0), legal, 0)
    np.testing.assert_allclose(shown, [[0.25, -0.25, 0.0]], rtol=1e-6)


@pytest.mark.parametrize(("step", "share"), [(0, 0.6), (500, 0.3), (1_000, 0.0)])
def test_the_share_of_states_with_advice_falls_to_nothing(step: int, share: float) -> None:
    explorer = make_explorer(np.eye(3)[[0, 1, 2, 0]], dropout=0.4)
    shown = explorer.show(EVERYONE, None, step).any(axis=1)
    assert shown.mean() == pytest.approx(share, abs=0.08)
    assert explorer.counters()["advice/consultations"] == shown.sum()
    assert explorer.gauges()["advice/probability"] == pytest.approx(share)
    assert explorer.num_tutor_steps == 0


def test_a_budget_bounds_what_is_asked() -> None:
    explorer = make_explorer(np.eye(3)[[0, 1, 2, 0]], advice={"advice_budget": 5}, dropout=0.0)
    assert explorer.show(EVERYONE, None, 0).any(axis=1).sum() == 5
    assert not explorer.show(EVERYONE, None, 8).any()


def test_a_restored_explorer_goes_on_as_if_never_stopped() -> None:
    one, other = make_explorer(), make_explorer()
    one.show(EVERYONE, None, 10)
    other.set_state(pickle.loads(pickle.dumps(one.get_state())))
    np.testing.assert_array_equal(one.show(EVERYONE, None, 20), other.show(EVERYONE, None, 20))
    np.testing.assert_equal(one.get_state(), other.get_state())


def test_features_are_put_beside_observations_and_taken_off_again() -> None:
    task = load_task("connect_four")
    observations, _ = task.make_vec(2, seed=0).reset()
    space = widened(task.observation_space, 7)
    assert isinstance(space, Box) and space.shape == (91,)
    wide = widen(observations, 91)
    wide[:, -7:] = 0.5
    assert space.contains(wide[0])
    np.testing.assert_array_equal(own_part(task, wide), observations)
    np.testing.assert_array_equal(legal_actions(task, wide), task.legal_batch(observations))
    assert widen(observations, 84) is observations and own_part(task, observations) is observations


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"use_options": {"dropout": 1.0}}, r"advice\.use_options\.dropout"),
        ({"probability_initial": 0.5}, r"advice\.probability_initial = 0\.5.*'observe' decides by itself"),
        ({"stand_in": "kept"}, r"advice\.stand_in = 'kept'"),
    ],
)
def test_what_it_cannot_honour_is_refused_by_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        AdviceConfig(use="observe", **fields)
