"""The trial's dictionary of stored actions: what reuse serves from, in arrays. Knows reuse rules, not tutors.

Each entry holds an action and one number, its *memory*, whose meaning is the rule's own.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising import kernels
from rllib_plugins.advising.kernels import NOTHING, Floats, Found, Ints, Reuse
from rllib_plugins.advising.reuse import Budget, Decay, QChange, ReuseRule
from rllib_plugins.advising.row_index import CAPACITY, RowIndex, as_rows, fitted


class StoredActions:
    """Actions and memories by state. The rules of this package run in ``kernels``, a user's own rule here.

    Args:
        rule: When a stored action serves again.
        capacity: Most states that are remembered; the oldest gives way, as if it had never been advised.

    Attributes:
        index: The states.
        arrays: What ``kernels`` looks into.
        reuse: The rule, as ``kernels`` knows it.
        room: At least so many new states fit in.
    """

    def __init__(self, rule: ReuseRule, capacity: int = CAPACITY):
        self._rule = rule
        self.reuse = _compiled_form(rule)
        self._clear(capacity)

    def _clear(self, capacity: int) -> None:
        self.index = RowIndex(capacity)
        self._actions, self._memories = np.full(1, NOTHING, dtype=np.int64), np.full(1, math.nan)
        self.room = 0 if self._rule.stores else sys.maxsize
        self._gather()

    def _gather(self) -> None:
        self.arrays = (*self.index.arrays, self.index.counts, self._actions, self._memories)

    def reserve(self, observations: NDArray[np.float32]) -> None:
        """Makes room for the actions of a vector step."""
        if self.index.reserve(observations):
            self._actions = fitted(self._actions, self.index, NOTHING)
            self._memories = fitted(self._memories, self.index, math.nan)
            self._gather()
        self.room = self.index.room

    def serve(self, observations: NDArray[np.float32], found: Found, draws: Floats, q_values: Floats) -> None:
        """A user's own rule: finds the stored action that serves each visit; it is used up on heads only.

        Visits are taken in order. What one finds follows from those before it, never from its own coin.

        Args:
            observations: ``(n, obs_dim)``.
            found: ``kernels.plan``'s, to which this adds.
            draws: ``(n,)`` uniform numbers in [0, 1): the visits' own.
            q_values: ``(n, num_actions)``, or empty where the student has none.
        """
        if self.reuse[0] != kernels.OWN:
            return
        gates, (ready, _, heads, _, _) = found
        for row, slot in enumerate(self.index.find(observations).tolist()):
            action = int(self._actions[slot])
            if gates[row] <= 0.0 or action == NOTHING:
                continue
            memory, q = float(self._memories[slot]), _q(q_values, row, action)
            if self._rule.usable(memory, float(draws[row]), q):
                ready[row] = action
                if heads[row]:
                    self._keep(slot, action, self._rule.reused(memory, q))

    def store(self, observations: NDArray[np.float32], found: Found, actions: Ints, q_values: Floats) -> None:
        """A user's own rule: keeps freshly advised actions, in place of what was stored.

        Args:
            observations: ``(n, obs_dim)``, for which there is room.
            found: ``kernels.settle``'s.
            actions: ``(n,)`` executed.
            q_values: ``(n, num_actions)``, or empty where the student has none.
        """
        if self.reuse[0] == kernels.OWN:
            for row in found[1][4].nonzero()[0].tolist():
                action = int(actions[row])
                memory = self._rule.stored(_q(q_values, row, action))
                self._keep(self.index.claim(observations[row]), action, memory)

    def _keep(self, slot: int, action: int, memory: float | None) -> None:
        self._actions[slot], self._memories[slot] = (NOTHING, math.nan) if memory is None else (action, memory)

    def get_state(self) -> dict[str, Any]:
        """Plain copy, oldest entry first: observations ``(num_entries, obs_dim)``, actions and memories."""
        slots = self.index.by_age()
        return {
            "observations": self.index.observations(slots),
            "actions": self._actions[slots],
            "memories": self._memories[slots],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes over a ``get_state``."""
        self._clear(self.index.capacity)
        observations = as_rows(state["observations"])
        if observations.shape[1]:
            self.reserve(observations)
            slots = [self.index.claim(observation) for observation in observations]
            self._actions[slots], self._memories[slots] = state["actions"], state["memories"]
            self.room = self.index.room


def _compiled_form(rule: ReuseRule) -> Reuse:
    """The rule's number in ``kernels``, its option there, and the memory of a fresh entry.

    Only the classes themselves are compiled: one that extends them has its own methods called.
    """
    kind = type(rule)
    if not rule.stores:
        return kernels.OFF, math.nan, math.nan
    if isinstance(rule, Budget) and kind is Budget:
        return kernels.BUDGET, math.nan, float(rule.budget)
    if isinstance(rule, Decay) and kind is Decay:
        return kernels.DECAY, rule.decay, rule.initial
    if isinstance(rule, QChange) and kind is QChange:
        return kernels.Q_CHANGE, rule.min_change, math.nan
    return kernels.OWN, math.nan, math.nan


def _q(q_values: Floats, row: int, action: int) -> float:
    return float(q_values[row, action]) if len(q_values) else math.nan
