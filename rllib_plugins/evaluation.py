"""How good a policy is on a task: exactly where the game allows, else over episodes. Knows no student and no tutor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.tasks.base import Policy, Task
from tutor_service.errors import UserError

MAX_PARALLEL_ENVS = 512


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The return of a policy.

    Attributes:
        return_mean: Mean episode return (undiscounted).
        return_std: Standard deviation of the episode return, not of its mean.
        num_episodes: Episodes played; 0 where the value is exact.
        exact: True where it was computed instead of sampled.
    """

    return_mean: float
    return_std: float
    num_episodes: int
    exact: bool


def evaluate(task: Task, policy: Policy, *, episodes: int, seed: int, max_episode_steps: int = 100_000) -> Evaluation:
    """Evaluates a policy; greedy use: a policy that returns one-hot rows.

    Probability on illegal actions is taken away and the rest renormalised; a row with nothing left becomes uniform over
    the legal actions. Every environment of the vector plays a number of episodes that is fixed beforehand, so short
    episodes count no more than long ones.

    Args:
        task: The task.
        policy: From flat observations ``(n, obs_dim)`` to action probabilities ``(n, num_actions)``.
        episodes: Episodes to play where no exact evaluation exists.
        seed: Seeds the environments and the draws of actions.
        max_episode_steps: A single episode that takes longer is an error.

    Raises:
        UserError: ``episodes`` is below 1, the policy returned NaN or a wrong shape, or an episode does not end.
    """
    if episodes < 1:
        raise UserError(f"episodes = {episodes}: must be at least 1.")

    def legal_policy(observations: NDArray[np.float32]) -> NDArray[np.float64]:
        return mask_policy(task, observations, policy(observations))

    exact = task.exact_return(legal_policy)
    if exact is not None:
        return Evaluation(exact[0], exact[1], 0, True)
    returns = _episode_returns(task, legal_policy, episodes, seed, max_episode_steps)
    return Evaluation(float(returns.mean()), float(returns.std()), episodes, False)


def mask_policy(
    task: Task, observations: NDArray[np.float32], probabilities: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Action probabilities ``(n, num_actions)`` on the legal actions only, rows summing to 1."""
    rows = np.asarray(probabilities, dtype=np.float64)
    if rows.shape != (len(observations), task.num_actions):
        raise UserError(f"policy returned shape {rows.shape}, expected {(len(observations), task.num_actions)}.")
    if not np.isfinite(rows).all():
        i = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise UserError(f"policy returned {rows[i]} for observation {observations[i]}.")
    legal = task.legal_batch(observations)
    if legal is not None:
        rows = rows * legal
    total = rows.sum(axis=1, keepdims=True)
    if (total <= 0).any():
        allowed = np.ones_like(rows) if legal is None else legal.astype(np.float64)
        rows = np.where(total > 0, rows, allowed)
        total = rows.sum(axis=1, keepdims=True)
    return rows / total


def sample_actions(probabilities: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """One action per row of ``(n, num_actions)``; never one of probability 0."""
    edges = probabilities.cumsum(axis=1)
    luck = rng.random((len(probabilities), 1)) * edges[:, -1:]
    return (luck >= edges).sum(axis=1)


def _episode_returns(
    task: Task, policy: Policy, episodes: int, seed: int, max_episode_steps: int
) -> NDArray[np.float64]:
    num_envs = min(episodes, MAX_PARALLEL_ENVS)
    quota = np.full(num_envs, episodes // num_envs)
    quota[: episodes % num_envs] += 1
    rng = np.random.default_rng([seed, 1])  # not the environments' own stream
    envs = task.make_vec(num_envs, seed)
    running = np.zeros(num_envs)
    length = np.zeros(num_envs, dtype=np.int64)
    returns: list[NDArray[np.float64]] = []
    try:
        observations, _ = envs.reset(seed=seed)
        while quota.any():
            actions = sample_actions(np.asarray(policy(observations)), rng)
            observations, rewards, terminated, truncated, _ = envs.step(actions)
            running += rewards
            length += 1
            ended = terminated | truncated
            counted = ended & (quota > 0)
            returns.append(running[counted])
            quota[counted] -= 1
            running[ended] = 0.0
            length[ended] = 0
            if length.max() > max_episode_steps:
                raise UserError(
                    f"task '{task.name}': an episode ran for more than {max_episode_steps} env steps. Register "
                    f"'{task.env_id}' with max_episode_steps, or pass it in env_kwargs."
                )
    finally:
        envs.close()
    return np.concatenate(returns)
