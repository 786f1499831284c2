"""Keep the tutor's distributions and the stored actions by state."""

from __future__ import annotations

import math
import sys
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.reuse import ReuseRule, Shipped
from rllib_plugins.array_types import Floats, Floats32, Ints
from rllib_plugins.row_index import RowIndex, Words, as_rows

CAPACITY = 250_000
NOTHING = -1
"""In place of an action: nothing stored serves."""


class Tutor(NamedTuple):
    """What is known of a tutor's advice.

    Attributes:
        distributions: ``(num_slots, num_actions)``; NaN in slot ``UNKNOWN``.
        rows: Of the index of states, see ``RowIndex``.
        buckets: Likewise.
    """

    distributions: Floats
    rows: Words
    buckets: Ints


class Stored(NamedTuple):
    """The stored actions, and when they serve again.

    Attributes:
        rows: Of the index of states, see ``RowIndex``.
        buckets: Likewise.
        counts: Likewise.
        actions: ``(num_slots,)``.
        memories: ``(num_slots,)`` what the reuse rule knows of each: a budget, a probability or a Q-value.
        rule: Number of the reuse rule; ``OWN`` is not run here.
        option: λ of ``DECAY``, or the least change of ``Q_CHANGE``.
        fresh: Memory of a fresh entry.
    """

    rows: Words
    buckets: Ints
    counts: Ints
    actions: Ints
    memories: Floats
    rule: int
    option: float
    fresh: float


class DistributionTable:
    """Action distributions of the observations that were asked about so far.

    Args:
        num_actions: Length of a distribution.
        capacity: Most observations that are kept; the oldest goes first.

    Attributes:
        tutor: The fields of ``Tutor``; to be read only.
    """

    def __init__(self, num_actions: int, capacity: int = CAPACITY) -> None:
        self._num_actions, self._capacity = num_actions, capacity
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._index = RowIndex(self._capacity)
        self._rows = np.full((1, self._num_actions), np.nan)
        self._gather()

    def _gather(self) -> None:
        self.tutor: tuple[Any, ...] = tuple(Tutor(self._rows, self._index.rows, self._index.buckets))

    def __len__(self) -> int:
        return len(self._index)

    def look_up(self, observations: Floats32) -> Floats:
        """Return the distributions of ``(n, obs_dim)`` as a new array ``(n, num_actions)``; NaN where not known."""
        return self._rows[self._index.find(as_rows(observations))]

    def put(self, observations: Floats32, distributions: Floats) -> None:
        """Keep a distribution ``(n, num_actions)`` for each of ``(n, obs_dim)``, in place of what was kept."""
        observations = as_rows(observations)
        if not len(observations):
            return
        if self._index.reserve(observations):
            self._rows = self._index.fitted(self._rows, np.nan)
            self._gather()
        self._rows[self._index.claim_each(observations)] = distributions

    def get_state(self) -> dict[str, Any]:
        """Return the known observations ``(num_known, obs_dim)``, oldest first, and their distributions."""
        slots = self._index.by_age()
        return {"observations": self._index.observations(slots), "rows": self._rows[slots]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Add the entries of a ``get_state``."""
        self.put(state["observations"], state["rows"])


class StoredActions:
    """Advised actions and their memories by state: what reuse serves from.

    The rules of this package run in ``kernels``, a user's own rule here (``serve`` and ``store``).

    Args:
        rule: When a stored action serves again.
        capacity: Most states that are remembered; the oldest gives way, as if it had never been advised.

    Attributes:
        stored: The fields of ``Stored``.
        num_free: At least so many new states fit in.
        runs_here: The rule is a user's own.
    """

    def __init__(self, rule: ReuseRule, capacity: int = CAPACITY):
        self._rule = rule
        self._numbers = rule.numbers()
        self.runs_here = self._numbers.rule == Shipped.OWN
        self._clear(capacity)

    def _clear(self, capacity: int) -> None:
        self._index = RowIndex(capacity)
        self._actions, self._memories = np.full(1, NOTHING, dtype=np.int64), np.full(1, math.nan)
        self.num_free = sys.maxsize if self._numbers.rule == Shipped.OFF else 0
        self._gather()

    def _gather(self) -> None:
        index = self._index
        rule, option, fresh = int(self._numbers.rule), self._numbers.option, self._numbers.fresh
        arrays = index.rows, index.buckets, index.counts, self._actions, self._memories
        self.stored = tuple(Stored(*arrays, rule, option, fresh))

    def reserve(self, observations: Floats32) -> None:
        """Make rows free for the actions of a vector step."""
        if self._index.reserve(observations):
            self._actions = self._index.fitted(self._actions, NOTHING)
            self._memories = self._index.fitted(self._memories, math.nan)
            self._gather()
        self.num_free = self._index.num_free

    def serve(self, observations: Floats32, q_values: Floats, draws: Floats, visits: NDArray[Any]) -> None:
        """Find the stored action that serves each visit under a user's own rule; it is used up on heads only.

        Visits are taken in order. What one finds follows from those before it, never from its own coin.

        Args:
            observations: ``(n, obs_dim)``.
            q_values: ``(n, num_actions)``, or empty where the student has none.
            draws: ``(n,)`` uniform numbers in [0, 1): the visits' own.
            visits: ``kernels.decide``'s, to which this adds.
        """
        for row, slot in enumerate(self._index.find(observations).tolist()):
            action, visit = int(self._actions[slot]), visits[row]
            if visit["gate"] <= 0.0 or action == NOTHING:
                continue
            memory, q = float(self._memories[slot]), _q(q_values, row, action)
            if self._rule.usable(memory, float(draws[row]), q):
                visit["ready"] = action
                if visit["heads"]:
                    self._keep(slot, action, self._rule.reused(memory, q))

    def store(self, observations: Floats32, q_values: Floats, visits: NDArray[Any], actions: Ints) -> None:
        """Keep freshly advised actions under a user's own rule, in place of what was stored.

        Args:
            observations: ``(n, obs_dim)``, for which rows are free.
            q_values: As for ``serve``.
            visits: ``kernels.finish``'s.
            actions: ``(n,)`` executed.
        """
        for row in visits["fresh"].nonzero()[0].tolist():
            action = int(actions[row])
            memory = self._rule.stored(_q(q_values, row, action))
            self._keep(self._index.claim(observations[row]), action, memory)

    def _keep(self, slot: int, action: int, memory: float | None) -> None:
        self._actions[slot], self._memories[slot] = (NOTHING, math.nan) if memory is None else (action, memory)

    def get_state(self) -> dict[str, Any]:
        """Return observations ``(num_entries, obs_dim)``, actions and memories, oldest entry first."""
        slots = self._index.by_age()
        return {
            "observations": self._index.observations(slots),
            "actions": self._actions[slots],
            "memories": self._memories[slots],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``."""
        self._clear(self._index.capacity)
        self.put(state)

    def put(self, state: dict[str, Any]) -> None:
        """Keep the entries of a ``get_state``, each in place of what was stored for its state."""
        observations = as_rows(state["observations"])
        if observations.shape[1]:
            self.reserve(observations)
            slots = self._index.claim_each(observations)
            self._actions[slots], self._memories[slots] = state["actions"], state["memories"]
            self.num_free = self._index.num_free


def _q(q_values: Floats, row: int, action: int) -> float:
    return float(q_values[row, action]) if len(q_values) else math.nan
