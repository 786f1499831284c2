"""The exploration core's machine code does what the Python beside it says, cached or not."""

from __future__ import annotations

import math

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rllib_plugins import compiled as module
from rllib_plugins.advising import kernels
from rllib_plugins.advising.behaviour import sample
from rllib_plugins.advising.core import ExplorationCore
from rllib_plugins.advising.decision import Decision
from rllib_plugins.advising.kernels import NOTHING, draw, settle
from rllib_plugins.advising.reuse import Budget, Decay, QChange, ReuseRule
from rllib_plugins.advising.stored_actions import StoredActions
from rllib_plugins.config import AdviceConfig
from tests.unit.advising_fakes import TableAdvisor, states


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), num_actions=st.integers(2, 7))
def test_a_compiled_draw_is_the_reference(seed: int, num_actions: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.full(num_actions, 0.3), size=64) * rng.uniform(0.5, 2.0, size=(64, 1))
    rows[rng.random(rows.shape) < 0.3] = 0.0
    uniforms = rng.random(64)
    assert [draw(row, uniform) for row, uniform in zip(rows, uniforms, strict=True)] == sample(rows, uniforms).tolist()


class OwnBudget(Budget):
    """The same rule, but not the class that is compiled."""


class OwnDecay(Decay):
    """As above."""


class OwnQChange(QChange):
    """As above."""


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    rules=st.one_of(
        st.integers(0, 4).map(lambda budget: (Budget(budget=budget), OwnBudget(budget=budget))),
        st.tuples(st.floats(0, 1), st.floats(0, 1)).map(
            lambda o: (Decay(initial=o[0], decay=o[1]), OwnDecay(initial=o[0], decay=o[1]))
        ),
        st.floats(-1, 1).map(lambda change: (QChange(min_change=change), OwnQChange(min_change=change))),
    ),
)
def test_a_compiled_reuse_rule_is_the_python_one(seed: int, rules: tuple[ReuseRule, ReuseRule]) -> None:
    rng = np.random.default_rng(seed)
    cores = [
        ExplorationCore(
            AdviceConfig(probability_initial=0.7, probability_final=0.7, trust="fixed"),
            num_actions=3,
            theta_steps=1.0,
            advisor=TableAdvisor(np.full((6, 3), 1 / 3), at_hand=bool(seed % 2)),
            seed=seed,
            value_based=True,
        )
        for _ in rules
    ]
    for core, rule in zip(cores, rules, strict=True):
        core._stored = StoredActions(rule)
    assert [core._stored.reuse[0] == kernels.OWN for core in cores] == [False, True]
    for step in range(12):
        observations, q_values = states(*rng.integers(0, 6, 7)), rng.normal(size=(7, 3)).round(1)
        first, second = (core.act(observations, np.full((7, 3), 1 / 3), q_values=q_values, step=step) for core in cores)
        np.testing.assert_array_equal(first.actions, second.actions)
        np.testing.assert_array_equal(first.behaviour, second.behaviour)
    assert cores[0].counters() == cores[1].counters()


def test_the_dictionary_grows_on_after_a_restore() -> None:
    def make() -> ExplorationCore:
        return ExplorationCore(
            AdviceConfig(),
            num_actions=3,
            theta_steps=10_000.0,
            advisor=TableAdvisor(np.full((2_000, 3), 1 / 3), at_hand=True),
            seed=0,
        )

    core = make()
    visits = np.random.default_rng(0).integers(0, 2_000, (300, 7))
    for step, visited in enumerate(visits):
        if step == 40:
            again = make()
            again.set_state(core.get_state())
        if step >= 40:
            other = again.act(states(*visited), np.full((7, 3), 1 / 3), step=step)
        decision = core.act(states(*visited), np.full((7, 3), 1 / 3), step=step)
        assert step < 40 or decision.actions.tolist() == other.actions.tolist()
    np.testing.assert_equal(core.get_state(), again.get_state())
    assert 500 < len(core.get_state()["dictionary"]["actions"]) < 2_000 and core.counters()["advice/reused"] > 100


@pytest.mark.parametrize("rule", [Budget(budget=1), OwnBudget(budget=1)])
def test_a_full_dictionary_forgets_the_oldest(rule: ReuseRule) -> None:
    core = ExplorationCore(
        AdviceConfig(probability_initial=1.0, probability_final=1.0, trust="fixed"),
        num_actions=2,
        theta_steps=1.0,
        advisor=TableAdvisor(np.full((9, 2), 0.5), at_hand=True),
        seed=0,
    )
    core._stored = StoredActions(rule, capacity=3)
    for state in (0, 1, 2, 3):
        core.act(states(state), np.full((1, 2), 0.5), step=0)
    assert core.get_state()["dictionary"]["observations"][:, 0].tolist() == [1, 2, 3]
    core.act(states(0, 3), np.full((2, 2), 0.5), step=0)
    assert core.counters()["advice/reused"] == 1, "3 is remembered, 0 is not"


