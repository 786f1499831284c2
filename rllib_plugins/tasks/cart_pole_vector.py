"""CartPole as array code that plays the very episodes which the environments would play one after the other."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from numpy.typing import NDArray

from rllib_plugins.compiled import compiled
from rllib_plugins.envs.cart_pole_rules import START, push
from rllib_plugins.seeds import spawn_seeds
from rllib_plugins.tasks.flat import FlatVectorEnv, Infos, dumps, loads
from tutor_service.errors import UserError

NUM_STARTS = 16
"""Starts that are drawn at once for a cart."""


class Carts(NamedTuple):
    """Hold n carts, as machine code plays them.

    Attributes:
        states: ``(n, 4)``.
        lengths: ``(n,)`` steps of the running episodes.
        observations: ``(n, 4)`` what is seen now.
        finals: ``(n, 4)`` what the latest step led to, before any reset.
        rewards: ``(n,)`` those of every step.
        starts: ``(n, NUM_STARTS, 4)`` states that coming episodes begin with.
        num_begun: ``(n,)`` how many of them are used up.
    """

    states: NDArray[np.float64]
    lengths: NDArray[np.int64]
    observations: NDArray[np.float32]
    finals: NDArray[np.float32]
    rewards: NDArray[np.float64]
    starts: NDArray[np.float64]
    num_begun: NDArray[np.int64]

    @classmethod
    def of(cls, num_envs: int) -> Carts:
        """Allocate carts without starts."""
        return cls(
            states=np.zeros((num_envs, 4)),
            lengths=np.zeros(num_envs, np.int64),
            observations=np.zeros((num_envs, 4), np.float32),
            finals=np.zeros((num_envs, 4), np.float32),
            rewards=np.ones(num_envs),
            starts=np.zeros((num_envs, NUM_STARTS, 4)),
            num_begun=np.full(num_envs, NUM_STARTS),
        )


@compiled
def begin(carts: Carts, row: int) -> bool:
    """Begin an episode with the next start of a cart; return whether it has another one left."""
    for i in range(carts.states.shape[1]):
        carts.states[row, i] = carts.starts[row, carts.num_begun[row], i]
    carts.lengths[row] = 0
    carts.num_begun[row] += 1
    return carts.num_begun[row] < NUM_STARTS


class CartPoleVectorEnv(FlatVectorEnv):
    """A vector of ``CartPole-v1``, each with a generator of its own that is seeded as ``TurnsVectorEnv`` seeds it.

    Attributes:
        carts: For machine code that plays them in place of ``step``; every cart has a start left.
    """

    def __init__(self, num_envs: int, observation_space: spaces.Box, seed: int) -> None:
        super().__init__(num_envs, observation_space, 2, seed)
        self.carts = Carts.of(num_envs)
        self._rngs: list[np.random.Generator] = []

    def reset(self, *, seed: Any = None, options: Infos | None = None) -> tuple[NDArray[np.float32], Infos]:
        """Start all episodes anew; ``options`` are not used."""
        own = self._seed_of(seed)
        if own is not None:
            self._rngs = [seeding.np_random(child)[0] for child in spawn_seeds(own, self.num_envs)]
            self.carts.num_begun[:] = NUM_STARTS
        elif not self._rngs:
            self._rngs = [seeding.np_random()[0] for _ in range(self.num_envs)]
        self.refill()
        for row in range(self.num_envs):
            begin(self.carts, row)
        self.refill()
        self.carts.observations[:] = self.carts.states
        return self.carts.observations.copy(), {}

    def refill(self) -> None:
        """Draw new starts for carts that have none left."""
        for row in np.flatnonzero(self.carts.num_begun == NUM_STARTS).tolist():
            self.carts.starts[row] = self._rngs[row].uniform(-START, START, size=(NUM_STARTS, 4))
            self.carts.num_begun[row] = 0

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Infos]:
        """Step all environments; ``actions`` is ``(num_envs,)``.

        Raises:
            UserError: An action is neither 0 nor 1.
        """
        carts = self.carts
        terminated, truncated = np.empty((2, self.num_envs), bool)
        given = np.ascontiguousarray(actions, np.int64)
        num_ended = push(carts.states, carts.lengths, given, carts.finals, terminated, truncated)
        if num_ended < 0:
            raise UserError(f"actions {given.tolist()} of CartPole: each must be 0 (left) or 1 (right).")
        infos: Infos = {}
        if num_ended:
            ended = terminated | truncated
            infos = {"final_obs": carts.finals.copy(), "_final_obs": ended}
            for row in np.flatnonzero(ended).tolist():
                begin(carts, row)
            self.refill()
        carts.observations[:] = carts.states
        return carts.observations.copy(), carts.rewards.copy(), terminated, truncated, infos

    def save(self) -> bytes:
        """Pickle the running episodes and the generators."""
        return dumps((tuple(self.carts), self._rngs))

    def restore(self, state: bytes) -> None:
        """Go on with the pickled episodes."""
        arrays, self._rngs = loads(state)
        self.carts = Carts(*arrays)
        self._seed = None
