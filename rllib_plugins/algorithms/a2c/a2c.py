"""A2C's config and algorithm, on PPO's: the same module, GAE and names. Importing this registers ``A2C`` with Tune."""

from __future__ import annotations

from typing import Any

from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.tune.registry import register_trainable

from rllib_plugins.algorithms.a2c.learner import A2CLearner
from rllib_plugins.algorithms.ppo.ppo import PPO, PPOConfig


class A2CConfig(PPOConfig):
    """Configure A2C, which takes one gradient step per rollout.

    PPO's ``num_epochs``, ``minibatch_size``, ``clip_param``, ``vf_clip_param`` and KL fields are not used.

    Attributes:
        standardize_advantages: Standardise advantages over the rollout; off, as in Mnih et al. 2016.
    """

    is_proximal = False

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or A2C)
        self.standardize_advantages = False
        self.training(
            lr=7e-4,
            gamma=0.99,
            lambda_=1.0,
            train_batch_size_per_learner=40,
            minibatch_size=None,
            num_epochs=1,
            vf_loss_coeff=0.5,
            entropy_coeff=0.0,
            grad_clip=0.5,
            optimizer={"type": "rmsprop", "alpha": 0.99, "eps": 1e-5},
        )
        self.rl_module(
            model_config=DefaultModelConfig(fcnet_hiddens=[64, 64], fcnet_activation="tanh", vf_share_layers=False)
        )

    def more_updates(self, factor: float) -> None:
        """Update from smaller rollouts, of whole vector steps."""
        steps = self.train_batch_size_per_learner / self.num_envs_per_env_runner
        self.train_batch_size_per_learner = max(1, round(steps / factor)) * self.num_envs_per_env_runner

    def get_default_learner_class(self) -> Any:
        """Return the learner of this package."""
        return A2CLearner


class A2C(PPO):
    """Train an Advantage Actor-Critic student, tutored or not."""

    @classmethod
    def get_default_config(cls) -> A2CConfig:
        """Return the config of this package."""
        return A2CConfig()


def register() -> None:
    """Register ``A2C`` with Tune, whose names belong to a Ray session: call it again after a new ``ray.init``."""
    register_trainable("A2C", A2C)


register()