@pytest.mark.parametrize("rule", [Budget(budget=1), OwnBudget(budget=1)])
def test_tails_and_closed_gates_use_nothing_up(rule: ReuseRule) -> None:
    stored, none = StoredActions(rule), np.empty((0, 0))

    def visit(gate: float, coins: list[float]) -> list[int]:
        n = len(coins)
        draws = np.array([[0.0] * n, coins, [0.0] * n, [0.0] * n])
        found = kernels.room(n)
        tutor = np.full((n, 2), np.nan), np.empty((0, 0), np.uint32), np.empty(0, np.int64)
        where = states(*[5] * n), tutor, False, stored.arrays, stored.reuse, none, np.empty((0, 0), bool), found
        kernels.plan(gate, kernels.NO_LIMIT, draws, *where)
        stored.serve(states(*[5] * n), found, draws[2], none)
        return list(found[1][0])

    stored.reserve(states(5))
    keeping = kernels.room(1)
    keeping[1][4] = 1
    out = np.ones((1, 1), np.int64), np.zeros((2, 1, 1)), np.zeros((3, 1, 1), bool), np.zeros((1, 1, 2), "f4")
    kernels.store(states(5), none, stored.arrays, stored.reuse, keeping, 0, out)
    stored.store(states(5), keeping, out[0][0], none)
    assert visit(0.0, [0.0, 0.0]) == [NOTHING, NOTHING]
    assert visit(0.5, [0.9, 0.9, 0.9]) == [1, 1, 1]
    assert visit(0.5, [0.1, 0.9, 0.1]) == [1, NOTHING, NOTHING]


def step(*, at_hand: bool = True, **changed: object) -> tuple[kernels.Settled, Decision, list[int]]:
    """Three states: heads with advice, heads with a stored action, tails."""
    given = {
        "policy": np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]]),
        "tails": np.array([[0.8, 0.2], [0.8, 0.2], [0.8, 0.2]]),
        "q_values": np.empty((0, 0)),
        "legal": np.empty((0, 0), dtype=bool),
        "draws": np.full((4, 3), 0.1),
        "distributions": np.array([[0.0, 1.0]]),
        "judged": np.empty((0, 0), dtype=bool),
        "options": (False, False, False, True, False),
    }
    rows = np.array([[NOTHING, 1, NOTHING], [0, 0, 0], [1, 1, 0], [at_hand] * 3, [0, 0, 0]])
    actions, probabilities, flags = np.zeros((2, 3), np.int64), np.zeros((2, 2, 3)), np.zeros((3, 2, 3), bool)
    out = actions, probabilities, flags, np.zeros((2, 3, 2), np.float32)
    settled = settle(*(given | changed).values(), (np.full(3, 0.5), rows), 1, out)
    assert not any(array.any() for array in (actions[0], probabilities[:, 0], flags[:, 0], out[3][0])), "one step only"
    return settled, Decision(actions[1], probabilities[:, 1], flags[:, 1], out[3][1]), rows[4].tolist()


def test_what_is_counted() -> None:
    settled, out, fresh = step()
    assert out.actions.tolist() == [1, 1, 0]
    assert out.consulted.tolist() == [True, True, False]
    assert fresh == [1, 0, 0]
    is_sound, num_reused, num_fresh, num_known, num_same, agreement = settled
    assert is_sound and (num_reused, num_fresh, num_known, num_same) == (1, 1, 1, 0)
    assert math.isclose(agreement, 0.2)
    np.testing.assert_allclose(out.behaviour, [0.6, 0.6, 0.4])
    np.testing.assert_allclose(out.policy, [0.1, 0.1, 0.9])


def test_a_student_left_alone_on_heads_does_all_of_its_own_exploring() -> None:
    _, alone, _ = step(at_hand=False, distributions=np.full((1, 2), np.nan))
    assert alone.consulted.tolist() == [False, True, False]
    assert alone.eligible.tolist() == [False, True, True]
    np.testing.assert_allclose(alone.behaviour, [0.9, 0.6, 0.8])


@pytest.mark.parametrize("is_untrained", [False, True])
def test_advice_is_compared_with_random_actions_while_a_value_student_is_untrained(is_untrained: bool) -> None:
    q_values = np.array([[0.0, 1.0]] * 3)  # on tails the first action is drawn, and the second is greedy
    _, out, _ = step(q_values=q_values, options=(True, is_untrained, False, True, False))
    assert out.actions.tolist() == [1, 1, 0]
    assert out.eligible.tolist() == [True, True, is_untrained]


def test_where_no_folder_can_be_written_code_is_compiled_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def njit(*functions: object, cache: bool = False) -> object:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return numba.njit(*functions)

    monkeypatch.setattr(module, "njit", njit)
    assert module.compiled(lambda x: x + 1)(1) == 2
