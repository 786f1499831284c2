"""What our array-coded vector environments share: seeding, SAME_STEP autoreset and its infos."""

from __future__ import annotations

from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from tutor_service.errors import UserError

Rows: TypeAlias = slice | NDArray[np.int64]
"""Some environments of a vector, or all of them: ``EVERY``."""

EVERY = slice(None)

STREAM = (0x7475746F72,)
"""Sets our draws apart from those of a student that seeds its own generator with the same number."""


class ArrayVectorEnv(gym.vector.VectorEnv[Any, NDArray[np.int64], NDArray[Any]]):
    """A vector environment as array code. A game writes ``_start``, ``_advance``, ``_observe`` and ``_info``."""

    def __init__(
        self, num_envs: int, observation_space: spaces.Space[Any], action_space: spaces.Discrete, render_fps: int = 4
    ) -> None:
        """Set the spaces.

        Args:
            num_envs: Environments stepped as one vector.
            observation_space: Of one environment.
            action_space: Of one environment.
            render_fps: Frames per second, for the metadata.
        """
        if num_envs < 1:
            raise UserError(f"num_envs = {num_envs}: must be at least 1.")
        self.num_envs = num_envs
        self.single_observation_space = observation_space
        self.single_action_space = action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self.metadata = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP, "render_fps": render_fps}
        self.rng = np.random.default_rng()
        self._started = False

    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start all episodes anew; one generator draws for all environments, seeded by ``seed``."""
        if seed is not None:
            self.rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=STREAM))
        everywhere = np.arange(self.num_envs)
        self._start(everywhere)
        self._started = True
        return self._observe(EVERY), self._info()

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Step all environments.

        Args:
            actions: ``(num_envs,)`` integers.

        Raises:
            UserError: An action is out of range or illegal (the first such environment is named), or no reset came
                before.
        """
        if not self._started:
            raise UserError(f"{type(self).__name__}.step() before reset(). Call reset(seed=…) first.")
        actions = np.asarray(actions)
        num_actions = int(self.single_action_space.n)  # type: ignore[attr-defined]
        if actions.shape != (self.num_envs,) or actions.dtype.kind not in "iu":
            raise UserError(
                f"actions: expected {self.num_envs} integers, got shape {actions.shape} of {actions.dtype}."
            )
        if actions.min() < 0 or actions.max() >= num_actions:
            i = int(np.flatnonzero((actions < 0) | (actions >= num_actions))[0])
            raise UserError(f"action {actions[i]} in environment {i}: must be 0 to {num_actions - 1}.")
        rewards, terminated, truncated = self._advance(actions)
        ended = terminated | truncated
        infos: dict[str, Any] = {}
        observations = self._observe(EVERY)
        if ended.any():
            infos["final_obs"], infos["_final_obs"] = observations, ended
            rows = np.flatnonzero(ended)
            self._start(rows)
            observations = _with_rows(observations, rows, self._observe(rows))
        infos.update(self._info())
        return observations, rewards, terminated, truncated, infos

    def _start(self, rows: NDArray[np.int64]) -> None:
        """Draw the starting state of the environments in ``rows``."""
        raise NotImplementedError

    def _advance(self, actions: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Take the actions; rewards, terminations and truncations, each ``(num_envs,)`` and freshly allocated."""
        raise NotImplementedError

    def _observe(self, rows: Rows) -> Any:
        """Return a fresh batch of the observations of ``rows``."""
        raise NotImplementedError

    def _info(self) -> dict[str, Any]:
        """Return the entries of ``infos`` that every step has."""
        return {}


def _with_rows(batch: Any, rows: NDArray[np.int64], fresh: Any) -> Any:
    """Return a copy of a batch (an array, or a tuple of arrays) with some rows replaced."""
    if isinstance(batch, tuple):
        return tuple(_with_rows(part, rows, new) for part, new in zip(batch, fresh, strict=True))
    copy = batch.copy()
    copy[rows] = fresh
    return copy
