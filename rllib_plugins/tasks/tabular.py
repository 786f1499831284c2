"""Tasks over environments that show their transition table, as Gymnasium's toy texts do: the oracle is computed."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.tasks.base import Task
from tutor_service.errors import UserError

_TOLERANCE, _MOST_SWEEPS = 1e-9, 100_000


class TabularTask(Task):
    """A task whose environment has Discrete observations and a table ``P`` of transitions; see ``examples/taxi.py``.

    ``P[state][action]`` lists ``(probability, next state, reward, terminated)``. The oracle is the best policy by value
    iteration.

    Attributes:
        discount: Discount of the oracle's values per env step: slightly below 1, so that it takes the shortest way.
    """

    discount: float = 0.999
    oracle_is_best = True

    def oracle(self, observation: Any) -> NDArray[np.float64]:
        """Return uniform probabilities over the best actions."""
        values = self._values[int(observation)]
        best = values >= values.max() - 1e-6
        return best / best.sum()

    def action_values(self, observation: Any) -> NDArray[np.float64]:
        """Return the discounted return of each action under best play after it."""
        return self._values[int(observation)]

    @cached_property
    def _values(self) -> NDArray[np.float64]:
        """Q* as ``(num_states, num_actions)``."""
        env = self.make_raw()
        table = getattr(env.unwrapped, "P", None)
        env.close()
        if table is None:
            raise UserError(f"task '{self.name}': '{self.env_id}' has no transition table P. Derive from Task instead.")
        rows = [
            (state, action, *transition)
            for state, actions in table.items()
            for action, transitions in actions.items()
            for transition in transitions
        ]
        states, actions, weights, following, rewards, ended = (np.array(column) for column in zip(*rows, strict=True))
        values = np.zeros((len(table), self.num_actions))
        for _ in range(_MOST_SWEEPS):
            gains = weights * (rewards + self.discount * ~ended.astype(bool) * values.max(axis=1)[following])
            updated = np.zeros_like(values)
            np.add.at(updated, (states, actions), gains)
            if np.abs(updated - values).max() < _TOLERANCE:
                break
            values = updated
        return updated
