"""The compiled end of a vector step: what it draws is what the reference draws, cached or not."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rllib_plugins import compiled as module
from rllib_plugins.advising.behaviour import sample
from rllib_plugins.advising.reuse import NOTHING
from rllib_plugins.advising.settling import NOT_GREEDY, Settled, draw, settle


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), num_actions=st.integers(2, 7))
def test_a_compiled_draw_is_the_reference(seed: int, num_actions: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.full(num_actions, 0.3), size=64) * rng.uniform(0.5, 2.0, size=(64, 1))
    rows[rng.random(rows.shape) < 0.3] = 0.0
    uniforms = rng.random(64)
    assert [draw(row, uniform) for row, uniform in zip(rows, uniforms, strict=True)] == sample(rows, uniforms).tolist()


def step(**changed: object) -> Settled:
    """Three states: heads with advice, heads with a stored action, tails."""
    given = {
        "policy": np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]]),
        "tails": np.array([[0.8, 0.2], [0.8, 0.2], [0.8, 0.2]]),
        "tutor": np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]),
        "gate": np.full(3, 0.5),
        "heads": np.array([True, True, False]),
        "stored": np.array([NOTHING, 1, NOTHING]),
        "at_hand": np.ones(3, dtype=bool),
        "followed": np.ones(3, dtype=bool),
        "own_draws": np.full(3, 0.1),
        "advice_draws": np.full(3, 0.1),
        "greedy": NOT_GREEDY,
        "whole_advice": False,
        "reads_advice": False,
        "counts_same": True,
    }
    return settle(*(given | changed).values())


def test_what_is_counted() -> None:
    settled = step()
    assert settled.actions.tolist() == [1, 1, 0]
    assert settled.consulted.tolist() == [True, True, False]
    assert (settled.fresh_rows.tolist(), settled.num_reused, settled.num_known, settled.num_same) == ([0], 1, 1, 0)
    assert settled.agreement == pytest.approx(0.2)
    np.testing.assert_allclose(settled.behaviour, [0.6, 0.6, 0.4])
    np.testing.assert_allclose(settled.policy, [0.1, 0.1, 0.9])


def test_a_student_left_alone_on_heads_does_all_of_its_own_exploring() -> None:
    alone = step(followed=np.zeros(3, dtype=bool), at_hand=np.zeros(3, dtype=bool), tutor=np.full((3, 2), np.nan))
    assert alone.consulted.tolist() == [False, True, False]
    assert alone.eligible.tolist() == [False, True, True]
    np.testing.assert_allclose(alone.behaviour, [0.9, 0.6, 0.8])


def test_where_no_folder_can_be_written_code_is_compiled_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def njit(*functions: object, cache: bool = False) -> object:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return numba.njit(*functions)

    monkeypatch.setattr(module, "njit", njit)
    assert module.compiled(lambda x: x + 1)(1) == 2
