"""Environments with habits that real ones have, and tasks around them."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import EzPickle

from rllib_plugins.tasks import Task

CONSTRUCTED: Counter[str] = Counter()


class Corridor(gym.Env):  # type: ignore[type-arg]
    """Five cells in a row, start in the middle; the right end pays 1."""

    observation_space: Any = spaces.Discrete(5)
    action_space: Any = spaces.Discrete(2)

    def __init__(self) -> None:
        CONSTRUCTED[type(self).__name__] += 1
        self.at: int | None = None
        self.time = 0

    def info(self) -> dict[str, Any]:
        return {}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.at, self.time = 2, 0
        return self.at, self.info()

    def step(self, action: int) -> Any:
        assert self.at is not None, "reset comes first"
        self.at += 1 if action else -1
        self.time += 1
        return self.at, float(self.at == 4), self.at in (0, 4), self.time >= 20, self.info()


class Rebuilt(Corridor, EzPickle):
    """Unpickles by its constructor."""

    def __init__(self) -> None:
        EzPickle.__init__(self)
        super().__init__()


class Remade(Corridor):
    """Unpickles by a function, without its state, and could be stepped at once."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 2

    def __reduce__(self) -> Any:
        return Remade, ()


class Locked(Corridor):
    """Holds what cannot be pickled."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class Ragged(Corridor):
    """Its infos change in length and type."""

    def info(self) -> dict[str, Any]:
        infos: list[dict[str, Any]] = [
            {"cells": np.arange(self.time), "note": None},
            {"cells": "none", "note": 3.0, "more": {"deep": np.zeros((2, self.time))}},
            {"note": [object()], "final_obs": "mine", "_cells": 1},
        ]
        return infos[self.time % 3]


class Masked(Corridor):
    """Left of the middle only "right" is legal, and anything else raises; ``say`` puts the mask somewhere."""

    keys: Any = None

    def mask(self) -> np.ndarray:
        return np.array([self.at is not None and self.at >= 2, True])

    def info(self) -> dict[str, Any]:
        return self.say(self.mask())

    def say(self, mask: np.ndarray) -> dict[str, Any]:
        return {"action_mask": mask}

    def step(self, action: int) -> Any:
        if not self.mask()[action]:
            raise ValueError(f"illegal action {action} at {self.at}")
        return super().step(action)


class MaskedInts(Masked):
    def say(self, mask: np.ndarray) -> dict[str, Any]:
        return {"action_masks": mask.astype(np.int8).tolist()}


class MaskedList(Masked):
    def say(self, mask: np.ndarray) -> dict[str, Any]:
        return {"legal_actions": np.flatnonzero(mask).tolist()}


class MaskedMethod(Masked):
    def say(self, mask: np.ndarray) -> dict[str, Any]:
        return {}

    def action_masks(self) -> np.ndarray:
        return self.mask()


class MaskedAttribute(Masked):
    action_mask = property(Masked.mask)

    def say(self, mask: np.ndarray) -> dict[str, Any]:
        return {}


class MaskedMoves(Masked):
    """On a wrapper, and as numbers."""

    def __new__(cls) -> Any:
        class Shown(gym.Wrapper):  # type: ignore[type-arg]
            def get_legal_moves(self) -> set[int]:
                return set(np.flatnonzero(self.unwrapped.mask()).tolist())  # type: ignore[attr-defined]

        return Shown(MaskedSilent())


class MaskedSilent(Masked):
    def say(self, mask: np.ndarray) -> dict[str, Any]:
        return {}


class MaskedObservation(Masked):
    observation_space = spaces.Dict({"cell": spaces.Discrete(5), "action_mask": spaces.MultiBinary(2)})

    def say(self, mask: np.ndarray) -> dict[str, Any]:
        return {}

    def _dictionary(self) -> dict[str, Any]:
        return {"cell": self.at, "action_mask": self.mask().astype(np.int8)}

    def reset(self, **keywords: Any) -> Any:
        _, info = super().reset(**keywords)
        return self._dictionary(), info

    def step(self, action: int) -> Any:
        _, *rest = super().step(action)
        return (self._dictionary(), *rest)


class Shut(Masked):
    """Allows nothing while the episode goes on."""

    def say(self, mask: np.ndarray) -> dict[str, Any]:
        return {"action_mask": mask & (self.time < 1)}


class OldStep(Corridor):
    """Four values from a step."""

    def step(self, action: int) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or truncated, info


class OldReset(Corridor):
    """No seed, and the observation alone."""

    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()[0]


class NoOptions(Corridor):
    def reset(self, *, seed: int | None = None) -> Any:  # type: ignore[override]
        return super().reset(seed=seed)


class BareReset(Corridor):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=seed)[0]


class Broke(Corridor):
    def step(self, action: int) -> Any:
        raise RuntimeError("port 7777 is taken\nby another simulator")


class NoReward(Corridor):
    def step(self, action: int) -> Any:
        observation, _, *rest = super().step(action)
        return (observation, None, *rest)


class BadReward(Corridor):
    """Pays what is no number where an episode ends."""

    paid: Any = float("nan")

    def step(self, action: int) -> Any:
        observation, reward, terminated, *rest = super().step(action)
        return (observation, self.paid if terminated else reward, terminated, *rest)


class BadSight(Corridor):
    """Shows what it cannot see any more where an episode ends."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)
    last: Any = np.array([np.nan])

    def reset(self, **keywords: Any) -> Any:
        return np.array([2.0]), super().reset(**keywords)[1]

    def step(self, action: int) -> Any:
        cell, reward, terminated, *rest = super().step(action)
        return (self.last if terminated else np.array([float(cell)]), reward, terminated, *rest)


