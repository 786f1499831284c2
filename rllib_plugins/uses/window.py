"""Collect rollouts that are looked at together: states are asked about and draws compared once per window."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.compiled import compiled
from rllib_plugins.rollout.arrays import RolloutArrays

LEAST_STEPS = 256
"""Env steps of a window at least: for a rollout of 40, looking costs as much as learning."""
LEAST_VECTOR_STEPS = 16
"""Vector steps of a window at least, those of a rollout of DQN's: many environments fill 256 env steps in no time."""

_READ = ("observations", "logits", "actions", "rewards", "terminated", "truncated", "legal")


class Window:
    """Collect whole rollouts until they hold ``LEAST_STEPS`` and ``LEAST_VECTOR_STEPS``.

    Args:
        rollout: The arrays that are filled again and again.

    Attributes:
        rollout: The rollouts collected, one after the other; of the arrays, those that say what the student did.
        advantages: ``(T, N)`` of them.
    """

    def __init__(self, rollout: RolloutArrays) -> None:
        num_steps, num_envs = rollout.rewards.shape
        num_needed = max(LEAST_STEPS, LEAST_VECTOR_STEPS * num_envs)
        self._num_rollouts = -(-num_needed // (num_steps * num_envs))
        self._num_held = 0
        self._returns = np.zeros(num_envs)
        self.advantages = np.zeros((num_steps * self._num_rollouts, num_envs), np.float32)
        self.rollout = rollout
        if self._num_rollouts > 1:
            *_, obs_dim = rollout.observations.shape
            *_, num_actions = rollout.logits.shape
            self.rollout = RolloutArrays.allocate(
                self.advantages.shape,
                obs_dim,
                num_actions,
                for_replay=False,
                with_advice=False,
                with_masks=rollout.legal is not None,
            )

    def add(self, rollout: RolloutArrays, advantages: NDArray[np.float32]) -> bool:
        """Take a rollout and its advantages ``(T, N)``; return whether the window is full.

        The next call then begins anew.
        """
        self._num_held %= self._num_rollouts
        size = len(advantages)
        steps = slice(self._num_held * size, (self._num_held + 1) * size)
        self.advantages[steps] = advantages
        if rollout is not self.rollout:
            for name in _READ:
                array = getattr(rollout, name)
                if array is not None:
                    getattr(self.rollout, name)[steps] = array
        self._num_held += 1
        return self._num_held == self._num_rollouts

    def finished_returns(self) -> NDArray[np.float64]:
        """Return the returns of the episodes that ended in a full window, in order; to be called once for each."""
        ended = self.rollout.terminated | self.rollout.truncated
        return _finished_returns(self.rollout.rewards, ended, self._returns)

    def begin_episodes(self) -> None:
        """Take note that all environments have begun an episode anew, out of turn: the others count as cut off here."""
        held = self._num_held % self._num_rollouts * (len(self.advantages) // self._num_rollouts)
        if held:
            self.rollout.truncated[held - 1] = True
        else:
            self._returns[:] = 0.0

    def get_state(self) -> dict[str, Any]:
        """Return everything that the next windows depend on."""
        held = {} if self._num_rollouts == 1 else self.rollout.get_state()
        state = {"num_held": self._num_held, "returns": self._returns.copy(), "advantages": self.advantages.copy()}
        return state | {"rollout": held}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``."""
        self._num_held, self._returns = state["num_held"], state["returns"].copy()
        self.advantages[:] = state["advantages"]
        self.rollout.set_state(state["rollout"])


@compiled
def _finished_returns(
    rewards: NDArray[np.float32], ended: NDArray[np.bool_], running: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the returns of the episodes that end, in order, and go on with ``running`` ``(N,)``."""
    found, num_found = np.empty(ended.size), 0
    for step in range(len(rewards)):
        for env in range(rewards.shape[1]):
            running[env] += rewards[step, env]
            if ended[step, env]:
                found[num_found] = running[env]
                running[env] = 0.0
                num_found += 1
    return found[:num_found]
