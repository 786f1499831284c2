"""Look at what one environment shows when it is made, and whether a task can use it at all."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium as gym
from gymnasium import spaces

from rllib_plugins.tasks.gymnasium_check import checked_reset, checked_step
from rllib_plugins.tasks.masks import MaskSource, find_mask, read_mask


class Probe(NamedTuple):
    """What one environment shows when it is made.

    Attributes:
        observation_space: The environment's own.
        action_space: The environment's own.
        observation: A first one.
        mask: Where it says which actions are legal; None: nowhere.
        time_limit: Env steps after which Gymnasium ends an episode; None: no limit.
    """

    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    observation: Any
    mask: MaskSource | None
    time_limit: int | None


def probe(env: gym.Env[Any, Any], where: str) -> Probe:
    """Reset an environment and take one legal action.

    Args:
        env: As ``gymnasium.make`` gives it.
        where: What to call it in errors.

    Raises:
        UserError: It does not speak Gymnasium's API, or fails.
    """
    observation, info = checked_reset(env, where)
    mask, space = None, env.action_space
    if isinstance(space, spaces.Discrete):
        first = 0
        mask = find_mask(env, observation, info)
        if mask is not None and (legal := read_mask(mask.shown(env, observation, info), mask, space)) is not None:
            first = int(legal.argmax())
        step = checked_step(env, int(space.start) + first, where)
        mask = mask or find_mask(env, step.observation, step.info)
    limit = None if env.spec is None else env.spec.max_episode_steps
    return Probe(env.observation_space, space, observation, mask, limit)
