"""Generalised advantage estimation over arrays. Pure numpy; knows neither networks nor environments."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def generalised_advantages(
    rewards: NDArray[np.float32],
    values: NDArray[np.float32],
    next_values: NDArray[np.float32],
    terminated: NDArray[np.bool_],
    truncated: NDArray[np.bool_],
    *,
    gamma: float,
    lambda_: float,
) -> NDArray[np.float32]:
    """GAE(γ, λ) of Schulman et al. 2016 (arXiv 1506.02438, eq. 16) on a rollout of several environments.

    A_t = δ_t + γλ·A_{t+1} with δ_t = r_t + γ·V(s_{t+1}) − V(s_t). A terminated step has V(s_{t+1}) = 0; a truncated one
    is bootstrapped by the value of the observation that the episode was cut at. The sum stops at either.

    Args:
        rewards: ``(num_steps, num_envs)``.
        values: V(s_t), ``(num_steps, num_envs)``.
        next_values: V(s_{t+1}), ``(num_steps, num_envs)``, of the observation that followed before any reset; its
            entries at terminated steps are ignored.
        terminated: ``(num_steps, num_envs)``.
        truncated: ``(num_steps, num_envs)``.
        gamma: Discount factor.
        lambda_: GAE's λ.

    Returns:
        Advantages ``(num_steps, num_envs)``, float32; the value targets are advantages + values.
    """
    deltas = (rewards + gamma * np.where(terminated, 0, next_values) - values).astype(np.float32)
    decay = (gamma * lambda_ * ~(terminated | truncated)).astype(np.float32)
    advantages = np.empty_like(deltas)
    running = np.zeros_like(deltas[0])
    for t in range(len(deltas) - 1, -1, -1):
        running = deltas[t] + decay[t] * running
        advantages[t] = running
    return advantages
