"""What is imitated of advice, and how: cross-entropy to a policy. Knows no algorithm.

A policy is the softmax of logits over the legal actions; a value student's logits are its Q-values by a temperature.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from rllib_plugins.compiled import compiled
from rllib_plugins.config import AdviceConfig


def log_policy(logits: torch.Tensor, illegal: torch.Tensor | None) -> torch.Tensor:
    """log π over all actions, ``(B, A)``; illegal actions get the least finite float, so that 0·log π stays 0."""
    if illegal is not None:
        logits = logits.masked_fill(illegal, torch.finfo(logits.dtype).min)
    return torch.log_softmax(logits, dim=-1)


def log_policy_array(logits: NDArray[np.float32], illegal: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """The same on arrays."""
    if illegal is not None:
        logits = np.where(illegal, np.finfo(np.float32).min, logits)
    z = logits - logits.max(axis=1, keepdims=True)
    return np.maximum(z - np.log(np.exp(z).sum(axis=1, keepdims=True)), np.finfo(np.float32).min)


def imitated_until(advice: AdviceConfig) -> float:
    """Probability of the advised action from which on a step is not imitated; above 1 where all advice always is."""
    return advice.imitation_until if advice.imitation == "filtered" else 2.0


def imitation_loss(logp: torch.Tensor, imitation: torch.Tensor | None, until: float) -> torch.Tensor | float:
    """Cross-entropy to the advice, −Σ_a imitation·log π, as a mean over the batch; 0 without advice.

    A step has no part in it once the student follows the advice with probability ``until``. Imitation without end would
    make it certain of what the tutor says: then nothing contrasts with the advice, and a mediocre tutor's student
    neither explores nor finds out.
    """
    if imitation is None:
        return 0.0
    follows = (imitation * logp.detach().exp()).sum(-1)
    open_steps = follows < until * imitation.sum(-1)
    return -((imitation * logp).sum(-1) * open_steps).mean()


@compiled
def add_imitation(
    gradient: NDArray[np.float32],
    policy: NDArray[np.float32],
    imitation: NDArray[np.float32],
    until: np.float32,
) -> int:
    """Adds ∂/∂logits of ``imitation_loss``; all arrays ``(B, A)``, ``gradient`` is written to.

    Returns:
        How many steps have a part in it.
    """
    share, num_open = np.float32(1) / np.float32(len(gradient)), 0
    for step in range(len(gradient)):
        total = follows = np.float32(0)
        for action in range(gradient.shape[1]):
            total += imitation[step, action]
            follows += imitation[step, action] * policy[step, action]
        if follows < until * total:
            num_open += 1
            for action in range(gradient.shape[1]):
                gradient[step, action] += (policy[step, action] * total - imitation[step, action]) * share
    return num_open