class Arrays(Corridor):
    """Everything comes as arrays of one number."""

    def step(self, action: int) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, np.array([reward]), np.array(terminated), np.array([truncated]), info


class Closed(Corridor):
    """Cannot be used after ``close``, which fails the second time."""

    closed = False

    def reset(self, **keywords: Any) -> Any:
        assert not self.closed
        return super().reset(**keywords)

    def close(self) -> None:
        assert not self.closed
        self.closed = True


class NoStart(Corridor):
    def __init__(self) -> None:
        raise OSError("licence server not found\n(code 5)")


class Words(spaces.Space):  # type: ignore[type-arg]
    def sample(self, mask: Any = None, probability: Any = None) -> str:
        return "cell 2"

    def contains(self, x: Any) -> bool:
        return isinstance(x, str)


class Spoken(Corridor):
    """Observations that Gymnasium cannot flatten."""

    observation_space = Words()

    def reset(self, **keywords: Any) -> Any:
        observation, info = super().reset(**keywords)
        return f"cell {observation}", info

    def step(self, action: int) -> Any:
        observation, *rest = super().step(action)
        return (f"cell {observation}", *rest)


def task_of(env: type[gym.Env], **fields: Any) -> type[Task]:  # type: ignore[type-arg]
    """A task around an environment, registered under its class' name."""
    env_id = f"foreign/{env.__name__}-v0"
    gym.registry.pop(env_id, None)
    gym.register(env_id, entry_point=env)
    defaults = {
        "name": env.__name__.lower(),
        "env_id": env_id,
        "rules": "You walk in a corridor of five cells; the right end pays 1.",
        "actions": ("left", "right"),
        "describe": lambda self, observation: f"You see {observation}.",
    }
    return type(f"{env.__name__}Task", (Task,), defaults | fields)


def cell_vector(task: Task, observation: str) -> np.ndarray:
    """Encode what ``Spoken`` says."""
    return np.eye(5, dtype=np.float32)[int(observation.split()[1])]


RebuiltTask = task_of(Rebuilt)
LockedTask = task_of(Locked)
RaggedTask = task_of(Ragged)
MaskedTask = task_of(Masked)
MaskedListTask = task_of(MaskedList)
SpokenTask = task_of(Spoken, encode=cell_vector)
