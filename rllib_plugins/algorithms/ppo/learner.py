"""PPO's update on arrays: clipped surrogate, weighted by ρ, and imitation of advice."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns

from rllib_plugins import columns
from rllib_plugins.advising.decision import ImitationWeights
from rllib_plugins.algorithms.actor_critic import (
    UpdateBatch,
    as_tensors,
    common_gradient,
    make_update_batch,
    update_batch_from_columns,
    value_gradient,
)
from rllib_plugins.algorithms.array_learner import ArrayLearner
from rllib_plugins.algorithms.imitation import (
    add_imitation,
    imitated_until,
    imitation_loss,
    log_policy,
    log_policy_array,
)
from rllib_plugins.rollout.advice_memory import AdviceSample
from rllib_plugins.rollout.arrays import RolloutArrays
from rllib_plugins.rollout.network import ActorCriticView, initialise_orthogonally


class PPOLearner(ArrayLearner, PPOTorchLearner):
    """RLlib's PPO learner with an update on ``RolloutArrays``."""

    def build(self) -> None:
        """Builds what RLlib builds."""
        super().build()
        if self.config.orthogonal_init:
            initialise_orthogonally(self.module[DEFAULT_MODULE_ID].unwrapped())
        self._rng = np.random.default_rng(self.config.seed)

    def bind(self, module: Any) -> None:
        """Makes the lean view on the module."""
        self._view = ActorCriticView(module)

    def update_from_rollout(
        self, rollout: RolloutArrays, *, num_env_steps: int, imitation_weights: ImitationWeights
    ) -> NDArray[np.float32]:
        """``num_epochs`` passes over a complete rollout in shuffled minibatches.

        Args:
            rollout: Complete rollout.
            num_env_steps: Env steps sampled so far: the place in learning-rate and entropy schedules.
            imitation_weights: λ of the imitation term.

        Returns:
            The rollout's advantages ``(num_steps, num_envs)``, not standardised.
        """
        config: Any = self.config
        self.follow_schedules(num_env_steps)
        entropy_coeff = self._entropy_coeff(num_env_steps)
        kl_coeff = float(self.curr_kl_coeffs_per_module[DEFAULT_MODULE_ID]) if config.use_kl_loss else 0.0
        batch, advantages = make_update_batch(rollout, config, imitation_weights)
        size = min(config.minibatch_size or len(batch), len(batch))
        for _ in range(config.num_epochs):
            shuffled = batch.permuted(self._rng.permutation(len(batch)))
            for minibatch in shuffled.minibatches(size):
                logits, values = self._view.forward(minibatch.observations)
                self._view.backward(*self.gradients(logits, values, minibatch, entropy_coeff, kl_coeff))
                self.descend()
        statistics = self.statistics(*self._view.act(batch.observations[:size]), batch.part(0, size))
        if config.use_kl_loss:
            self._update_module_kl_coeff(module_id=DEFAULT_MODULE_ID, config=config, kl_loss=statistics["mean_kl_loss"])
        self.record(len(batch) * config.num_epochs, **statistics)
        return advantages

    def imitate(self, sample: AdviceSample) -> float:
        """Writes the gradient of ``imitation_loss`` at weight 1; returns the share of steps that it counts."""
        logits = self._view.forward_policy(sample.observations)
        policy = np.exp(log_policy_array(logits, None if sample.legal is None else ~sample.legal))
        gradient = np.zeros_like(policy)
        num_open = add_imitation(gradient, policy, sample.advice, np.float32(imitated_until(self.config.advice)))
        self._view.backward_policy(gradient)
        return num_open / len(gradient)

    def statistics(
        self, logits: NDArray[np.float32], values: NDArray[np.float32], batch: UpdateBatch[NDArray[Any]]
    ) -> dict[str, float]:
        """What is worth logging about some steps, given the policy's logits and values there."""
        with torch.no_grad():
            _, statistics = self.loss(torch.from_numpy(logits), torch.from_numpy(values), as_tensors(batch), 0.0, 0.0)
        return {name: float(value) for name, value in statistics.items()}

    def _entropy_coeff(self, num_env_steps: int) -> float:
        return float(self.entropy_coeff_schedulers_per_module[DEFAULT_MODULE_ID].update(timestep=num_env_steps))

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> torch.Tensor:
        """RLlib's path, for its own EnvRunner: its own loss where nobody was tutored, else this one on its columns."""
        if columns.BEHAVIOUR_LOGP not in batch:
            loss: Any = super().compute_loss_for_module(
                module_id=module_id, config=config, batch=batch, fwd_out=fwd_out
            )
            return loss
        return self.loss_on_columns(module_id, batch, fwd_out)

    def loss_on_columns(self, module_id: str, batch: dict[str, Any], fwd_out: dict[str, Any]) -> torch.Tensor:
        """``loss`` of a batch and forward pass in RLlib's form."""
        config: Any = self.config
        values = self.module[module_id].unwrapped().compute_values(batch, embeddings=fwd_out.get(Columns.EMBEDDINGS))
        entropy_coeff = self.entropy_coeff_schedulers_per_module[module_id].get_current_value()
        kl_coeff = self.curr_kl_coeffs_per_module[module_id] if config.use_kl_loss else 0.0
        update, chosen = update_batch_from_columns(batch, config, values.detach(), self.imitation_weights)
        loss, statistics = self.loss(
            fwd_out[Columns.ACTION_DIST_INPUTS][chosen], values[chosen], update, float(entropy_coeff), float(kl_coeff)
        )
        self.metrics.log_dict(statistics, key=module_id, window=1)
        return loss

    def loss(
        self,
        logits: torch.Tensor,
        values: torch.Tensor,
        batch: UpdateBatch[torch.Tensor],
        entropy_coeff: float,
        kl_coeff: float,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Clipped surrogate (Schulman et al. 2017, arXiv 1707.06347, eq. 7) around π_old; ρ is in the advantages.

        Args:
            logits: ``(B, A)``.
            values: ``(B,)``.
            batch: The steps.
            entropy_coeff: Weight of the entropy bonus.
            kl_coeff: Weight of KL(π_old ‖ π), where the batch has ``old_logits``.

        Returns:
            The loss, and what is worth logging.
        """
        config: Any = self.config
        logp = log_policy(logits, batch.illegal)
        ratio = torch.exp(logp.gather(-1, batch.actions.unsqueeze(-1)).squeeze(-1) - batch.old_logp)
        clipped = ratio.clamp(1.0 - config.clip_param, 1.0 + config.clip_param)
        policy_loss = -torch.minimum(ratio * batch.advantages, clipped * batch.advantages).mean()
        squared = (values - batch.targets).square()
        if config.vf_clip_param != float("inf"):
            squared = squared.clamp(max=config.vf_clip_param)
        vf_loss = squared.mean()
        loss = policy_loss + config.vf_loss_coeff * vf_loss
        statistics = {"policy_loss": policy_loss.detach(), "vf_loss": vf_loss.detach()}
        entropy = -(logp.exp() * logp).sum(-1).mean()
        statistics["entropy"] = entropy.detach()
        if entropy_coeff:
            loss = loss - entropy_coeff * entropy
        if batch.imitation is not None:
            imitation = imitation_loss(logp, batch.imitation, imitated_until(config.advice))
            loss = loss + imitation
        if batch.old_logits is not None:
            old_logp = log_policy(batch.old_logits, batch.illegal)
            kl = (old_logp.exp() * (old_logp - logp)).sum(-1).mean()
            loss = loss + kl_coeff * kl
            statistics["mean_kl_loss"] = kl.detach()
        return loss, statistics

    def gradients(
        self,
        logits: NDArray[np.float32],
        values: NDArray[np.float32],
        batch: UpdateBatch[NDArray[Any]],
        entropy_coeff: float,
        kl_coeff: float,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The gradients of ``loss`` by logits ``(B, A)`` and values ``(B,)``, written out."""
        config: Any = self.config
        size = np.float32(len(batch))
        logp = log_policy_array(logits, batch.illegal)
        policy = np.exp(logp)
        ratio = np.exp(logp[np.arange(len(batch)), batch.actions] - batch.old_logp)
        beyond = np.where(batch.advantages > 0, ratio > 1.0 + config.clip_param, ratio < 1.0 - config.clip_param)
        chosen = np.where(beyond, np.float32(0), ratio * batch.advantages) / -size
        by_logits = common_gradient(logp, policy, chosen, batch, entropy_coeff, imitated_until(config.advice))
        if batch.old_logits is not None:
            by_logits += (policy - np.exp(log_policy_array(batch.old_logits, batch.illegal))) * (kl_coeff / size)
        return by_logits, value_gradient(values, batch.targets, config.vf_loss_coeff, config.vf_clip_param)

    def get_lean_state(self) -> dict[str, Any]:
        """The order of minibatches and the KL coefficient too."""
        state = super().get_lean_state() | {"rng": self._rng.bit_generator.state}
        if self.config.use_kl_loss:
            state["kl_coeff"] = float(self.curr_kl_coeffs_per_module[DEFAULT_MODULE_ID])
        return state

    def set_lean_state(self, state: dict[str, Any]) -> None:
        """Takes a ``get_lean_state``."""
        super().set_lean_state(state)
        self._rng.bit_generator.state = state["rng"]
        if "kl_coeff" in state:
            coefficient: Any = self.curr_kl_coeffs_per_module[DEFAULT_MODULE_ID]
            coefficient.data.fill_(state["kl_coeff"])
