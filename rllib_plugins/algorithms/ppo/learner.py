"""PPO's update: passes over a rollout in minibatches, on arrays or by RLlib's own path."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns

from rllib_plugins.advising.config import ImitationWeights
from rllib_plugins.algorithms.actor_critic import as_torch_loss, make_update_batch, part, update_batch_from_columns
from rllib_plugins.algorithms.advice import imitated_until
from rllib_plugins.algorithms.array_learner import ArrayLearner
from rllib_plugins.algorithms.losses import (
    ALWAYS,
    Objective,
    Statistics,
    UpdateBatch,
    add_imitation,
    loss_and_gradients,
)
from rllib_plugins.algorithms.updates import OTHER, learn, learn_in_passes
from rllib_plugins.connectors import columns
from rllib_plugins.rollout.arrays import NO_ROWS, RolloutArrays
from rllib_plugins.rollout.mlp import Network
from rllib_plugins.rollout.network import ActorCriticView, initialise_orthogonally
from rllib_plugins.uses.base import AdviceSample


class PPOLearner(ArrayLearner, PPOTorchLearner):
    """RLlib's PPO learner with an update on ``RolloutArrays``."""

    def build(self) -> None:
        """Build what RLlib builds."""
        super().build()
        if self.config.orthogonal_init:
            initialise_orthogonally(self.module[DEFAULT_MODULE_ID].unwrapped())
        self._rng = np.random.default_rng(self.config.seed)
        self._latest: Statistics | None = None

    def bind(self, module: Any) -> None:
        """Make the lean view on the module."""
        self._view = ActorCriticView(module)

    @property
    def network(self) -> Network:
        """Return actor and critic."""
        return self._view.network

    def update_from_rollout(
        self,
        rollout: RolloutArrays,
        *,
        num_env_steps: int,
        imitation_weights: ImitationWeights,
        targets: NDArray[np.float32] = NO_ROWS,
    ) -> NDArray[np.float32]:
        """Make ``num_epochs`` passes over a complete rollout in shuffled minibatches.

        Args:
            rollout: Complete rollout.
            num_env_steps: Env steps sampled so far: the place in learning-rate and entropy schedules.
            imitation_weights: λ of the imitation term.
            targets: ``(T·N, A)`` what the imitation term has in place of the rollout's advised actions, its weight
                included; or ``NO_ROWS``.

        Returns:
            The rollout's advantages ``(num_steps, num_envs)``, not standardised.
        """
        self.follow_schedules(num_env_steps)
        objective = self._objective_at(num_env_steps, targets)
        batch, advantages = make_update_batch(rollout, self.config, imitation_weights, targets)
        num_steps = len(batch.actions)
        size = min(self.config.minibatch_size or num_steps, num_steps)
        orders = np.stack([self._rng.permutation(num_steps) for _ in range(self.config.num_epochs)])
        workspace, optimiser = self._view.workspace(size), self.optimiser()
        if optimiser.kind == OTHER:
            for order in orders:
                for start in range(0, num_steps, size):
                    self._learn(part(batch, order[start : start + size]), objective)
        else:
            learn_in_passes(self.network, batch, orders, size, objective, workspace, optimiser)
        first = part(batch, slice(0, size))
        self._latest = loss_and_gradients(*self._view.act(first.observations), first, objective).statistics
        if self.config.use_kl_loss:
            self._update_module_kl_coeff(module_id=DEFAULT_MODULE_ID, config=self.config, kl_loss=self._latest.kl)
        self.num_steps_trained += num_steps * self.config.num_epochs
        return advantages

    def _learn(self, batch: UpdateBatch, objective: Objective) -> Statistics:
        """Take one gradient step; the statistics are those before it."""
        optimiser, workspace = self.optimiser(), self._view.workspace(len(batch.actions))
        statistics = learn(self.network, batch, objective, workspace, optimiser)
        if optimiser.kind == OTHER:
            self._optimizer.step()
        return statistics

    def imitate(self, sample: AdviceSample, until: float) -> float:
        """Write the gradient of ``add_imitation``; return the share of steps that it counts."""
        logits = self._view.scores(sample.observations)
        by_logits = np.zeros_like(logits)
        num_open = add_imitation(logits, sample.legal, sample.advice, np.float32(1), np.float32(until), by_logits)
        self._view.backward_policy(sample.observations, by_logits)
        return num_open / len(logits)

    def statistics(self) -> dict[str, float]:
        """Return the parts of the loss in the latest update."""
        return {} if self._latest is None else self._named(self._latest)

    def _named(self, statistics: Statistics) -> dict[str, float]:
        named = {"policy_loss": statistics.policy_loss, "vf_loss": statistics.vf_loss, "entropy": statistics.entropy}
        return named | ({"mean_kl_loss": statistics.kl} if self.config.use_kl_loss else {})

    def objective(self, entropy_coeff: float, kl_coeff: float) -> Objective:
        """Return the weights of the loss.

        Args:
            entropy_coeff: Weight of the entropy bonus.
            kl_coeff: Weight of KL(π_old ‖ π).
        """
        config: Any = self.config
        return Objective(
            clip=np.float32(config.clip_param),
            vf_clip=np.float32(config.vf_clip_param),
            vf_coeff=np.float32(config.vf_loss_coeff),
            entropy_coeff=np.float32(entropy_coeff),
            kl_coeff=np.float32(kl_coeff),
            until=np.float32(imitated_until(config.advice)),
        )

    def _objective_at(self, num_env_steps: int, targets: NDArray[np.float32]) -> Objective:
        entropy_coeff = self.entropy_coeff_schedulers_per_module[DEFAULT_MODULE_ID].update(timestep=num_env_steps)
        objective = self.objective(float(entropy_coeff), self._kl_coeff(DEFAULT_MODULE_ID))
        return objective._replace(until=ALWAYS) if len(targets) else objective

    def _kl_coeff(self, module_id: str) -> float:
        return float(self.curr_kl_coeffs_per_module[module_id]) if self.config.use_kl_loss else 0.0

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
        """Compute the loss of a batch and forward pass in RLlib's form."""
        values = self.module[module_id].unwrapped().compute_values(batch, embeddings=fwd_out.get(Columns.EMBEDDINGS))
        entropy_coeff = self.entropy_coeff_schedulers_per_module[module_id].get_current_value()
        objective = self.objective(float(entropy_coeff), self._kl_coeff(module_id))
        update, chosen = update_batch_from_columns(batch, self.config, values.detach(), self.imitation_weights)
        logits, values = fwd_out[Columns.ACTION_DIST_INPUTS][chosen], values[chosen]
        result = loss_and_gradients(logits.detach().cpu().numpy(), values.detach().cpu().numpy(), update, objective)
        self.metrics.log_dict(self._named(result.statistics), key=module_id, window=1)
        return as_torch_loss(result.statistics.loss, (logits, result.by_logits), (values, result.by_values))

    def get_lean_state(self) -> dict[str, Any]:
        """Return the order of minibatches and the KL coefficient too."""
        state = super().get_lean_state() | {"rng": self._rng.bit_generator.state}
        if self.config.use_kl_loss:
            state["kl_coeff"] = self._kl_coeff(DEFAULT_MODULE_ID)
        return state

    def set_lean_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_lean_state``."""
        super().set_lean_state(state)
        self._rng.bit_generator.state = state["rng"]
        if "kl_coeff" in state:
            coefficient: Any = self.curr_kl_coeffs_per_module[DEFAULT_MODULE_ID]
            coefficient.data.fill_(state["kl_coeff"])
