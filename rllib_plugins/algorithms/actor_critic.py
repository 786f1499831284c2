"""Make the batch of an actor-critic update from a rollout, advice included: on arrays, and on RLlib's columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing

from rllib_plugins.advising.config import ImitationWeights
from rllib_plugins.advising.decision import floored_logp
from rllib_plugins.algorithms.advice import AdviceWeights, weigh_advice
from rllib_plugins.algorithms.losses import UpdateBatch
from rllib_plugins.connectors import columns
from rllib_plugins.rollout.arrays import NO_MASKS, NO_ROWS, RolloutArrays, flat
from rllib_plugins.rollout.gae import generalised_advantages


def make_update_batch(
    rollout: RolloutArrays,
    config: Any,
    imitation_weights: ImitationWeights,
    targets: NDArray[np.float32] = NO_ROWS,
) -> tuple[UpdateBatch, NDArray[np.float32]]:
    """Compute the batch of a complete rollout, ``next_values`` included.

    Args:
        rollout: T vector steps of N environments.
        config: PPO's or A2C's.
        imitation_weights: λ of the imitation term at this point of training; 0 leaves the term out.
        targets: ``(T·N, A)`` what is imitated in place of the rollout's advised actions, weighted; or ``NO_ROWS``.

    Returns:
        The batch, and the advantages ``(T, N)`` as they were estimated: neither standardised nor weighted.
    """
    estimated = generalised_advantages(rollout, config.gamma, config.lambda_)
    advantages = estimated
    if config.standardize_advantages:
        advantages = (estimated - estimated.mean()) / max(1e-4, float(estimated.std()))
    imitation = targets
    if rollout.advice is not None:
        advantages, weighed = advantages.copy(), np.empty_like(rollout.advice)
        weights = AdviceWeights.of(config.advice, imitation_weights)
        if weigh_advice(
            advantages, estimated, rollout.probabilities, rollout.consulted, rollout.advice, weights, weighed
        ):
            imitation = flat(weighed)
    batch = UpdateBatch(
        observations=flat(rollout.observations),
        actions=flat(rollout.actions),
        advantages=flat(advantages),
        targets=flat(estimated + rollout.values),
        old_logp=floored_logp(flat(rollout.policy)),
        old_logits=flat(rollout.logits) if config.use_kl_loss else NO_ROWS,
        legal=NO_MASKS if rollout.legal is None else flat(rollout.legal),
        imitation=imitation,
        bonus=NO_ROWS if rollout.bonus is None else flat(rollout.bonus),
    )
    return batch, estimated


def update_batch_from_columns(
    batch: dict[str, Any], config: Any, values: torch.Tensor, imitation_weights: ImitationWeights
) -> tuple[UpdateBatch, torch.Tensor | slice]:
    """Compute the same from a batch in RLlib's form.

    RLlib hands over standardised advantages only. What the filter of imitation needs, and a student that does not
    standardise learns from, is target − V(s) by the present critic: the same number in the first pass over a batch.

    Args:
        batch: Columns of RLlib and, if tutored, of ``rllib_plugins.connectors.columns``.
        config: PPO's or A2C's.
        values: ``(n,)`` values of the present critic, without gradients.
        imitation_weights: λ of the imitation term; 0 leaves it out.

    Returns:
        The batch, and the rows that belong to it: RLlib adds a masked step per episode.
    """
    chosen: torch.Tensor | slice = batch.get(Columns.LOSS_MASK, slice(None))

    def column(name: str) -> NDArray[Any]:
        array: NDArray[Any] = batch[name][chosen].cpu().numpy()
        return array

    targets, old_logp = column(Postprocessing.VALUE_TARGETS), column(Columns.ACTION_LOGP)
    estimated = targets - values[chosen].cpu().numpy()
    advantages = column(Postprocessing.ADVANTAGES) if config.standardize_advantages else estimated
    imitation = NO_ROWS
    if columns.BEHAVIOUR_LOGP in batch:
        advice = column(columns.ADVICE)
        advantages, weighed = advantages.copy(), np.empty_like(advice)
        probabilities = np.exp(np.stack([column(columns.BEHAVIOUR_LOGP), old_logp]))
        if weigh_advice(
            advantages[None],
            estimated[None],
            probabilities[:, None],
            column(columns.CONSULTED)[None].astype(bool),
            advice[None],
            AdviceWeights.of(config.advice, imitation_weights),
            weighed[None],
        ):
            imitation = weighed
    update = UpdateBatch(
        observations=column(Columns.OBS),
        actions=column(Columns.ACTIONS).reshape(-1).astype(np.int64),
        advantages=advantages,
        targets=targets,
        old_logp=old_logp,
        old_logits=column(Columns.ACTION_DIST_INPUTS) if config.use_kl_loss else NO_ROWS,
        legal=column(columns.LEGAL).astype(bool) if columns.LEGAL in batch else NO_MASKS,
        imitation=imitation,
    )
    return update, chosen


def part(batch: UpdateBatch, steps: slice | NDArray[np.int64]) -> UpdateBatch:
    """Return some steps of a batch: views for a slice, copies for indices."""
    parts: Any = (array[steps] if len(array) else array for array in batch)
    return UpdateBatch(*parts)


def as_torch_loss(value: float, *parts: tuple[torch.Tensor, NDArray[np.float32]]) -> torch.Tensor:
    """Return a scalar of a given value and given gradients, for RLlib's own path.

    Args:
        value: The loss.
        parts: Outputs of a network, and the loss's gradient by each.
    """
    linear = sum(((x * torch.from_numpy(gradient).to(x)).sum() for x, gradient in parts), torch.zeros(()))
    return linear - linear.detach() + value
