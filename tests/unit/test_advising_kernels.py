"""The explorer's machine code does what the Python beside it says, cached or not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rllib_plugins import compiled as module
from rllib_plugins.advising import kernels
from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.advising.decision import Decision
from rllib_plugins.advising.explorer import Explorer
from rllib_plugins.advising.kernels import Coin, Options, Output, Settled, Student, Tutor, draw
from rllib_plugins.advising.reuse import Budget, Decay, Off, QChange, ReuseRule
from rllib_plugins.advising.table import NOTHING, StoredActions
from tests.unit.advising_fakes import TableAdvisor, states


def sample(probabilities: np.ndarray, uniforms: np.ndarray) -> list[int]:
    """The obvious way to draw an action per row of ``(n, num_actions)``."""
    cumulative = probabilities.cumsum(axis=1)
    return (cumulative > uniforms[:, None] * cumulative[:, -1:]).argmax(axis=1).tolist()


def test_probability_zero_is_never_drawn() -> None:
    top = float(np.nextafter(1.0, 0.0))
    for row in ([0.0, 1.0, 0.0], [0.0, 0.1, 0.0], [0.3, 0.7 + 1e-12, 0.0]):
        assert draw(np.array(row), 0.0) == int(row[0] == 0.0)
        assert draw(np.array(row), top) == 1


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), num_actions=st.integers(2, 7))
def test_a_compiled_draw_is_the_reference(seed: int, num_actions: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.full(num_actions, 0.3), size=64) * rng.uniform(0.5, 2.0, size=(64, 1))
    rows[rng.random(rows.shape) < 0.3] = 0.0
    uniforms = rng.random(64)
    assert [draw(row, uniform) for row, uniform in zip(rows, uniforms, strict=True)] == sample(rows, uniforms)


class OwnBudget(ReuseRule):
    """``budget``, the slow and obvious way."""

    budget: int

    def stored(self, q):
        return self.budget or None

    def usable(self, memory, draw, q):
        return memory > 0

    def reused(self, memory, q):
        return memory - 1 if memory > 1 else None


class OwnDecay(ReuseRule):
    """``decay``, likewise."""

    initial: float
    decay: float

    def stored(self, q):
        return self.initial

    def usable(self, memory, draw, q):
        return draw < memory

    def reused(self, memory, q):
        return self.decay * memory


class OwnQChange(ReuseRule):
    """``q_change``, likewise."""

    min_change: float

    def stored(self, q):
        return q

    def usable(self, memory, draw, q):
        return math.isnan(memory) or math.isnan(q) or q - memory >= self.min_change

    def reused(self, memory, q):
        return q


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
        Explorer(
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
    assert [core._stored.runs_here for core in cores] == [False, True]
    for step in range(12):
        observations, q_values = states(*rng.integers(0, 6, 7)), rng.normal(size=(7, 3)).round(1)
        first, second = (core.act(observations, np.full((7, 3), 1 / 3), q_values=q_values, step=step) for core in cores)
        np.testing.assert_array_equal(first.actions, second.actions)
        np.testing.assert_array_equal(first.behaviour, second.behaviour)
    assert cores[0].counters() == cores[1].counters()


def test_the_dictionary_grows_on_after_a_restore() -> None:
    def make() -> Explorer:
        return Explorer(
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
    core = Explorer(
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
    core = ExplorerOf(rule)
    assert core.visit(gate=1.0, coins=[0.0]) == [NOTHING]
    assert core.visit(gate=0.0, coins=[0.0, 0.0]) == [NOTHING, NOTHING]
    assert core.visit(gate=0.5, coins=[0.9, 0.9, 0.9]) == [1, 1, 1]
    assert core.visit(gate=0.5, coins=[0.1, 0.9, 0.1]) == [1, NOTHING, NOTHING]


class ExplorerOf:
    """One state that is visited by several environments at once; the tutor advises action 1 once."""

    def __init__(self, rule: ReuseRule) -> None:
        self.stored = StoredActions(rule)
        self.stored.reserve(states(*[5] * 9))
        self.distributions = np.array([[0.0, 1.0]])

    def visit(self, gate: float, coins: list[float]) -> list[int]:
        """What reuse holds ready for each environment."""
        n = len(coins)
        observations, none = states(*[5] * n), np.empty((0, 0))
        policy, visits = np.full((n, 2), 0.5), np.zeros(n, dtype=kernels.VISIT)
        visits["open"] = True
        draws = np.array([[0.0] * n, coins, [0.0] * n, [0.0] * n])
        student = Student(observations, policy, policy, none, np.empty((0, 0), bool))
        tutor = Tutor(np.full((1, 2), np.nan), np.empty((1, 0), np.uint32), np.zeros(1, np.int64))
        options = tuple(Options(False, False, False, True, False))
        actions = np.ones((1, n), np.int64)
        out = Output(0, actions, np.zeros((2, 1, n)), np.zeros((3, 1, n), bool), np.zeros((1, n, 2), "f4"))
        thrown = tuple(Coin(gate, kernels.NO_LIMIT, draws))
        done, _ = kernels.decide(thrown, tuple(student), tuple(tutor), self.stored.stored, options, visits, tuple(out))
        if not done:
            if self.stored.runs_here:
                self.stored.serve(observations, none, draws[kernels.REUSE_DRAW], visits)
            visits["slot"] = 0
            kernels.finish(draws, tuple(student), self.distributions, self.stored.stored, options, visits, tuple(out))
            if self.stored.runs_here:
                self.stored.store(observations, none, visits, actions[0])
        self.distributions = np.full((1, 2), np.nan)
        return visits["ready"].tolist()


def step(
    *, at_hand: bool = True, advised: tuple[float, float] = (0.0, 1.0), q_values=None, options: Options | None = None
) -> tuple[Settled, Decision, list[bool]]:
    """Three states: heads with advice, heads with a stored action, tails."""
    none, legal = np.empty((0, 0)), np.empty((0, 0), dtype=bool)
    student = Student(
        states(0, 0, 0),
        np.array([[0.9, 0.1]] * 3),
        np.array([[0.8, 0.2]] * 3),
        none if q_values is None else q_values,
        legal,
    )
    visits = np.zeros(3, dtype=kernels.VISIT)
    visits["gate"], visits["at_hand"] = 0.5, at_hand
    visits["ready"], visits["heads"] = [NOTHING, 1, NOTHING], [True, True, False]
    actions, probabilities, flags = np.zeros((2, 3), np.int64), np.zeros((2, 2, 3)), np.zeros((3, 2, 3), bool)
    advice = np.zeros((2, 3, 2), np.float32)
    settled = kernels.finish(
        np.full((4, 3), 0.1),
        tuple(student),
        np.array([advised]),
        StoredActions(Off()).stored,
        tuple(options or Options(False, False, False, True, False)),
        visits,
        tuple(Output(1, actions, probabilities, flags, advice)),
    )
    assert not any(array.any() for array in (actions[0], probabilities[:, 0], flags[:, 0], advice[0])), "one step only"
    written = Decision(actions[1], probabilities[:, 1], flags[:, 1], advice[1])
    return Settled(*settled), written, visits["fresh"].tolist()


def test_what_is_counted() -> None:
    settled, out, fresh = step()
    assert out.actions.tolist() == [1, 1, 0]
    assert out.consulted.tolist() == [True, True, False]
    assert fresh == [True, False, False]
    assert settled == Settled(True, 1, 1, 1, 0, pytest.approx(0.2))
    np.testing.assert_allclose(out.behaviour, [0.6, 0.6, 0.4])
    np.testing.assert_allclose(out.policy, [0.1, 0.1, 0.9])


def test_a_student_left_alone_on_heads_does_all_of_its_own_exploring() -> None:
    _, alone, _ = step(at_hand=False, advised=(np.nan, np.nan))
    assert alone.consulted.tolist() == [False, True, False]
    assert alone.eligible.tolist() == [False, True, True]
    np.testing.assert_allclose(alone.behaviour, [0.9, 0.6, 0.8])


@pytest.mark.parametrize("is_untrained", [False, True])
def test_advice_is_compared_with_random_actions_while_a_value_student_is_untrained(is_untrained: bool) -> None:
    q_values = np.array([[0.0, 1.0]] * 3)  # on tails the first action is drawn, and the second is greedy
    _, out, _ = step(q_values=q_values, options=Options(True, is_untrained, False, True, False))
    assert out.actions.tolist() == [1, 1, 0]
    assert out.eligible.tolist() == [True, True, is_untrained]


def test_where_no_folder_can_be_written_code_is_compiled_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cache_folder", lambda digest: None)
    assert module.compiled(lambda x: x + 1)(1) == 2
