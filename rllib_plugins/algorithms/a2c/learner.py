"""A2C's update on arrays: one step of the policy gradient, weighted by ρ, and imitation of advice."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rllib_plugins.algorithms.actor_critic import UpdateBatch, imitation_loss, log_policy, make_update_batch
from rllib_plugins.algorithms.ppo.learner import PPOLearner
from rllib_plugins.rollout.arrays import RolloutArrays


class A2CLearner(PPOLearner):
    """Mnih et al. 2016 (arXiv 1602.01783), synchronous, with GAE."""

    def update_from_rollout(
        self, rollout: RolloutArrays, *, num_env_steps: int, imitation_weight: float
    ) -> NDArray[np.float32]:
        """One gradient step on a complete rollout; arguments and result as PPO's."""
        self.follow_schedules(num_env_steps)
        batch, advantages = make_update_batch(rollout, self.config, imitation_weight)
        logits, values = self._view.forward(batch.observations)
        loss, statistics = self.loss(logits, values, batch, self._entropy_coeff(num_env_steps), 0.0)
        self.descend(loss)
        self.record(len(batch), **statistics)
        return advantages

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> torch.Tensor:
        """RLlib's path, for its own EnvRunner; tutored or not, the loss is A2C's."""
        return self.loss_on_columns(module_id, batch, fwd_out)

    def loss(
        self,
        logits: torch.Tensor,
        values: torch.Tensor,
        batch: UpdateBatch,
        entropy_coeff: float,
        kl_coeff: float,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        """−ρ·A·log π + c_v·(V − target)² − c_e·H + imitation; arguments and result as PPO's."""
        config: Any = self.config
        logp = log_policy(logits, batch.illegal)
        policy_loss = -(batch.advantages * logp.gather(-1, batch.actions).squeeze(-1)).mean()
        vf_loss = (values - batch.targets).square().mean()
        loss = policy_loss + config.vf_loss_coeff * vf_loss
        statistics: dict[str, torch.Tensor | float] = {"policy_loss": policy_loss.detach(), "vf_loss": vf_loss.detach()}
        if entropy_coeff:
            entropy = -(logp.exp() * logp).sum(-1).mean()
            loss = loss - entropy_coeff * entropy
            statistics["entropy"] = entropy.detach()
        return loss + imitation_loss(logp, batch.imitation), statistics
