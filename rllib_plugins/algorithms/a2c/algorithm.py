"""A2C's training step: PPO's, with A2C's learner. Importing this registers ``A2C`` with Tune."""

from __future__ import annotations

from ray.tune.registry import register_trainable

from rllib_plugins.algorithms.a2c.config import A2CConfig
from rllib_plugins.algorithms.ppo.algorithm import PPO


class A2C(PPO):
    """Advantage Actor-Critic that can be tutored."""

    @classmethod
    def get_default_config(cls) -> A2CConfig:
        """The config of this package."""
        return A2CConfig()


def register() -> None:
    """Registers ``A2C`` with Tune, whose names belong to a Ray session: call it again after a new ``ray.init``."""
    register_trainable("A2C", A2C)


register()
