"""What a task is: one environment and the words a tutor needs to advise in it.

Knows Gymnasium; must not know tutors, students or Ray. The observations that a student sees are flat float32 vectors
(``gymnasium.spaces.flatten``); the methods a task's author writes take the environment's own observation.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray


class Task:
    """One environment, in words. Subclass it, set the class fields and write ``describe``.

    Attributes:
        name: Short name, e.g. ``blackjack``.
        env_id: Registered Gymnasium id.
        env_kwargs: Keyword arguments for ``gymnasium.make``.
        rules: The rules, in words: the fixed prefix of every prompt.
        actions: One label per action of the Discrete action space, in the space's order; distinct.
        num_env_steps: Env steps after which an untutored student has usually converged; a sweep's default.
    """

    name: ClassVar[str]
    env_id: ClassVar[str]
    env_kwargs: dict[str, Any]
    rules: str
    actions: tuple[str, ...]
    num_env_steps: int = 40_000

    def describe(self, observation: Any) -> str:
        """The observation in words: no more than the student sees, in under 60 tokens."""
        raise NotImplementedError

    def legal(self, observation: Any) -> NDArray[np.bool_]:
        """Mask of legal actions, shape ``(num_actions,)``. Default: all are legal."""
        return np.ones(len(self.actions), dtype=bool)

    def oracle(self, observation: Any) -> NDArray[np.float64] | None:
        """A very good player's action probabilities, shape ``(num_actions,)``, or None where there is no oracle."""
        return None

    # What follows has defaults that fit any Gymnasium environment; a task overrides them for speed.

    def make_vec(self, num_envs: int, seed: int) -> gym.vector.VectorEnv:
        """A vector environment with flat float32 observations ``(num_envs, obs_dim)`` and SAME_STEP autoreset."""
        raise NotImplementedError("to be written: SyncVectorEnv over gymnasium.make + FlattenObservation")

    def legal_batch(self, observations: NDArray[np.float32]) -> NDArray[np.bool_] | None:
        """Masks for flat observations ``(n, obs_dim)`` as ``(n, num_actions)``; None where everything is always legal."""
        raise NotImplementedError("to be written: None unless `legal` is overridden, else row by row")

    def exact_return(self, policy: Any) -> tuple[float, float] | None:
        """Exact mean and standard deviation of a policy's episode return, where the game allows; else None.

        Args:
            policy: Function from flat observations ``(n, obs_dim)`` to action probabilities ``(n, num_actions)``.
        """
        return None
