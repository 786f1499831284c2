"""A2C's config, on RLlib's PPO config: the same module, GAE and names. Knows no loss."""

from __future__ import annotations

from typing import Any

from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_plugins.algorithms.ppo.config import PPOConfig


class A2CConfig(PPOConfig):
    """One gradient step per rollout; ``num_epochs``, ``minibatch_size``, ``clip_param`` and the KL term play no part.

    Attributes:
        standardize_advantages: Standardise advantages over the rollout; off, as in Mnih et al. 2016.
    """

    def __init__(self, algo_class: Any = None) -> None:
        from rllib_plugins.algorithms.a2c.algorithm import A2C

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

    def get_default_learner_class(self) -> Any:
        """The learner of this package."""
        from rllib_plugins.algorithms.a2c.learner import A2CLearner

        return A2CLearner
