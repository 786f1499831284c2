"""Tell whether an environment can be restored from a checkpoint in the middle of an episode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from rllib_plugins.tasks.flat import FlatEnv, dumps, loads
from rllib_plugins.tasks.gymnasium_check import failure

_NUM_COPIES = 2
_STEPS_BEFORE, _STEPS_TOGETHER = 3, 5

Legal = Callable[[NDArray[np.float32]], NDArray[np.bool_] | None]


def why_not_resumable(env: FlatEnv, legal: Legal) -> str | None:
    """Return why a pickled copy does not go on as the environment does; None where it does.

    Args:
        env: The environment; it is played.
        legal: Masks ``(n, num_actions)`` for flat observations, or None.
    """
    for layer in _layers(env.env):
        state: Any = getattr(type(layer), "__getstate__", None)
        if getattr(state, "__qualname__", "").startswith("EzPickle."):
            return f"{type(layer).__name__} unpickles by its constructor (EzPickle), without its state"
    rng = np.random.default_rng(0)
    observation, _ = env.reset(seed=0)
    for _ in range(_NUM_COPIES):
        for _ in range(_STEPS_BEFORE):
            observation, _, terminated, truncated, _ = env.step(_draw(observation, env, legal, rng))
            if terminated or truncated:
                observation, _ = env.reset()
        try:
            copy = FlatEnv(loads(dumps(env.env)), env.view)
        except Exception as error:
            return f"it cannot be pickled ({failure(error)})"
        for _ in range(_STEPS_TOGETHER):
            action = _draw(observation, env, legal, rng)
            observation, *told = env.step(action)[:4]
            try:
                other, *other_told = copy.step(action)[:4]
            except Exception as error:
                return f"its unpickled copy fails ({failure(error)})"
            if told != other_told or not np.array_equal(observation, other, equal_nan=True):
                return "its unpickled copy goes on differently"
            if told[1] or told[2]:
                observation, _ = env.reset()
                break
        try:
            copy.reset()
        except Exception as error:
            return f"its unpickled copy cannot be reset ({failure(error)})"
    return None


def _layers(env: gym.Env[Any, Any]) -> Iterator[gym.Env[Any, Any]]:
    yield env
    while isinstance(env, gym.Wrapper):
        env = env.env
        yield env


def _draw(observation: NDArray[np.float32], env: FlatEnv, legal: Legal, rng: np.random.Generator) -> int:
    mask = legal(observation[None])
    return int(rng.choice(env.num_actions if mask is None else np.flatnonzero(mask[0])))
