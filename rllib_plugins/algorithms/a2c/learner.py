"""A2C's update on arrays: one step of the policy gradient, weighted by ρ, and imitation of advice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rllib_plugins.advising.decision import ImitationWeights
from rllib_plugins.algorithms.actor_critic import (
    UpdateBatch,
    common_gradient,
    make_update_batch,
    value_gradient,
)
from rllib_plugins.algorithms.imitation import (
    imitated_until,
    imitation_loss,
    log_policy,
    log_policy_array,
)
from rllib_plugins.algorithms.ppo.learner import PPOLearner
from rllib_plugins.rollout.arrays import RolloutArrays


class A2CLearner(PPOLearner):
    """Mnih et al. 2016 (arXiv 1602.01783), synchronous, with GAE."""

    config: Any
    _last: tuple[NDArray[np.float32], NDArray[np.float32], UpdateBatch[NDArray[Any]]] | None = None

    def update_from_rollout(
        self, rollout: RolloutArrays, *, num_env_steps: int, imitation_weights: ImitationWeights
    ) -> NDArray[np.float32]:
        """One gradient step on a complete rollout; arguments and result as PPO's."""
        self.follow_schedules(num_env_steps)
        batch, advantages = make_update_batch(rollout, self.config, imitation_weights)
        logits, values = self._view.forward(batch.observations)
        self._view.backward(*self.gradients(logits, values, batch, self._entropy_coeff(num_env_steps), 0.0))
        self.descend()
        self._last = logits, values, replace(batch, actions=batch.actions.copy())
        self.record(len(batch))
        return advantages

    def reduce_metrics(self) -> Any:
        """Statistics of the last batch: A2C's updates are many and small, and these would slow each of them."""
        if self._last is not None:
            logits, values, batch = self._last
            self._statistics = self.statistics(logits, values, batch)
            self._last = None
        return super().reduce_metrics()

    def gradients(
        self,
        logits: NDArray[np.float32],
        values: NDArray[np.float32],
        batch: UpdateBatch[NDArray[Any]],
        entropy_coeff: float,
        kl_coeff: float,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The gradients of ``loss`` by logits ``(B, A)`` and values ``(B,)``, written out."""
        logp = log_policy_array(logits, batch.illegal)
        chosen = batch.advantages / np.float32(-len(batch))
        by_logits = common_gradient(
            logp, np.exp(logp), chosen, batch, entropy_coeff, imitated_until(self.config.advice)
        )
        return by_logits, value_gradient(values, batch.targets, self.config.vf_loss_coeff)

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> torch.Tensor:
        """RLlib's path, for its own EnvRunner; tutored or not, the loss is A2C's."""
        return self.loss_on_columns(module_id, batch, fwd_out)

    def loss(
        self,
        logits: torch.Tensor,
        values: torch.Tensor,
        batch: UpdateBatch[torch.Tensor],
        entropy_coeff: float,
        kl_coeff: float,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """−ρ·A·log π + c_v·(V − target)² − c_e·H + imitation; arguments and result as PPO's."""
        config: Any = self.config
        logp = log_policy(logits, batch.illegal)
        policy_loss = -(batch.advantages * logp.gather(-1, batch.actions.unsqueeze(-1)).squeeze(-1)).mean()
        vf_loss = (values - batch.targets).square().mean()
        loss = policy_loss + config.vf_loss_coeff * vf_loss
        statistics = {"policy_loss": policy_loss.detach(), "vf_loss": vf_loss.detach()}
        entropy = -(logp.exp() * logp).sum(-1).mean()
        statistics["entropy"] = entropy.detach()
        if entropy_coeff:
            loss = loss - entropy_coeff * entropy
        return loss + imitation_loss(logp, batch.imitation, imitated_until(config.advice)), statistics
