"""From rollout arrays to the tensors of an actor-critic update, advice included. Knows neither loss nor optimiser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing

from rllib_plugins import columns
from rllib_plugins.config import AdviceConfig
from rllib_plugins.rollout.arrays import RolloutArrays
from rllib_plugins.rollout.gae import generalised_advantages


@dataclass(slots=True)
class UpdateBatch:
    """Tensors of ``batch_size`` steps.

    Attributes:
        observations: ``(B, obs_dim)``.
        actions: ``(B, 1)`` int64.
        advantages: ``(B,)``, standardised where the config says so, times ρ where advice is weighted.
        targets: ``(B,)`` value targets.
        old_logp: ``(B,)`` log π_old of the executed actions: the centre of PPO's ratio.
        old_logits: ``(B, A)`` or None: for PPO's KL term.
        illegal: ``(B, A)`` bool or None.
        imitation: ``(B, A)`` or None: Σ_a imitation·log π is what imitation maximises.
    """

    observations: torch.Tensor
    actions: torch.Tensor
    advantages: torch.Tensor
    targets: torch.Tensor
    old_logp: torch.Tensor
    old_logits: torch.Tensor | None
    illegal: torch.Tensor | None
    imitation: torch.Tensor | None

    def permuted(self, order: torch.Tensor) -> UpdateBatch:
        """The steps in another order; one copy per epoch is cheaper than one gather per minibatch."""
        return self._map(lambda part: part[order])

    def minibatches(self, size: int) -> list[UpdateBatch]:
        """Consecutive parts, views; the last may be smaller."""
        return [self._map(partial(_part, start=i, stop=i + size)) for i in range(0, len(self), size)]

    def _map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> UpdateBatch:
        parts: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        mapped: dict[str, Any] = {name: None if part is None else function(part) for name, part in parts.items()}
        return UpdateBatch(**mapped)

    def __len__(self) -> int:
        return len(self.actions)


def _part(tensor: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    return tensor[start:stop]


def importance_weights(
    policy_logp: NDArray[np.float32], behaviour_logp: NDArray[np.float32], cap: float
) -> NDArray[np.float32]:
    """ρ = min(c, π_old/μ), the decoupled objective's weight (Hilton et al. 2021, arXiv 2110.00641).

    Args:
        policy_logp: log π_old of the executed actions.
        behaviour_logp: log μ of the executed actions, same shape.
        cap: c.
    """
    return np.minimum(np.float32(cap), np.exp(policy_logp - behaviour_logp))


def imitation_targets(
    mode: str, advice: NDArray[np.float32], consulted: NDArray[np.bool_], advantages: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The distribution to imitate on each step, zeros where there is nothing to imitate.

    Args:
        mode: ``all``: every consulted step (LLM4Teach, arXiv 2311.13373). ``filtered``: those where the advised action
            turned out better than expected, advantage > 0 (the Q-filter of Nair et al. 2018, arXiv 1709.10089).
        advice: ``(..., A)``.
        consulted: ``(...,)``.
        advantages: ``(...,)``, not standardised.
    """
    chosen = consulted & (advantages > 0) if mode == "filtered" else consulted
    return advice * chosen[..., None]


