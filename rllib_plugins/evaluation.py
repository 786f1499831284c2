"""Evaluate a policy on a task: exactly where the game allows, else over episodes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.tasks.base import Policy, Task
from tutor_service.errors import UserError

NUM_BOARDS = 512
"""Environments of an evaluation where they are array code."""

NUM_ENVS = 4
"""Environments of an evaluation where they are stepped one after the other."""

MAX_EPISODE_STEPS = 100_000
"""Env steps after which an episode is taken to have no end."""

RANDOM_EPISODES, RANDOM_STEPS = 2_000, 200_000
"""Episodes of random play that R₀ is the mean of, and the env steps that they may take."""

_MOST_PLAYERS, _MEASURED_STEPS = 4, 300


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The return of a policy.

    Attributes:
        return_mean: Mean episode return (undiscounted).
        return_std: Standard deviation of the episode return, not of its mean.
        num_episodes: Episodes played; 0 where the value is exact.
        exact: True where it was computed instead of sampled.
        num_env_steps: Env steps that it took, 0 where the value is exact.
    """

    return_mean: float
    return_std: float
    num_episodes: int
    exact: bool
    num_env_steps: int = 0


class _Played(NamedTuple):
    returns: NDArray[np.float64]
    num_env_steps: int


def evaluate(
    task: Task,
    policy: Policy,
    *,
    episodes: int,
    seed: int,
    num_envs: int = NUM_ENVS,
    max_episode_steps: int = MAX_EPISODE_STEPS,
) -> Evaluation:
    """Evaluate a policy. For a greedy evaluation give a policy that returns one-hot rows.

    Probability on illegal actions is taken away and the rest renormalised; a row with nothing left becomes uniform over
    the legal actions. Every environment of the vector plays a number of episodes that is fixed beforehand, so short
    episodes count no more than long ones. Two policies that are evaluated with the same seed meet the same episodes.

    Args:
        task: The task; its environments are reused by the next evaluation.
        policy: From flat observations ``(n, obs_dim)`` to action probabilities ``(n, num_actions)``.
        episodes: Episodes to play where no exact evaluation exists.
        seed: Seeds the environments and the draws of actions.
        num_envs: Environments to play in, where they are stepped one after the other.
        max_episode_steps: A single episode that takes longer is an error.

    Raises:
        UserError: ``episodes`` is below 1, the policy returned NaN or a wrong shape, or an episode does not end.
    """
    if episodes < 1:
        raise UserError(f"episodes = {episodes}: must be at least 1.")

    legal_policy = _masked(task, policy)
    exact = task.exact_return(legal_policy)
    if exact is not None:
        return Evaluation(exact[0], exact[1], 0, True)
    num_envs = min(episodes, NUM_BOARDS if task.is_native else num_envs)
    quota = np.full(num_envs, episodes // num_envs)
    quota[: episodes % num_envs] += 1
    played = _play(task, legal_policy, quota, seed, max_episode_steps=max_episode_steps)
    returns = played.returns
    return Evaluation(float(returns.mean()), float(returns.std()), episodes, False, played.num_env_steps)


def random_return(task: Task) -> float:
    """Return R₀, the mean return of uniformly random play.

    Exact where the game allows, else over 2,000 episodes, or fewer where an environment is stepped by itself and these
    would take more than 200,000 env steps.
    """
    if task.known_random_return is not None:
        return task.known_random_return
    episodes = affordable_episodes(task, RANDOM_EPISODES, RANDOM_STEPS)
    return evaluate(task, task.uniform_policy, episodes=episodes, seed=0).return_mean


def affordable_episodes(task: Task, wished: int, num_env_steps: int, least: int = 20) -> int:
    """Return how many episodes fit into so many env steps, at least ``least`` and at most as many as wished."""
    if task.is_native or task.is_exact:
        return wished
    return max(min(wished, least), min(wished, int(num_env_steps / episode_length(task))))


@lru_cache(maxsize=64)
def episode_length(task: Task) -> float:
    """Return how many env steps an episode takes: as the task says, else by the longest-lived of the players at hand.

    These are random play, the oracle, and the first constant actions. A student may come to last longer than they do:
    where the environment has a time limit, half of it counts too, up to ten times of what was measured.
    """
    if task.episode_steps is not None:
        return float(task.episode_steps)
    players: list[Policy] = [task.uniform_policy]
    if task.has_oracle:
        players.append(partial(oracle_policy, task))
    players += [task.constant_policy(action) for action in range(task.num_actions)]
    longest, limit = 1.0, task.probe.time_limit
    for player in players[:_MOST_PLAYERS]:
        quota = np.full(2, np.iinfo(np.int64).max)
        played = _play(task, _masked(task, player), quota, seed=0, max_vector_steps=_MEASURED_STEPS)
        longest = max(longest, played.num_env_steps / max(1, len(played.returns)))
    return longest if limit is None else min(limit, max(longest, min(limit / 2, 10 * longest)))


def oracle_policy(task: Task, observations: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the oracle's probabilities for flat observations, ``(n, num_actions)``; uniform where there is none."""
    rows = task.oracle_batch(observations)
    return task.uniform_policy(observations) if rows is None else rows


def _masked(task: Task, policy: Policy) -> Policy:
    return lambda observations: mask_policy(task, observations, policy(observations))


def mask_policy(
    task: Task, observations: NDArray[np.float32], probabilities: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return action probabilities ``(n, num_actions)`` on the legal actions only, rows summing to 1."""
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
    """Draw one action per row of ``(n, num_actions)``; never one of probability 0."""
    edges = probabilities.cumsum(axis=1)
    luck = rng.random((len(probabilities), 1)) * edges[:, -1:]
    return (luck >= edges).sum(axis=1)


def _play(
    task: Task,
    policy: Policy,
    quota: NDArray[np.int64],
    seed: int,
    *,
    max_episode_steps: int = MAX_EPISODE_STEPS,
    max_vector_steps: int | None = None,
) -> _Played:
    """Play ``quota`` ``(num_envs,)`` episodes in each environment, or as many as end within ``max_vector_steps``."""
    num_envs = len(quota)
    rng = np.random.default_rng([seed, 1])  # not the environments' own stream
    running = np.zeros(num_envs)
    length = np.zeros(num_envs, dtype=np.int64)
    returns: list[NDArray[np.float64]] = []
    num_env_steps = 0
    with task.borrow_vec(num_envs, seed) as envs:
        observations, _ = envs.reset(seed=seed)
        while quota.any() and (max_vector_steps is None or num_env_steps < max_vector_steps * num_envs):
            actions = sample_actions(np.asarray(policy(observations)), rng)
            observations, rewards, terminated, truncated, _ = envs.step(actions)
            num_env_steps += num_envs
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
    return _Played(np.concatenate(returns), num_env_steps)
