"""CartPole as array code that plays the very episodes which the environments would play one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from numpy.typing import NDArray

from rllib_plugins.envs.cart_pole_rules import START, push
from rllib_plugins.seeds import spawn_seeds
from rllib_plugins.tasks.flat import FlatVectorEnv, Infos, dumps, loads
from tutor_service.errors import UserError


class CartPoleVectorEnv(FlatVectorEnv):
    """A vector of ``CartPole-v1``, each with a generator of its own that is seeded as ``TurnsVectorEnv`` seeds it."""

    def __init__(self, num_envs: int, observation_space: spaces.Box, seed: int) -> None:
        super().__init__(num_envs, observation_space, 2, seed)
        self._states = np.zeros((num_envs, 4))
        self._lengths = np.zeros(num_envs, np.int64)
        self._rngs: list[np.random.Generator] = []

    def reset(self, *, seed: Any = None, options: Infos | None = None) -> tuple[NDArray[np.float32], Infos]:
        """Start all episodes anew; ``options`` are not used."""
        own = self._seed_of(seed)
        if own is not None:
            self._rngs = [seeding.np_random(child)[0] for child in spawn_seeds(own, self.num_envs)]
        elif not self._rngs:
            self._rngs = [seeding.np_random()[0] for _ in range(self.num_envs)]
        for row in range(self.num_envs):
            self._start(row)
        return self._states.astype(np.float32), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Infos]:
        """Step all environments; ``actions`` is ``(num_envs,)``.

        Raises:
            UserError: An action is neither 0 nor 1.
        """
        observations = np.empty(self._states.shape, np.float32)
        terminated, truncated = np.empty((2, self.num_envs), bool)
        given = np.ascontiguousarray(actions, np.int64)
        num_ended = push(self._states, self._lengths, given, observations, terminated, truncated)
        if num_ended < 0:
            raise UserError(f"actions {given.tolist()} of CartPole: each must be 0 (left) or 1 (right).")
        infos: Infos = {}
        if num_ended:
            ended = terminated | truncated
            infos = {"final_obs": observations.copy(), "_final_obs": ended}
            for row in np.flatnonzero(ended).tolist():
                self._start(row)
                observations[row] = self._states[row]
        return observations, np.ones(self.num_envs), terminated, truncated, infos

    def _start(self, row: int) -> None:
        self._states[row] = self._rngs[row].uniform(-START, START, size=4)
        self._lengths[row] = 0

    def save(self) -> bytes:
        """Pickle the running episodes and the generators."""
        return dumps((self._states, self._lengths, self._rngs))

    def restore(self, state: bytes) -> None:
        """Go on with the pickled episodes."""
        self._states, self._lengths, self._rngs = loads(state)
        self._seed = None
