"""The preallocated arrays that one rollout fills."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.decision import Parts

NO_ROWS = np.empty((0, 0), np.float32)
"""In place of an array of floats that a batch does not have."""
NO_REWARDS = np.empty(0, np.float32)
"""In place of rewards that a batch does not have beside its own."""
NO_MASKS = np.empty((0, 0), dtype=bool)
"""In place of masks where every action is always legal."""

_IN_PARTS = ("probabilities", "flags")
"""Arrays with an axis before that of the vector steps."""


@dataclass(slots=True)
class RolloutArrays(Parts):
    """Hold T = ``num_steps`` vector steps of N = ``num_envs`` environments.

    Attributes:
        observations: ``(T, N, obs_dim)`` float32.
        next_observations: The same shape: what followed, before any reset. Only for replay; else None.
        actions: ``(T, N)`` int64, executed.
        rewards: ``(T, N)`` float32.
        terminated: ``(T, N)`` bool.
        truncated: ``(T, N)`` bool.
        values: ``(T, N)`` float32: V(s_t), or max over legal actions of Q(s_t, ·).
        next_values: ``(T, N)`` float32: V of what followed; filled when the rollout is complete.
        probabilities: ``(2, T, N)`` float32: ``behaviour`` and ``policy``.
        flags: ``(3, T, N)`` bool: ``heads``, ``eligible`` and ``consulted``.
        logits: ``(T, N, A)`` float32: the logits of the policy that acted, bonus included, or the Q-values without it.
        advice: ``(T, N, A)`` float32, the tutor's distribution; None without a tutor.
        legal: ``(T, N, A)`` bool; None where every action is always legal.
        bonus: ``(T, N, A)`` float32: what advice added to the logits or Q-values for acting; None where it never does.
    """

    observations: NDArray[np.float32]
    next_observations: NDArray[np.float32] | None
    actions: NDArray[np.int64]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    values: NDArray[np.float32]
    next_values: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    flags: NDArray[np.bool_]
    logits: NDArray[np.float32]
    advice: NDArray[np.float32] | None
    legal: NDArray[np.bool_] | None
    bonus: NDArray[np.float32] | None = None

    @classmethod
    def allocate(
        cls,
        shape: tuple[int, int],
        obs_dim: int,
        num_actions: int,
        *,
        for_replay: bool,
        with_advice: bool,
        with_masks: bool,
        with_bonus: bool = False,
    ) -> RolloutArrays:
        """Allocate arrays of zeros.

        Args:
            shape: (T, N).
            obs_dim: Length of a flat observation.
            num_actions: Actions A.
            for_replay: Keep the following observations too.
            with_advice: Keep the tutor's distributions.
            with_masks: Keep the masks of legal actions.
            with_bonus: Keep what advice adds to logits.
        """

        def zeros(dtype: Any, *last: int) -> NDArray[Any]:
            return np.zeros((*shape, *last), dtype)

        return cls(
            observations=zeros(np.float32, obs_dim),
            next_observations=zeros(np.float32, obs_dim) if for_replay else None,
            actions=zeros(np.int64),
            rewards=zeros(np.float32),
            terminated=zeros(bool),
            truncated=zeros(bool),
            values=zeros(np.float32),
            next_values=zeros(np.float32),
            probabilities=np.zeros((2, *shape), np.float32),
            flags=np.zeros((3, *shape), bool),
            logits=zeros(np.float32, num_actions),
            advice=zeros(np.float32, num_actions) if with_advice else None,
            legal=zeros(bool, num_actions) if with_masks else None,
            bonus=zeros(np.float32, num_actions) if with_bonus else None,
        )

    @property
    def num_steps(self) -> int:
        """Return the vector steps T."""
        return len(self.rewards)

    @property
    def num_envs(self) -> int:
        """Return the environments N."""
        return self.rewards.shape[1]

    def get_state(self) -> dict[str, NDArray[Any] | None]:
        """Return copies of all arrays."""
        return {f.name: None if (a := getattr(self, f.name)) is None else a.copy() for f in fields(self)}

    def set_state(self, state: dict[str, NDArray[Any] | None]) -> None:
        """Take over the arrays of a ``get_state``."""
        for name, array in state.items():
            setattr(self, name, None if array is None else array.copy())

    def cut(self, steps: slice) -> dict[str, NDArray[Any]]:
        """Return some of the vector steps, as views by name, without ``next_values`` until they are known.

        Args:
            steps: Of the axis of vector steps.
        """
        found = {}
        for name in (f.name for f in fields(self)):
            array = getattr(self, name)
            if array is not None and name != "next_values":
                found[name] = array[_part(name, steps)]
        return found

    def paste(self, arrays: dict[str, NDArray[Any]], steps: slice, envs: slice) -> None:
        """Write what another rollout's ``cut`` returned.

        Args:
            arrays: By name.
            steps: Vector steps to write to.
            envs: Environments to write to.
        """
        for name, array in arrays.items():
            getattr(self, name)[_part(name, steps, envs)] = array


def _part(name: str, *part: slice) -> tuple[slice, ...]:
    """Return the index of some vector steps, and environments, in an array of this name."""
    return (slice(None), *part) if name in _IN_PARTS else part


def flat(array: NDArray[Any]) -> NDArray[Any]:
    """Merge the axes of vector steps and environments: ``(T, N, ...)`` as ``(T·N, ...)``, a view."""
    return array.reshape(-1, *array.shape[2:])
