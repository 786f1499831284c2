"""Put features beside a task's observations, and take them off again, where a student sees more than its task shows."""

from __future__ import annotations

import numpy as np
from gymnasium.spaces import Box

from rllib_plugins.array_types import Bools, Floats32
from rllib_plugins.tasks import Task


def widened(space: Box, num_features: int) -> Box:
    """Return a space of flat observations with so many features behind them, each from −1 to 1."""
    if not num_features:
        return space
    ones = np.ones(num_features, np.float32)
    return Box(np.append(space.low, -ones), np.append(space.high, ones), dtype=np.float32)


def widen(observations: Floats32, width: int) -> Floats32:
    """Return observations ``(n, obs_dim)`` as ``(n, width)``, with zeros behind; the same where nothing is missing."""
    num_missing = width - observations.shape[1]
    return observations if not num_missing else np.pad(observations, ((0, 0), (0, num_missing)))


def own_part(task: Task, observations: Floats32) -> Floats32:
    """Return the task's own part ``(n, obs_dim)``, C-contiguous, of observations that may have features behind."""
    width = task.observation_space.shape[0]
    return observations if observations.shape[1] == width else np.ascontiguousarray(observations[:, :width])


def legal_actions(task: Task, observations: Floats32) -> Bools | None:
    """Return masks ``(n, num_actions)`` for observations that may have features behind; None: all are always legal."""
    return task.legal_batch(own_part(task, observations))
