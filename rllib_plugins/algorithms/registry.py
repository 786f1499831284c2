"""The algorithms by name. One more is an entry here, a folder beside this file, and ``hyperparameters`` of its own."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

Algorithm = Literal["dqn", "ppo", "a2c"]

_CONFIGS: dict[Algorithm, str] = {
    "dqn": "rllib_plugins.algorithms.dqn.dqn:DQNConfig",
    "ppo": "rllib_plugins.algorithms.ppo.ppo:PPOConfig",
    "a2c": "rllib_plugins.algorithms.a2c.a2c:A2CConfig",
}

ALGORITHMS: tuple[Algorithm, ...] = tuple(_CONFIGS)


def make_config(name: Algorithm) -> Any:
    """Return the default config of an algorithm, a ``TutoredConfig``; Ray and torch are imported here."""
    module, _, config = _CONFIGS[name].partition(":")
    return getattr(import_module(module), config)()
