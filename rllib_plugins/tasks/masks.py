"""Find out which actions an environment calls legal: where it says so, and how to read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

MASK_KEYS = (
    *("action_mask", "action_masks", "actions_mask", "mask_actions"),
    *("legal_action_mask", "legal_actions_mask", "legal_moves_mask", "legal_mask"),
    *("valid_action_mask", "valid_actions_mask", "valid_moves_mask", "valid_mask"),
    *("available_action_mask", "available_actions_mask", "avail_actions", "available_actions"),
)
"""Keys whose value is one flag per action, in ``info`` or in a dictionary observation."""

LIST_KEYS = ("legal_actions", "legal_moves", "valid_actions", "valid_moves", "possible_actions")
"""Keys whose value is a mask or lists the legal actions by number."""

METHOD = "action_masks"
"""Method of an environment that returns the mask, as sb3-contrib's MaskablePPO expects it."""


class MaskSource(NamedTuple):
    """Where an environment says which actions are legal.

    Attributes:
        place: ``info``, ``observation`` or ``method``.
        key: Key in that dictionary, or the method's name.
        lists_actions: Whether the value lists actions by number; else it has one flag per action.
    """

    place: str
    key: str
    lists_actions: bool = False

    def __str__(self) -> str:
        return f"{self.key}()" if self.place == "method" else f"{self.place}['{self.key}']"

    def shown(self, env: gym.Env[Any, Any], observation: Any, info: Mapping[str, Any] | None) -> Any:
        """Return what the environment says now; None: nothing."""
        if self.place == "method":
            return getattr(env.unwrapped, self.key)()
        return ((info or {}) if self.place == "info" else observation).get(self.key)


def find_mask(
    env: gym.Env[Any, Any], observation: Any, info: Mapping[str, Any] | None, num_actions: int
) -> MaskSource | None:
    """Return where the environment shows its legal actions, or None where it shows none."""
    for place, shown in (("info", info), ("observation", observation)):
        if not isinstance(shown, Mapping):
            continue
        for key in MASK_KEYS:
            if key in shown and _is_mask(shown[key], num_actions):
                return MaskSource(place, key)
        for key in LIST_KEYS:
            if key in shown and _is_mask(shown[key], num_actions) and np.asarray(shown[key]).dtype == bool:
                return MaskSource(place, key)
            if key in shown and _is_list(shown[key]):
                return MaskSource(place, key, lists_actions=True)
    if callable(getattr(env.unwrapped, METHOD, None)):
        return MaskSource("method", METHOD)
    return None


def read_mask(value: Any, source: MaskSource, space: spaces.Discrete[Any]) -> NDArray[np.float32] | None:
    """Return one flag per action, ``(num_actions,)`` of 0 and 1, all 1 where nothing is said; None: it is no mask."""
    num_actions = int(space.n)
    if value is None:
        return np.ones(num_actions, dtype=np.float32)
    if not source.lists_actions:
        return (np.asarray(value).reshape(-1) != 0).astype(np.float32) if _is_mask(value, num_actions) else None
    try:
        listed = np.asarray(value, dtype=np.int64).reshape(-1) - int(space.start)
    except (ValueError, TypeError):
        return None
    if not ((listed >= 0) & (listed < num_actions)).all():
        return None
    return np.isin(np.arange(num_actions), listed).astype(np.float32)


def not_a_mask(value: Any, source: MaskSource, num_actions: int) -> str:
    """Return what is wrong with a mask, as one line."""
    wanted = "numbers of legal actions" if source.lists_actions else f"{num_actions} flags, 1 where an action is legal"
    return f"{source} is {' '.join(repr(value).split()):.200}: expected {wanted}."


def _is_mask(value: Any, num_actions: int) -> bool:
    try:
        flags = np.asarray(value)
    except ValueError:
        return False
    return flags.size == num_actions and flags.dtype.kind in "biuf" and bool(np.isin(flags, (0, 1)).all())


def _is_list(value: Any) -> bool:
    try:
        numbers = np.asarray(value)
    except ValueError:
        return False
    return numbers.ndim == 1 and 0 < numbers.size == len(np.unique(numbers)) and numbers.dtype.kind in "iu"
