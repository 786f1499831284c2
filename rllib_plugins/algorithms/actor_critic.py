"""From rollout arrays to the batch of an actor-critic update, advice included. Knows neither loss nor optimiser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing

from rllib_plugins import columns
from rllib_plugins.advising.behaviour import floored_logp
from rllib_plugins.advising.decision import ImitationWeights
from rllib_plugins.algorithms.imitation import add_imitation
from rllib_plugins.compiled import compiled
from rllib_plugins.config import AdviceConfig
from rllib_plugins.rollout.arrays import RolloutArrays
from rllib_plugins.rollout.gae import generalised_advantages

Values = TypeVar("Values", NDArray[Any], torch.Tensor)


@dataclass(slots=True)
class UpdateBatch(Generic[Values]):
    """``batch_size`` steps, as arrays (the lean rollout) or tensors (RLlib's own).

    Attributes:
        observations: ``(B, obs_dim)``.
        actions: ``(B,)`` int64.
        advantages: ``(B,)``, standardised where the config says so, times ρ where advice is weighted.
        targets: ``(B,)`` value targets.
        old_logp: ``(B,)`` log π_old of the executed actions: the centre of PPO's ratio.
        old_logits: ``(B, A)`` or None: for PPO's KL term.
        illegal: ``(B, A)`` bool or None.
        imitation: ``(B, A)`` or None: Σ_a imitation·log π is what imitation maximises.
    """

    observations: Values
    actions: Values
    advantages: Values
    targets: Values
    old_logp: Values
    old_logits: Values | None
    illegal: Values | None
    imitation: Values | None

    def permuted(self, order: Values) -> UpdateBatch[Values]:
        """The steps in another order; one copy per epoch is cheaper than one gather per minibatch."""
        return self._map(lambda part: part[order])

    def minibatches(self, size: int) -> list[UpdateBatch[Values]]:
        """Consecutive parts, views; the last may be smaller."""
        return [self.part(start, start + size) for start in range(0, len(self), size)]

    def part(self, start: int, stop: int) -> UpdateBatch[Values]:
        """Steps ``start`` to ``stop``, views."""
        return self._map(lambda part: part[start:stop])

    def _map(self, function: Callable[[Values], Values]) -> UpdateBatch[Values]:
        parts: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        mapped: dict[str, Any] = {name: None if part is None else function(part) for name, part in parts.items()}
        return UpdateBatch(**mapped)

    def __len__(self) -> int:
        return len(self.actions)


@compiled
def weigh_advice(
    advantages: NDArray[np.float32],
    estimated: NDArray[np.float32],
    probabilities: NDArray[np.float32],
    consulted: NDArray[np.bool_],
    advice: NDArray[np.float32],
    cap: np.float32,
    better: np.float32,
    worse: np.float32,
    imitation: NDArray[np.float32],
) -> bool:
    """Weighs the advantages of tutored steps, in place, and the advice that is to be imitated.

    An advantage is multiplied by ρ = min(c, π_old/μ), the decoupled objective's weight (Hilton et al. 2021,
    arXiv 2110.00641). Equal weights of imitation are those of LLM4Teach (arXiv 2311.13373); ``worse = 0`` is the
    Q-filter of Nair et al. 2018 (arXiv 1709.10089) with the advantage in place of Q.

    Args:
        advantages: ``(T, N)``, standardised or not.
        estimated: ``(T, N)``, not standardised.
        probabilities: ``(2, T, N)``: μ, above 0, and π_old of the executed actions.
        consulted: ``(T, N)``.
        advice: ``(T, N, A)``.
        cap: c; 0: ρ is left out.
        better: Weight of imitation where the advised action turned out better than expected (``estimated`` > 0).
        worse: Its weight where it did not.
        imitation: Output, ``(T, N, A)``: the weighted advice; zeros where there is nothing to imitate.

    Returns:
        Whether there is anything to imitate.
    """
    any_consulted = False
    for t in range(advantages.shape[0]):
        for env in range(advantages.shape[1]):
            behaviour, policy = probabilities[0, t, env], probabilities[1, t, env]
            if cap > 0:
                advantages[t, env] *= cap if policy >= cap * behaviour else policy / behaviour
            weight = np.float32(0)
            if consulted[t, env]:
                any_consulted = True
                weight = better if estimated[t, env] > 0 else worse
            for action in range(advice.shape[2]):
                imitation[t, env, action] = advice[t, env, action] * weight
    return any_consulted and bool(better > 0)


def make_update_batch(
    rollout: RolloutArrays,
    config: Any,
    imitation_weights: ImitationWeights,
) -> tuple[UpdateBatch[NDArray[Any]], NDArray[np.float32]]:
    """Advantages, value targets, advice weights and imitation targets of a complete rollout.

    Args:
        rollout: Complete, ``next_values`` included.
        config: PPO's or A2C's.
        imitation_weights: λ of the imitation term at this point of training; 0 leaves the term out.

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
    imitation = None
    if rollout.advice is not None:
        advantages, weighed = advantages.copy(), np.empty_like(rollout.advice)
        imitates = weigh_advice(
            advantages,
            estimated,
            rollout.probabilities,
            rollout.consulted,
            rollout.advice,
            np.float32(advice_config.weight_cap if advice_config.weights == "behaviour" else 0.0),
            np.float32(imitation_weights.better),
            np.float32(imitation_weights.worse),
            weighed,
        )
        imitation = weighed.reshape(-1, weighed.shape[-1]) if imitates else None

    names = ("observations", "actions", "policy", "logits", "legal")
    flat: dict[str, Any] = {name: rollout.flat(name) for name in names}
    batch = UpdateBatch[NDArray[Any]](
        observations=flat["observations"],
        actions=flat["actions"],
        advantages=advantages.reshape(-1),
        targets=(estimated + rollout.values).reshape(-1),
        old_logp=floored_logp(flat["policy"]),
        old_logits=flat["logits"] if getattr(config, "use_kl_loss", False) else None,
        illegal=None if flat["legal"] is None else ~flat["legal"],
        imitation=imitation,
    )
    return batch, estimated


