"""Default hyperparameters per algorithm and task, by RLlib's own names. Knows no Ray.

They are tuned for the untutored student, so that no tutor wins against a straw man; a tutored student uses the same.
"""

from __future__ import annotations

from typing import Any

from rllib_plugins.config import Algorithm

_COMMON: dict[Algorithm, dict[str, Any]] = {"ppo": {}, "a2c": {}, "dqn": {}}

_PER_TASK: dict[tuple[Algorithm, str], dict[str, Any]] = {}


def default_hyperparameters(algorithm: Algorithm, task: str) -> dict[str, Any]:
    """The defaults of an algorithm on a task; for a task without its own, those of the algorithm.

    Args:
        algorithm: dqn, ppo or a2c.
        task: Name of the task.
    """
    return _COMMON[algorithm] | _PER_TASK.get((algorithm, task), {})
