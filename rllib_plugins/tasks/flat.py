"""Environments as students see them: flat float32 observations, actions from 0, SAME_STEP autoreset.

Knows Gymnasium only; the encoding is handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray


class FlatEnv(gym.Wrapper[NDArray[np.float32], int, Any, Any]):
    """One environment with encoded observations and actions ``0 … num_actions − 1``."""

    def __init__(
        self,
        env: gym.Env[Any, Any],
        encode: Callable[[Any], NDArray[np.float32]],
        observation_space: spaces.Box,
        num_actions: int,
    ) -> None:
        super().__init__(env)
        self._encode = encode
        self._first_action = int(getattr(env.action_space, "start", 0))
        self.observation_space = observation_space
        self.action_space = spaces.Discrete(num_actions)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Starts an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._encode(observation), info

    def step(self, action: int) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Takes action ``0 … num_actions − 1``."""
        observation, reward, terminated, truncated, info = self.env.step(int(action) + self._first_action)
        return self._encode(observation), float(reward), terminated, truncated, info


class TurnsVectorEnv(gym.vector.SyncVectorEnv):
    """Flat environments stepped one after the other: Gymnasium's, in SAME_STEP mode, without its dispatch by spaces."""

    def __init__(self, make: Callable[[], gym.Env[Any, Any]], num_envs: int) -> None:
        """Makes ``num_envs`` environments."""
        super().__init__([make] * num_envs, copy=False, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps all environments; ``actions`` is ``(num_envs,)``."""
        infos: dict[str, Any] = {}
        observations, rewards, terminations, truncations = [], [], [], []
        for i, (env, action) in enumerate(zip(self.envs, np.asarray(actions).tolist(), strict=True)):
            observation, reward, terminated, truncated, info = env.step(action)
            if terminated or truncated:
                infos = self._add_info(infos, {"final_obs": observation, "final_info": info}, i)
                observation, info = env.reset()
            if info:
                infos = self._add_info(infos, info, i)
            observations.append(observation)
            rewards.append(reward)
            terminations.append(terminated)
            truncations.append(truncated)
        batch: Any = self._observations
        np.concatenate(observations, out=batch.reshape(-1))
        flags = np.array([terminations, truncations], dtype=bool)
        return batch, np.array(rewards), flags[0], flags[1], infos


class FlatVectorEnv(gym.vector.VectorWrapper):
    """A vector environment with encoded observations; its first reset is seeded.

    ``infos["final_obs"]``, present in steps where an episode ended, is float32 ``(num_envs, obs_dim)``: rows outside
    the mask ``infos["_final_obs"]`` mean nothing.
    """

    def __init__(
        self,
        env: gym.vector.VectorEnv[Any, Any, Any],
        encode_batch: Callable[[Any], NDArray[np.float32]] | None,
        observation_space: spaces.Box,
        seed: int,
    ) -> None:
        """Wraps a SAME_STEP vector environment.

        Args:
            env: The environment; without ``encode_batch`` its observations are flat already.
            encode_batch: From the environment's batch of observations to ``(num_envs, obs_dim)`` float32.
            observation_space: Of one flat observation.
            seed: Of the first reset.
        """
        super().__init__(env)
        self._encode = encode_batch
        self._seed: int | None = seed
        self.single_observation_space = observation_space
        self.observation_space = batch_space(observation_space, env.num_envs)

    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts all episodes anew; without a seed the first reset takes the one of the constructor."""
        if seed is None:
            seed, self._seed = self._seed, None
        observations, infos = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        return self._flat(observations), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps all environments; ``actions`` is ``(num_envs,)``."""
        observations, rewards, terminations, truncations, infos = self.env.step(actions)
        if "final_obs" in infos:
            infos["final_obs"] = self._flat_final(infos["final_obs"], infos["_final_obs"])
        return self._flat(observations), rewards, terminations, truncations, infos

    def _flat(self, observations: Any) -> NDArray[np.float32]:
        return observations.copy() if self._encode is None else self._encode(observations)

    def _flat_final(self, final: Any, ended: NDArray[np.bool_]) -> NDArray[np.float32]:
        if self._encode is not None:
            return self._encode(final)
        flat = np.zeros(self.observation_space.shape or (), dtype=np.float32)
        flat[ended] = np.stack(final[ended])
        return flat
