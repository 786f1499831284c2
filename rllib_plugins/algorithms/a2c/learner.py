"""A2C's update: one step of the policy gradient per rollout."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rllib_plugins.advising.config import ImitationWeights
from rllib_plugins.algorithms.actor_critic import make_update_batch
from rllib_plugins.algorithms.losses import Objective
from rllib_plugins.algorithms.ppo.learner import PPOLearner
from rllib_plugins.rollout.arrays import NO_ROWS, RolloutArrays


class A2CLearner(PPOLearner):
    """Mnih et al. 2016 (arXiv 1602.01783), synchronous, with GAE."""

    def update_from_rollout(
        self,
        rollout: RolloutArrays,
        *,
        num_env_steps: int,
        imitation_weights: ImitationWeights,
        targets: NDArray[np.float32] = NO_ROWS,
    ) -> NDArray[np.float32]:
        """Take one gradient step on a complete rollout; arguments and result as PPO's."""
        self.follow_schedules(num_env_steps)
        batch, advantages = make_update_batch(rollout, self.config, imitation_weights, targets)
        self._latest = self._learn(batch, self._objective_at(num_env_steps, targets))
        self.num_steps_trained += len(batch.actions)
        return advantages

    def objective(self, entropy_coeff: float, kl_coeff: float) -> Objective:
        """Return PPO's weights without clipping and KL."""
        unclipped = {"clip": np.float32(-1), "vf_clip": np.float32(np.inf), "kl_coeff": np.float32(0)}
        return super().objective(entropy_coeff, kl_coeff)._replace(**unclipped)

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> torch.Tensor:
        """RLlib's path, for its own EnvRunner; tutored or not, the loss is A2C's."""
        return self.loss_on_columns(module_id, batch, fwd_out)
