"""Generalised advantage estimation over the arrays of a rollout."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.compiled import compiled
from rllib_plugins.rollout.arrays import RolloutArrays


def generalised_advantages(rollout: RolloutArrays, gamma: float, lambda_: float) -> NDArray[np.float32]:
    """Estimate A(s, a) by GAE(γ, λ) of Schulman et al. 2016 (arXiv 1506.02438, eq. 16) over a complete rollout.

    A_t = δ_t + γλ·A_{t+1} with δ_t = r_t + γ·V(s_{t+1}) − V(s_t). A terminated step has V(s_{t+1}) = 0; a truncated one
    is bootstrapped by the value of the observation that the episode was cut at. The sum stops at either. For a value
    student V(s) is max_a Q(s, a).

    Args:
        rollout: T vector steps of N environments; entries of ``next_values`` at terminated steps are ignored.
        gamma: Discount factor in [0, 1].
        lambda_: λ in [0, 1]: 0 trusts the values fully, 1 gives the return minus V(s).

    Returns:
        Advantages ``(T, N)``; the value targets are advantages + values.
    """
    following = np.where(rollout.terminated, np.float32(0), rollout.next_values)
    advantages = (rollout.rewards + gamma * following - rollout.values).astype(np.float32)
    _accumulate(advantages, rollout.terminated | rollout.truncated, np.float32(gamma * lambda_))
    return advantages


@compiled
def _accumulate(advantages: NDArray[np.float32], ended: NDArray[np.bool_], decay: np.float32) -> None:
    """Turn δ into A = δ + decay·A' within each episode, in place, ``(T, N)``."""
    for step in range(len(advantages) - 2, -1, -1):
        for env in range(advantages.shape[1]):
            if not ended[step, env]:
                advantages[step, env] += decay * advantages[step + 1, env]
