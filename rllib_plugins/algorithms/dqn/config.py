"""DQN's config: RLlib's own, with tutoring. Knows no loss."""

from __future__ import annotations

from typing import Any

import numpy as np
from ray.rllib.algorithms.dqn.dqn import DQNConfig as RLlibDQNConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_plugins.algorithms.tutoring import TutoredConfig
from tutor_service.errors import UserError

TRUST_WINDOW_STEPS = 16
"""Vector steps over which advantages are estimated for earned trust."""


class DQNConfig(TutoredConfig, RLlibDQNConfig):
    """RLlib's DQN config; every field means what it means there. See README.md for the defaults that differ.

    Attributes:
        imitation_temperature: T of the soft margin on advised actions, in units of Q: the student follows advice where
            softmax(Q/T) does. Typical: 0.1 to 0.3 for returns of around 1.
    """

    value_based = True

    def __init__(self, algo_class: Any = None) -> None:
        from rllib_plugins.algorithms.dqn.algorithm import DQN

        super().__init__(algo_class=algo_class or DQN)
        self._set_tutoring_defaults()
        self.imitation_temperature = 0.2
        self.training(
            lr=1e-3,
            gamma=0.99,
            train_batch_size_per_learner=64,
            num_steps_sampled_before_learning_starts=500,
            target_network_update_freq=500,
            epsilon=[(0, 1.0), (4_000, 0.05)],
            double_q=True,
            dueling=False,
            grad_clip=10,
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 50_000},
        )
        self.env_runners(num_env_runners=0, num_envs_per_env_runner=8)
        self.reporting(min_sample_timesteps_per_iteration=0)
        self.learners(num_learners=0)
        self.rl_module(
            model_config=DefaultModelConfig(fcnet_hiddens=[64, 64], fcnet_activation="relu", head_fcnet_hiddens=[])
        )

    @property
    def rollout_steps(self) -> int:
        """Vector steps of a rollout: whole fragments, and enough to estimate advantages over."""
        fragment = int(self.get_rollout_fragment_length())
        return -(-TRUST_WINDOW_STEPS // fragment) * fragment

    def epsilon_at(self, num_own_steps: int) -> float:
        """ε by RLlib's schedule after so many steps of the student's own: linear between points, constant outside."""
        if isinstance(self.epsilon, (int, float)):
            return float(self.epsilon)
        steps, values = zip(*self.epsilon, strict=True)
        return float(np.interp(num_own_steps, steps, values))

    def validate(self) -> None:
        """RLlib's checks and tutoring's.

        Raises:
            UserError: A variant that the lean learner does not have, or a temperature that is none.
        """
        super().validate()
        self._validate_tutoring()
        if not self.imitation_temperature > 0:
            raise UserError(f"imitation_temperature={self.imitation_temperature!r}: it must be above 0, e.g. 0.2")
        if self.rollout == "lean" and not self.in_evaluation:
            for name, value, only in (
                ("n_step", self.n_step, 1),
                ("num_atoms", self.num_atoms, 1),
                ("noisy", self.noisy, False),
                ("replay_buffer_config.type", self.replay_buffer_config.get("type"), "EpisodeReplayBuffer"),
            ):
                if value != only:
                    raise UserError(f"{name}={value!r}: the lean DQN has only {only!r}; choose it, or rollout: stock")

    def get_default_learner_class(self) -> Any:
        """The learner of this package."""
        from rllib_plugins.algorithms.dqn.learner import DQNLearner

        return DQNLearner
