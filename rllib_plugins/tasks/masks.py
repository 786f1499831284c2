"""Find out which actions an environment calls legal: where it says so, and how to read it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any, NamedTuple, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

_LEGAL = "(legal|valid|avail|available|possible|allowed|feasible|admissible|permitted)"
_ACTIONS = "(action|move)s?"
_FLAGS = re.compile(f"{_LEGAL}?{_ACTIONS}masks?|{_LEGAL}masks?|masks?{_ACTIONS}|avail{_ACTIONS}")
_LISTS = re.compile(f"{_LEGAL}{_ACTIONS}")
_UNCLEAR = re.compile(f"(in|il|un|im|dis){_LEGAL}({_ACTIONS}(masks?)?|masks?)|(forbidden|blocked){_ACTIONS}")
"""Names, in small letters alone: of one flag per action; of legal actions by number, or of flags where these cannot be
numbers; and of values in which some environments write 1 for what is legal and others for what is not."""

_METHOD = "action_masks"
"""Method of an environment that returns the mask, as sb3-contrib's MaskablePPO expects it."""


class MaskSource(NamedTuple):
    """Where an environment says which actions are legal.

    Attributes:
        place: ``info``, ``observation`` or ``attribute``.
        key: Key in that dictionary, or the name of the environment's attribute or method.
        lists_actions: Whether the value lists actions by number; else it has one flag per action.
    """

    place: str
    key: str
    lists_actions: bool = False

    def __str__(self) -> str:
        return f"env.{self.key}" if self.place == "attribute" else f"{self.place}['{self.key}']"

    def shown(self, env: gym.Env[Any, Any], observation: Any, info: Mapping[str, Any] | None) -> Any:
        """Return what the environment says now; None: nothing."""
        if self.place == "attribute":
            return _told(env.get_wrapper_attr(self.key))
        return ((info or {}) if self.place == "info" else observation).get(self.key)


def find_mask(env: gym.Env[Any, Any], observation: Any, info: Mapping[str, Any] | None) -> MaskSource | None:
    """Return where the environment shows its legal actions, or None where it shows none.

    Args:
        env: Its action space is Discrete.
        observation: That it showed last.
        info: The same.
    """
    actions = cast("spaces.Discrete[Any]", env.action_space)
    num_actions = int(actions.n)
    space = env.observation_space
    for place, shown in (("info", info), ("observation", observation)):
        if not isinstance(shown, Mapping):
            continue
        names = {key: _small(key) for key in shown if isinstance(key, str) and _is_many(shown[key])}
        parts = space.spaces if place == "observation" and isinstance(space, spaces.Dict) else {}
        for kind in (_FLAGS, _LISTS, _UNCLEAR):
            for key in (key for key, name in names.items() if kind.fullmatch(name)):
                return MaskSource(place, key, _lists(shown[key], kind, parts.get(key), num_actions))
        for key in (
            key for key, name in names.items() if name in ("mask", "masks") and _is_mask(shown[key], num_actions)
        ):
            return MaskSource(place, key)
    return next(_attributes(env, actions), None)


def read_mask(value: Any, source: MaskSource, space: spaces.Discrete[Any]) -> NDArray[np.float32] | None:
    """Return one flag per action, ``(num_actions,)`` of 0 and 1, all 1 where nothing is said; None: it is no mask."""
    num_actions = int(space.n)
    if value is None:
        return np.ones(num_actions, dtype=np.float32)
    if _UNCLEAR.fullmatch(_small(source.key)):
        return None
    if not source.lists_actions:
        return (np.asarray(value).reshape(-1) != 0).astype(np.float32) if _is_mask(value, num_actions) else None
    if not _is_list(value):
        return None
    listed = np.asarray(_listed(value), dtype=np.int64).reshape(-1) - int(space.start)
    if not ((listed >= 0) & (listed < num_actions)).all():
        return None
    return np.isin(np.arange(num_actions), listed).astype(np.float32)


def not_a_mask(value: Any, source: MaskSource, num_actions: int) -> str:
    """Return what is wrong with a mask, as one line."""
    wanted = "numbers of legal actions" if source.lists_actions else f"{num_actions} flags, 1 where an action is legal"
    if _UNCLEAR.fullmatch(_small(source.key)):
        wanted = "what is legal, under a name that says so, e.g. 'action_mask'"
    return (
        f"{source} is {' '.join(repr(value).split()):.200}: expected {wanted}. Or write legal(observation) in the "
        "task: the environment's own mask is then left alone."
    )


def _attributes(env: gym.Env[Any, Any], actions: spaces.Discrete[Any]) -> Iterator[MaskSource]:
    """Yield what the environment and its wrappers hold or return that is a mask."""
    layer: Any = env
    while True:
        for name in (_METHOD, *dir(layer)):
            small = _small(name).removeprefix("get")
            kind = next((kind for kind in (_FLAGS, _LISTS) if kind.fullmatch(small)), None)
            is_method = callable(inspect.getattr_static(layer, name, None))
            if name.startswith("_") or kind is None or not (is_method or "mask" in small):
                continue
            try:
                value = _told(getattr(layer, name))
            except Exception:  # there is none, or it wants arguments
                continue
            source = MaskSource("attribute", name, _lists(value, kind, None, int(actions.n)))
            if name == _METHOD or (_is_many(value) and read_mask(value, source, actions) is not None):
                yield source
        if not isinstance(layer, gym.Wrapper):
            return
        layer = layer.env


def _told(attribute: Any) -> Any:
    return attribute() if callable(attribute) else attribute


def _small(name: str) -> str:
    return re.sub("[^a-z]", "", name.lower())


def _lists(value: Any, kind: re.Pattern[str], space: spaces.Space[Any] | None, num_actions: int) -> bool:
    """Return whether a value lists actions by number, by its type, its name and its part of the observation space."""
    if isinstance(value, Mapping | Set):
        return True
    if kind is not _LISTS or (space is not None and space.shape == (num_actions,)):
        return False
    flags = np.asarray(value).reshape(-1) if _is_mask(value, num_actions) else None
    return flags is None or (flags.dtype != bool and len(np.unique(flags)) == len(flags))


def _listed(value: Any) -> Iterable[Any]:
    """Return the numbers that are listed: of a mapping the keys that are true, or all where it holds no flags."""
    if isinstance(value, Mapping):
        is_flags = all(isinstance(flag, bool | np.bool_ | int | np.integer) for flag in value.values())
        return [key for key, flag in value.items() if flag or not is_flags]
    return sorted(value) if isinstance(value, Set) else value


def _is_many(value: Any) -> bool:
    return not isinstance(value, str | bytes) and hasattr(value, "__len__") and getattr(value, "ndim", 1) > 0


def _is_mask(value: Any, num_actions: int) -> bool:
    try:
        flags = np.asarray(value)
    except ValueError:
        return False
    return flags.size == num_actions and flags.dtype.kind in "biuf" and bool(np.isin(flags, (0, 1)).all())


def _is_list(value: Any) -> bool:
    try:
        numbers = np.asarray(_listed(value))
    except (ValueError, TypeError):
        return False
    return (
        numbers.ndim == 1
        and len(np.unique(numbers)) == numbers.size
        and (numbers.size == 0 or numbers.dtype.kind in "iu")
    )