def update_batch_from_columns(
    batch: dict[str, Any], config: Any, values: torch.Tensor, imitation_weights: ImitationWeights
) -> tuple[UpdateBatch[torch.Tensor], torch.Tensor | slice]:
    """The same from a batch in RLlib's form.

    RLlib hands over standardised advantages only. What the filter of imitation needs, and a student that does not
    standardise learns from, is target − V(s) by the present critic: the same number in the first pass over a batch.

    Args:
        batch: Columns of RLlib and, if tutored, of ``rllib_plugins.columns``.
        config: PPO's or A2C's.
        values: ``(n,)`` values of the present critic, without gradients.
        imitation_weights: λ of the imitation term; 0 leaves it out.

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
        if imitation_weights.better > 0:
            weight = torch.where(estimated > 0, imitation_weights.better, imitation_weights.worse)
            imitation = batch[columns.ADVICE][chosen] * (weight * batch[columns.CONSULTED][chosen]).unsqueeze(-1)
    return UpdateBatch[torch.Tensor](
        observations=batch[Columns.OBS][chosen],
        actions=batch[Columns.ACTIONS][chosen].long().reshape(-1),
        advantages=advantages,
        targets=targets,
        old_logp=old_logp,
        old_logits=batch[Columns.ACTION_DIST_INPUTS][chosen] if config.use_kl_loss else None,
        illegal=~batch[columns.LEGAL][chosen].bool() if columns.LEGAL in batch else None,
        imitation=imitation,
    ), chosen


def common_gradient(
    logp: NDArray[np.float32],
    policy: NDArray[np.float32],
    chosen: NDArray[np.floating[Any]],
    batch: UpdateBatch[NDArray[Any]],
    entropy_coeff: float,
    until: float,
) -> NDArray[np.float32]:
    """∂/∂logits of Σ_i chosen_i·log π(a_i|s_i) − c_e·mean H(π) + mean imitation loss.

    With z the logits: ∂log π(a)/∂z = 1[a] − π, ∂H/∂z = −π·(log π + H), ∂(−Σ_a y_a·log π)/∂z = π·Σ_a y_a − y.

    Args:
        logp: log π, ``(B, A)``.
        policy: π, ``(B, A)``.
        chosen: Weight of each executed action's log π, ``(B,)``.
        batch: The steps.
        entropy_coeff: c_e.
        until: See ``imitation_loss``.

    Returns:
        ``(B, A)``.
    """
    size = len(batch)
    gradient = policy * -chosen[:, None]
    gradient[np.arange(size), batch.actions] += chosen
    if entropy_coeff:
        negative_entropy = (policy * logp).sum(axis=1, keepdims=True)
        gradient += policy * (logp - negative_entropy) * (entropy_coeff / size)
    if batch.imitation is not None:
        add_imitation(gradient, policy, batch.imitation, np.float32(until))
    return gradient


def value_gradient(
    values: NDArray[np.float32], targets: NDArray[np.float32], vf_loss_coeff: float, clip: float = float("inf")
) -> NDArray[np.float32]:
    """∂/∂V of c_v·mean min((V − target)², clip), ``(B,)``: RLlib's clip stops the gradient of large errors."""
    error = values - targets
    gradient: NDArray[np.float32] = error * np.float32(2.0 * vf_loss_coeff / len(error))
    if clip != float("inf"):
        gradient[error * error > clip] = 0.0
    return gradient


def as_tensors(batch: UpdateBatch[NDArray[Any]]) -> UpdateBatch[torch.Tensor]:
    """The same memory as tensors."""
    parts: dict[str, Any] = {f.name: getattr(batch, f.name) for f in fields(batch)}
    converted: dict[str, Any] = {name: None if part is None else torch.from_numpy(part) for name, part in parts.items()}
    return UpdateBatch[torch.Tensor](**converted)
