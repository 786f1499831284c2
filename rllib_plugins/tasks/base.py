"""What a task is: one environment and the words a tutor needs to advise in it.

Knows Gymnasium; must not know tutors, students or Ray. The observations that a student sees are flat float32 vectors;
the methods that a task's author writes take the environment's own observation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rllib_plugins.tasks.flat import FlatEnv, FlatVectorEnv, TurnsVectorEnv
from tutor_service.errors import UserError

Policy: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.floating[Any]]]
"""From flat observations ``(n, obs_dim)`` to action probabilities ``(n, num_actions)``."""


class Task:
    """One environment, in words. Subclass it, set the class fields and write ``describe``.

    Attributes:
        name: Short name, e.g. ``blackjack``.
        env_id: Registered Gymnasium id.
        env_kwargs: Keyword arguments for ``gymnasium.make``.
        rules: The rules, in words: the fixed prefix of every prompt.
        actions: One label per action of the Discrete action space, in the space's order; distinct.
        num_env_steps: Env steps that a sweep trains for by default.
        num_states: Distinct states in which advice can be asked for, and so the most LLM evaluations that a tutor can
            cost; None: not known.
    """

    name: str
    env_id: str
    env_kwargs: dict[str, Any] = {}  # noqa: RUF012 - never changed in place
    rules: str
    actions: tuple[str, ...]
    num_env_steps: int = 40_000
    num_states: int | None = None

    def __init__(self, **options: Any) -> None:
        """Options of the task: by default they go to the environment, over ``env_kwargs``."""
        self.env_kwargs = {**type(self).env_kwargs, **options}

    # What an author writes.

    def describe(self, observation: Any) -> str:
        """The observation in words: no more than the student sees, in under 60 tokens."""
        raise NotImplementedError(f"task {type(self).__name__} has no describe(observation)")

    def legal(self, observation: Any) -> NDArray[np.bool_]:
        """Mask of legal actions, shape ``(num_actions,)``. Default: all are legal."""
        return np.ones(self.num_actions, dtype=bool)

    def oracle(self, observation: Any) -> NDArray[np.float64] | None:
        """A very good player's action probabilities, shape ``(num_actions,)``, or None where there is no oracle."""
        return None

    def action_values(self, observation: Any) -> NDArray[np.float64] | None:
        """Expected return of each action under best play after it, ``(num_actions,)``; None where it is not known.

        Illegal actions are NaN. Used for the regret of advice.
        """
        return None

    def situation(self, observation: Any) -> str:
        """A short name for the kind of state, by which a report card groups agreement. Default: one group."""
        return "all states"

    # How the student sees the environment. The defaults fit any observation space that Gymnasium can flatten.

    def encode(self, observation: Any) -> NDArray[np.float32]:
        """The flat vector that the student sees, ``(obs_dim,)``."""
        if self._is_flat:
            return np.array(observation, dtype=np.float32)
        return np.asarray(spaces.flatten(self.raw_observation_space, observation), dtype=np.float32)

    def unflatten(self, flat: NDArray[np.float32]) -> Any:
        """The environment's own observation from the flat one: the inverse of ``encode``."""
        if not np.isfinite(flat).all():
            raise UserError(f"observation {flat} of task '{self.name}' holds NaN or infinity.")
        return spaces.unflatten(self.raw_observation_space, flat)

    def flat_space(self) -> spaces.Box:
        """The space of ``encode``'s vectors; override it together with ``encode`` and ``unflatten``."""
        flat = spaces.flatten_space(self.raw_observation_space)
        if not isinstance(flat, spaces.Box):
            raise UserError(
                f"task '{self.name}': observation space {self.raw_observation_space} has no flat vector form "
                "(gymnasium.spaces.flatten_space gives no Box). Override encode, unflatten and flat_space."
            )
        return spaces.Box(
            np.asarray(flat.low, dtype=np.float32), np.asarray(flat.high, dtype=np.float32), dtype=np.float32
        )

    @cached_property
    def observation_space(self) -> spaces.Box:
        """Space of the student's flat float32 observations, shape ``(obs_dim,)``."""
        return self.flat_space()

    @cached_property
    def raw_observation_space(self) -> spaces.Space[Any]:
        """The environment's own observation space."""
        return self._spaces[0]

    @property
    def num_actions(self) -> int:
        """Number of actions."""
        return len(self.actions)

    @cached_property
    def _is_flat(self) -> bool:
        """The environment's own observations are flat vectors already: Gymnasium's dispatch would only cost time."""
        space = self.raw_observation_space
        return isinstance(space, spaces.Box) and len(space.shape) == 1

    @cached_property
    def _spaces(self) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
        env = self.make_raw()
        try:
            return env.observation_space, env.action_space
        finally:
            env.close()

    # Environments.

    def make_raw(self, render_mode: str | None = None) -> gym.Env[Any, Any]:
        """The registered environment itself, with its own observations.

        Raises:
            UserError: Gymnasium refuses the id or the arguments.
        """
        arguments = self.env_kwargs if render_mode is None else {**self.env_kwargs, "render_mode": render_mode}
        try:
            return gym.make(self.env_id, disable_env_checker=True, **arguments)
        except (gym.error.Error, TypeError) as error:
            raise UserError(
                f"task '{self.name}': environment '{self.env_id}' with {self.env_kwargs}: {error}"
            ) from error

    def make(self, render_mode: str | None = None) -> gym.Env[NDArray[np.float32], int]:
        """One environment with flat observations ``(obs_dim,)`` and actions ``0 … num_actions − 1``."""
        return FlatEnv(self.make_raw(render_mode), self.encode, self.observation_space, self.num_actions)

    def make_vec(self, num_envs: int, seed: int) -> gym.vector.VectorEnv[Any, Any, Any]:
        """A vector environment with flat float32 observations ``(num_envs, obs_dim)`` and SAME_STEP autoreset.

        Where an episode ended in a step, ``infos["final_obs"]`` is float32 ``(num_envs, obs_dim)``, valid on the rows
        of the mask ``infos["_final_obs"]``.

        Args:
            num_envs: Environments stepped as one vector.
            seed: Seed of the first ``reset``, unless that one names its own.
        """
        if num_envs < 1:
            raise UserError(f"num_envs = {num_envs}: must be at least 1.")
        native = self.make_native_vec(num_envs)
        if native is not None:
            return FlatVectorEnv(native, self.encode_batch, self.observation_space, seed)
        return FlatVectorEnv(TurnsVectorEnv(self.make, num_envs), None, self.observation_space, seed)

    def make_native_vec(self, num_envs: int) -> gym.vector.VectorEnv[Any, Any, Any] | None:
        """A vector environment written as array code, with its own observations; None: one after the other.

        It must reset in the same step and give ``infos["final_obs"]`` as a batch like its observations.
        """
        return None

    def encode_batch(self, observations: Any) -> NDArray[np.float32]:
        """The native vector environment's observations as ``(num_envs, obs_dim)``; needed only beside one."""
        raise NotImplementedError(f"task '{self.name}': make_native_vec needs encode_batch")

    # Batches over flat observations; a task overrides them for speed.

    def legal_batch(self, observations: NDArray[np.float32]) -> NDArray[np.bool_] | None:
        """Masks for flat observations ``(n, obs_dim)`` as ``(n, num_actions)``; None where all are always legal."""
        if type(self).legal is Task.legal:
            return None
        masks = [self.legal(self.unflatten(row)) for row in observations]
        return np.array(masks, dtype=bool).reshape(len(observations), self.num_actions)

    def oracle_batch(self, observations: NDArray[np.float32]) -> NDArray[np.float64] | None:
        """The oracle's probabilities for flat observations ``(n, obs_dim)``; None where there is no oracle."""
        if type(self).oracle is Task.oracle:
            return None
        rows = [self.oracle(self.unflatten(row)) for row in observations]
        return np.array(rows, dtype=np.float64).reshape(len(observations), self.num_actions)

    # Reference figures.

    def exact_return(self, policy: Policy) -> tuple[float, float] | None:
        """Exact mean and standard deviation of a policy's episode return, where the game allows; else None.

        Args:
            policy: Function from flat observations ``(n, obs_dim)`` to action probabilities ``(n, num_actions)``.
        """
        return None

    def uniform_policy(self, observations: NDArray[np.float32]) -> NDArray[np.float64]:
        """Uniform over the legal actions, ``(n, num_actions)``."""
        legal = self.legal_batch(observations)
        if legal is None:
            return np.full((len(observations), self.num_actions), 1.0 / self.num_actions)
        return legal / legal.sum(axis=1, keepdims=True)

    @cached_property
    def random_return(self) -> float:
        """Mean return of uniformly random play: exact where the game allows, else over 2,000 episodes, seed 0."""
        return self.estimate_random_return()

    def estimate_random_return(self) -> float:
        """Evaluates ``uniform_policy``."""
        from rllib_plugins.evaluation import evaluate

        return evaluate(self, self.uniform_policy, episodes=2_000, seed=0).return_mean
