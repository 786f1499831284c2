"""Tasks drawn at random: observation spaces, infos, types and APIs as other people's environments have them."""

from __future__ import annotations

import threading
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import EzPickle
from hypothesis import strategies as st

from rllib_plugins.tasks import Task

Drawn: type[Task]
"""The task that is tried now: ``load_task("tests.unit.drawn_tasks:Drawn")``."""

ADDRESS = "tests.unit.drawn_tasks:Drawn"

REWARDS = {
    "float": float,
    "float32": np.float32,
    "int": int,
    "array": np.array,
    "bool": bool,
    "none": lambda value: None,
    "nan": lambda value: float("nan"),
    "text": str,
}
FLAGS = {"bool": bool, "numpy": np.bool_, "int": int, "none": lambda value: None}
APIS = ("new", "new", "new", "new", "four", "unseeded", "bare", "broken")
MASKS = ("none", "none", "action_mask", "action_masks", "legal_actions", "method", "wrong")
INFOS = ("ragged", "empty", "ragged", "types", "none", "nested")
PICKLES = ("plain", "constructor", "lock")


def boxes() -> st.SearchStrategy[Any]:
    shapes = st.sampled_from([(), (1,), (3,), (2, 2)])
    whole = st.builds(
        lambda shape, dtype: spaces.Box(0, 9, shape, dtype),
        shapes,
        st.sampled_from([np.int8, np.uint8, np.int32, np.int64]),
    )
    real = st.builds(
        lambda shape, dtype, bound: spaces.Box(-bound, bound, shape, dtype),
        shapes,
        st.sampled_from([np.float32, np.float64]),
        st.sampled_from([1.0, 1e6, np.inf]),
    )
    return whole | real


def flat_spaces() -> st.SearchStrategy[Any]:
    return st.one_of(
        boxes(),
        st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 6), st.integers(-2, 3)),
        st.builds(spaces.MultiDiscrete, st.lists(st.integers(1, 4), min_size=1, max_size=3)),
        st.builds(spaces.MultiBinary, st.integers(1, 4)),
        st.builds(spaces.Text, st.integers(1, 4)),
    )


def odd_spaces() -> st.SearchStrategy[Any]:
    return st.one_of(
        st.builds(spaces.Sequence, flat_spaces()),
        st.builds(lambda a, b: spaces.OneOf((a, b)), flat_spaces(), flat_spaces()),
        st.just(spaces.Graph(spaces.Discrete(3), None)),
    )


def observation_spaces() -> st.SearchStrategy[Any]:
    parts = st.lists(flat_spaces(), min_size=1, max_size=3)
    return st.one_of(
        flat_spaces(),
        parts.map(lambda found: spaces.Tuple(tuple(found))),
        parts.map(lambda found: spaces.Dict({f"part {i}": part for i, part in enumerate(found)})),
        odd_spaces(),
    )


@st.composite
def tasks(draw: Any) -> type[Task]:
    """A task; most can be played."""
    space = draw(observation_spaces())
    num_actions = draw(st.sampled_from([2, 3, 4, 2, 3, 1]))
    habits = {
        "api": draw(st.sampled_from(APIS)),
        "mask": draw(st.sampled_from(MASKS)),
        "infos": draw(st.sampled_from(INFOS)),
        "reward": draw(st.sampled_from([*REWARDS, "float", "float", "int"])),
        "flag": draw(st.sampled_from([*FLAGS, "bool", "bool"])),
        "length": draw(st.integers(1, 8)),
        "start": draw(st.sampled_from([0, 0, 3])),
    }
    pickles = draw(st.sampled_from(PICKLES))
    fields: dict[str, Any] = {
        "name": "drawn",
        "env_id": "Drawn-v0",
        "rules": "Do as you like.",
        "actions": tuple(f"do {i}" for i in range(num_actions)),
        "describe": draw(st.sampled_from([by_vector, by_text])),
    }
    if draw(st.booleans()):
        fields["encode"] = hashed
    gym.registry.pop("Drawn-v0", None)
    gym.register("Drawn-v0", entry_point=lambda: make_env(space, num_actions, habits, pickles))
    return type("DrawnTask", (Task,), fields)


