"""PPO's training step: a rollout into arrays, then one learner update on them."""

from __future__ import annotations

from typing import Any

from ray.rllib.algorithms.ppo.ppo import PPO as RLlibPPO

from rllib_plugins.algorithms.lean import LeanTraining
from rllib_plugins.algorithms.ppo.config import PPOConfig


class PPO(LeanTraining, RLlibPPO):
    """PPO that can be tutored."""

    learner: Any

    @classmethod
    def get_default_config(cls) -> PPOConfig:
        """The config of this package."""
        return PPOConfig()

    def after_sampling(self, start: int, stop: int) -> None:
        """Learns from a full rollout and tells the exploration core what its advice was worth."""
        runner = self.runner
        if not runner.complete:
            return
        step = runner.num_env_steps_sampled_lifetime
        weights = runner.core.imitation(step)
        advantages = self.learner.update_from_rollout(runner.rollout, num_env_steps=step, imitation_weights=weights)
        self.advice_replay.add(runner.rollout, runner.core.num_consultations)
        self.advice_replay.learn(self.learner, weights.replay)
        runner.core.observe(advantages, runner.rollout.heads, runner.rollout.eligible)