def make_update_batch(
    rollout: RolloutArrays,
    config: Any,
    imitation_weight: float,
) -> tuple[UpdateBatch, NDArray[np.float32]]:
    """Advantages, value targets, advice weights and imitation targets of a complete rollout.

    Args:
        rollout: Complete, ``next_values`` included.
        config: PPO's or A2C's.
        imitation_weight: λ of the imitation term at this point of training; 0 leaves the term out.

    Returns:
        The batch, and the advantages ``(num_steps, num_envs)`` as they were estimated (not standardised, not weighted).
    """
    advice_config: AdviceConfig = config.advice
    estimated = generalised_advantages(
        rollout.rewards,
        rollout.values,
        rollout.next_values,
        rollout.terminated,
        rollout.truncated,
        gamma=config.gamma,
        lambda_=config.lambda_,
    )
    advantages = estimated
    if config.standardize_advantages:
        advantages = (estimated - estimated.mean()) / max(1e-4, float(estimated.std()))
    tutored = rollout.advice is not None
    if tutored and advice_config.weights == "behaviour":
        advantages = advantages * importance_weights(
            rollout.policy_logp, rollout.behaviour_logp, advice_config.weight_cap
        )
    imitation = None
    if rollout.advice is not None and imitation_weight > 0 and rollout.consulted.any():
        imitation = imitation_weight * imitation_targets(
            advice_config.imitation, rollout.advice, rollout.consulted, estimated
        )

    def tensor(array: NDArray[Any] | None) -> torch.Tensor | None:
        return None if array is None else torch.from_numpy(np.ascontiguousarray(array)).flatten(0, 1)

    def required(array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).flatten(0, 1)

    batch = UpdateBatch(
        observations=required(rollout.observations),
        actions=required(rollout.actions).unsqueeze(-1),
        advantages=required(advantages),
        targets=required(estimated + rollout.values),
        old_logp=required(rollout.policy_logp),
        old_logits=tensor(rollout.logits) if getattr(config, "use_kl_loss", False) else None,
        illegal=None if rollout.legal is None else ~required(rollout.legal),
        imitation=tensor(imitation),
    )
    return batch, estimated


def update_batch_from_columns(
    batch: dict[str, Any], config: Any, values: torch.Tensor, imitation_weight: float
) -> tuple[UpdateBatch, torch.Tensor | slice]:
    """The same from a batch in RLlib's form.

    RLlib hands over standardised advantages only. What the filter of imitation needs, and a student that does not
    standardise learns from, is target − V(s) by the present critic: the same number in the first pass over a batch.

    Args:
        batch: Columns of RLlib and, if tutored, of ``rllib_plugins.columns``.
        config: PPO's or A2C's.
        values: ``(n,)`` values of the present critic, without gradients.
        imitation_weight: λ of the imitation term; 0 leaves it out.

    Returns:
        The batch, and which of the ``n`` rows belong to it (RLlib adds a masked step per episode).
    """
    advice_config: AdviceConfig = config.advice
    chosen: torch.Tensor | slice = batch.get(Columns.LOSS_MASK, slice(None))
    targets = batch[Postprocessing.VALUE_TARGETS][chosen]
    estimated = targets - values[chosen]
    advantages = batch[Postprocessing.ADVANTAGES][chosen] if config.standardize_advantages else estimated
    imitation = None
    old_logp = batch[Columns.ACTION_LOGP][chosen]
    if columns.BEHAVIOUR_LOGP in batch:
        behaviour_logp = batch[columns.BEHAVIOUR_LOGP][chosen]
        if advice_config.weights == "behaviour":
            advantages = advantages * torch.exp(old_logp - behaviour_logp).clamp(max=advice_config.weight_cap)
        if imitation_weight > 0:
            imitated = batch[columns.CONSULTED][chosen].bool()
            if advice_config.imitation == "filtered":
                imitated = imitated & (estimated > 0)
            imitation = imitation_weight * batch[columns.ADVICE][chosen] * imitated.unsqueeze(-1)
    return UpdateBatch(
        observations=batch[Columns.OBS][chosen],
        actions=batch[Columns.ACTIONS][chosen].long().reshape(-1, 1),
        advantages=advantages,
        targets=targets,
        old_logp=old_logp,
        old_logits=batch[Columns.ACTION_DIST_INPUTS][chosen] if config.use_kl_loss else None,
        illegal=~batch[columns.LEGAL][chosen].bool() if columns.LEGAL in batch else None,
        imitation=imitation,
    ), chosen


def log_policy(logits: torch.Tensor, illegal: torch.Tensor | None) -> torch.Tensor:
    """log π over all actions, ``(B, A)``; illegal actions get the least finite float, so that 0·log π stays 0."""
    if illegal is not None:
        logits = logits.masked_fill(illegal, torch.finfo(logits.dtype).min)
    return torch.log_softmax(logits, dim=-1)


def imitation_loss(logp: torch.Tensor, imitation: torch.Tensor | None) -> torch.Tensor | float:
    """Cross-entropy to the advice, −Σ_a imitation·log π, as a mean over the batch; 0 without advice."""
    return 0.0 if imitation is None else -(imitation * logp).sum(-1).mean()