def by_vector(task: Task, observation: Any) -> str:
    return " ".join(f"{number:.3g}" for number in task.encode(observation).reshape(-1)) or "nothing"


def by_text(task: Task, observation: Any) -> str:
    return f"You see {observation}."


def hashed(task: Task, observation: Any) -> np.ndarray:
    """A vector of one's own for observations of any kind."""
    return np.frombuffer(repr(observation).encode()[:24].ljust(24), np.uint8).astype(np.float32)


def make_env(space: Any, num_actions: int, habits: dict[str, Any], pickles: str) -> gym.Env:  # type: ignore[type-arg]
    if pickles == "constructor":
        return ByConstructor(space, num_actions, habits)
    env = DrawnEnv(space, num_actions, habits)
    if pickles == "lock":
        env.lock = threading.Lock()
    return env


class DrawnEnv(gym.Env):  # type: ignore[type-arg]
    """Random observations; raises where an action is illegal."""

    lock: Any = None

    def __init__(self, space: Any, num_actions: int, habits: dict[str, Any]) -> None:
        self.observation_space = space
        self.habits = habits
        self.action_space = spaces.Discrete(num_actions, start=habits["start"])
        self.time = 0
        self.is_on = False
        if habits["mask"] == "method":
            self.action_masks = self.mask

    def reset(self, **keywords: Any) -> Any:
        if self.habits["api"] == "unseeded" and keywords:
            raise TypeError("reset() got an unexpected keyword argument 'seed'")
        super().reset(seed=keywords.get("seed"))
        if keywords.get("seed") is not None:
            self.observation_space.seed(keywords["seed"])
        self.time, self.is_on = 0, True
        observation = self.observation_space.sample()
        return observation if self.habits["api"] == "bare" else (observation, self.info())

    def step(self, action: int) -> Any:
        assert self.is_on, "reset comes first"
        assert self.action_space.contains(action)
        if self.habits["api"] == "broken" and self.time == 2:
            raise RuntimeError("out of memory\nin the simulator")
        if self.has_mask and self.time and not self.mask()[action - self.habits["start"]]:
            raise ValueError(f"illegal action {action}")
        self.time += 1
        ended = self.time >= self.habits["length"]
        self.is_on = not ended
        flag = FLAGS[self.habits["flag"]]
        reward = REWARDS[self.habits["reward"]](self.time % 2)
        observation = self.observation_space.sample()
        if self.habits["api"] == "four":
            return observation, reward, ended, self.info()
        return observation, reward, flag(ended), flag(False), self.info()

    @property
    def has_mask(self) -> bool:
        return self.habits["mask"] not in ("none", "wrong")

    def mask(self) -> np.ndarray:
        """All actions at first and at the end, then all but one."""
        mask = np.ones(int(self.action_space.n), dtype=bool)
        if len(mask) > 1 and 0 < self.time < self.habits["length"]:
            mask[self.time % len(mask)] = False
        return mask

    def info(self) -> Any:
        found: dict[str, Any] = {
            "empty": {},
            "ragged": {"cells": np.arange(self.time), "deep": {"more": np.zeros((self.time, 2))}},
            "types": {"score": (None, 3, "many", [1, 2], object())[self.time % 5], 7: self.time},
            "none": None,
            "nested": {"a": {"b": {"c": [self.time] * self.time}}, "final_obs": 1, "_final_obs": "x"},
        }[self.habits["infos"]]
        if self.habits["mask"] in ("action_mask", "action_masks") and found is not None:
            found[self.habits["mask"]] = self.mask().astype(np.int8)
        if self.habits["mask"] == "legal_actions" and found is not None:
            found["legal_actions"] = (np.flatnonzero(self.mask()) + self.habits["start"]).tolist()
        if self.habits["mask"] == "wrong" and found is not None:
            found["action_mask"] = self.mask() if self.time < 1 else "all of them"
        return found


class ByConstructor(DrawnEnv, EzPickle):
    def __init__(self, *arguments: Any) -> None:
        EzPickle.__init__(self, *arguments)
        DrawnEnv.__init__(self, *arguments)
