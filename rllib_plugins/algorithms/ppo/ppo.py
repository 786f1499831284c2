"""PPO's config and training step: a rollout into arrays, then one learner update on them."""

from __future__ import annotations

from typing import Any

from ray.rllib.algorithms.ppo.ppo import PPO as RLlibPPO
from ray.rllib.algorithms.ppo.ppo import PPOConfig as RLlibPPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from rllib_plugins.algorithms.lean import LeanTraining
from rllib_plugins.algorithms.ppo.learner import PPOLearner
from rllib_plugins.algorithms.tutoring import TutoredConfig
from rllib_plugins.rollout.arrays import flat


class PPOConfig(TutoredConfig, RLlibPPOConfig):
    """Configure PPO; every field means what it means in RLlib. README.md lists the defaults that differ.

    Attributes:
        standardize_advantages: Standardise advantages over the train batch, as RLlib always does.
        orthogonal_init: Begin with orthogonal weights and a nearly uniform policy; see ``initialise_orthogonally``.
    """

    is_proximal = True

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or PPO)
        self._set_tutoring_defaults()
        self.standardize_advantages = True
        self.orthogonal_init = False
        self.training(
            lr=1e-3,
            gamma=0.99,
            lambda_=0.95,
            train_batch_size_per_learner=256,
            minibatch_size=64,
            num_epochs=10,
            clip_param=0.2,
            vf_clip_param=float("inf"),
            vf_loss_coeff=0.5,
            entropy_coeff=0.0,
            use_kl_loss=False,
            grad_clip=0.5,
        )
        self.env_runners(num_env_runners=0, num_envs_per_env_runner=8)
        self.learners(num_learners=0)
        self.rl_module(
            model_config=DefaultModelConfig(fcnet_hiddens=[64, 64], fcnet_activation="tanh", vf_share_layers=False)
        )

    @property
    def rollout_steps(self) -> int:
        """Return the vector steps per update: the train batch divided by the environments, rounded up."""
        return max(1, -(-int(self.total_train_batch_size) // self.num_trial_envs))

    def more_updates(self, factor: float) -> None:
        """Pass over each rollout more often."""
        self.num_epochs = round(self.num_epochs * factor)

    def learns_at(self, num_env_steps: int) -> bool:
        """Return True: every rollout is learnt from."""
        return True

    def validate(self) -> None:
        """Run RLlib's checks and tutoring's."""
        super().validate()
        self._validate_tutoring()

    def get_default_learner_class(self) -> Any:
        """Return the learner of this package."""
        return PPOLearner


class PPO(LeanTraining, RLlibPPO):
    """Train a PPO student, tutored or not."""

    learner: Any

    @classmethod
    def get_default_config(cls) -> PPOConfig:
        """Return the config of this package."""
        return PPOConfig()

    def after_sampling(self, start: int, stop: int) -> None:
        """Learn from a full rollout and its advice."""
        runner = self.runner
        if not runner.complete:
            return
        step = runner.num_env_steps_sampled_lifetime
        weights = self.advice.weights(step)
        self.advice.remember()
        if self.advice.learns_from_reward:
            rollout = runner.rollout
            if self.advice.adds_rewards:
                added = self.advice.rewards(flat(rollout.observations), flat(rollout.actions), step)
                rollout.rewards += added.reshape(rollout.rewards.shape)
            advantages = self.learner.update_from_rollout(
                rollout,
                num_env_steps=step,
                imitation_weights=weights,
                targets=self.advice.targets(flat(rollout.observations), step),
            )
            self.advice.compare(advantages)
        self.advice.imitate(self.learner, step, weights)
