"""Generalised advantage estimation over the arrays of a rollout."""

from __future__ import annotations

import numpy as np

from rllib_plugins.array_types import Bools, Floats32
from rllib_plugins.compiled import compiled
from rllib_plugins.rollout.arrays import RolloutArrays

_ZERO = np.float32(0)


def generalised_advantages(rollout: RolloutArrays, gamma: float, lambda_: float) -> Floats32:
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
    discount, decay = np.float32(gamma), np.float32(gamma * lambda_)
    return _advantages(
        rollout.rewards, rollout.values, rollout.next_values, rollout.terminated, rollout.truncated, discount, decay
    )


@compiled
def _advantages(
    rewards: Floats32,
    values: Floats32,
    next_values: Floats32,
    terminated: Bools,
    truncated: Bools,
    discount: np.float32,
    decay: np.float32,
) -> Floats32:
    advantages = np.empty_like(values)
    for step in range(len(values) - 1, -1, -1):
        for env in range(values.shape[1]):
            following = _ZERO if terminated[step, env] else next_values[step, env]
            advantage = rewards[step, env] + discount * following - values[step, env]
            if step + 1 < len(values) and not (terminated[step, env] or truncated[step, env]):
                advantage += decay * advantages[step + 1, env]
            advantages[step, env] = advantage
    return advantages
