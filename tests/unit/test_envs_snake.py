"""Snake against a slow and obvious reference: lists of cells, one rule after the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rllib_plugins.envs.snake import SnakeEnv
from rllib_plugins.envs.snake_rules import FEATURE_TABLE, SnakeRules
from rllib_plugins.envs.snake_vector import SnakeVectorEnv
from tutor_service.errors import UserError

Cell = tuple[int, int]
RIGHT_OF = {(-1, 0): (0, 1), (0, 1): (1, 0), (1, 0): (0, -1), (0, -1): (-1, 0)}


@dataclass
class Reference:
    """A game of Snake read off a grid observation; the body is listed from tail to head."""

    size: int
    limit: int
    body: list[Cell]
    food: Cell | None
    hungry_for: int = 0

    @classmethod
    def read(cls, planes: np.ndarray, limit: int) -> Reference:
        size = planes.shape[1]
        cells = [(row, column) for row in range(size) for column in range(size)]
        body = sorted((cell for cell in cells if planes[0][cell] > 0), key=lambda cell: planes[0][cell])
        foods = [cell for cell in cells if planes[2][cell] == 1]
        heads = [cell for cell in cells if planes[1][cell] == 1]
        assert heads == [body[-1]]
        assert np.allclose([planes[0][cell] for cell in body], np.arange(1, len(body) + 1) / len(body))
        assert len(foods) <= 1
        return cls(size, limit, body, foods[0] if foods else None)

    def target(self, action: int) -> Cell:
        (row, column), (neck_row, neck_column) = self.body[-1], self.body[-2]
        ahead = (row - neck_row, column - neck_column)
        right = RIGHT_OF[ahead]
        step = {0: (-right[0], -right[1]), 1: ahead, 2: right}[action]
        return row + step[0], column + step[1]

    def is_deadly(self, cell: Cell) -> bool:
        outside = not (0 <= cell[0] < self.size and 0 <= cell[1] < self.size)
        return outside or cell in self.body[1:]

    def features(self) -> list[int]:
        deadly = [int(self.is_deadly(self.target(action))) for action in (0, 1, 2)]
        if self.food is None:
            return [*deadly, 0, 0]
        head, ahead = self.body[-1], self.target(1)
        step = (ahead[0] - head[0], ahead[1] - head[1])
        way = (self.food[0] - head[0], self.food[1] - head[1])
        right = RIGHT_OF[step]
        return [
            *deadly,
            int(np.sign(way[0] * step[0] + way[1] * step[1])),
            int(np.sign(way[0] * right[0] + way[1] * right[1])),
        ]

    def step(self, action: int, rewards: tuple[float, float, float]) -> tuple[float, bool, bool]:
        """Moves; the reward for food, death or neither, and whether the episode is terminated or truncated."""
        cell = self.target(action)
        if self.is_deadly(cell):
            return rewards[1], True, False
        self.body.append(cell)
        if cell == self.food:
            self.food = None
            self.hungry_for = 0
            return rewards[0], len(self.body) == self.size**2, False
        self.body.pop(0)
        self.hungry_for += 1
        return rewards[2], False, self.hungry_for >= self.limit

    def accept_food(self, planes: np.ndarray) -> None:
        """Takes over where new food fell, which must be on a free cell."""
        shown = Reference.read(planes, self.limit)
        if self.food is None and len(self.body) < self.size**2:
            assert shown.food is not None and shown.food not in self.body
            self.food = shown.food
        assert (shown.body, shown.food) == (self.body, self.food)


boards = st.integers(3, 7).flatmap(lambda size: st.tuples(st.just(size), st.integers(2, size)))


@settings(max_examples=40, deadline=None)
@given(boards, st.integers(1, 30), st.integers(0, 2**31 - 1), st.floats(0, 1))
def test_single_and_features_follow_the_reference(
    board: tuple[int, int], limit: int, seed: int, caution: float
) -> None:
    size, start_length = board
    arguments = {"size": size, "start_length": start_length, "starvation_limit": limit, "reward_step": -0.125}
    grid, features = SnakeEnv(observation="grid", **arguments), SnakeEnv(**arguments)
    rng = np.random.default_rng(seed)
    planes, info = grid.reset(seed=seed)
    compact, _ = features.reset(seed=seed)
    reference = Reference.read(planes, limit)
    assert len(reference.body) == start_length == info["length"]
    assert len({cell[0] for cell in reference.body}) == 1 or len({cell[1] for cell in reference.body}) == 1
    for _ in range(60):
        assert compact.tolist() == reference.features()
        action = careful(reference, rng, caution)
        planes, reward, terminated, truncated, info = grid.step(action)
        compact, *rest = features.step(action)
        assert (reward, terminated, truncated) == reference.step(action, (1.0, -1.0, -0.125))
        assert rest[:3] == [reward, terminated, truncated]
        reference.accept_food(planes)
        assert info["length"] == len(reference.body)
        if terminated or truncated:
            planes, _ = grid.reset()
            compact, _ = features.reset()
            reference = Reference.read(planes, limit)


@settings(max_examples=25, deadline=None)
@given(boards, st.integers(1, 30), st.integers(0, 2**31 - 1), st.floats(0, 1))
def test_the_vector_follows_the_reference(board: tuple[int, int], limit: int, seed: int, caution: float) -> None:
    size, start_length = board
    arguments = {"size": size, "start_length": start_length, "starvation_limit": limit, "reward_food": 2.5}
    num_envs = 3
    grid = SnakeVectorEnv(num_envs, observation="grid", **arguments)
    features = SnakeVectorEnv(num_envs, **arguments)
    rng = np.random.default_rng(seed)
    planes, infos = grid.reset(seed=seed)
    compact, _ = features.reset(seed=seed)
    references = [Reference.read(rows, limit) for rows in planes]
    assert infos["length"].tolist() == [start_length] * num_envs
    for _ in range(40):
        assert compact.tolist() == [reference.features() for reference in references]
        actions = np.array([careful(reference, rng, caution) for reference in references])
        planes, rewards, terminated, truncated, infos = grid.step(actions)
        compact, *_ = features.step(actions)
        for i, reference in enumerate(references):
            outcome = reference.step(int(actions[i]), (2.5, -1.0, 0.0))
            assert (rewards[i], terminated[i], truncated[i]) == outcome
            if terminated[i] or truncated[i]:
                assert infos["_final_obs"][i]
                reference.accept_food(infos["final_obs"][i])
                references[i] = Reference.read(planes[i], limit)
                assert len(references[i].body) == start_length
            else:
                reference.accept_food(planes[i])
        assert infos["length"].tolist() == [len(reference.body) for reference in references]


def careful(reference: Reference, rng: np.random.Generator, caution: float) -> int:
    """A random action, with probability ``caution`` among those that are not deadly, so that snakes grow."""
    alive = [action for action in (0, 1, 2) if not reference.is_deadly(reference.target(action))]
    return int(rng.choice(alive)) if alive and rng.random() < caution else int(rng.integers(3))


def test_a_full_board_ends_the_episode_without_food() -> None:
    from rllib_plugins.tasks.snake_oracle import safe_actions

    env = SnakeEnv(size=4, observation="grid")
    planes, _ = env.reset(seed=0)
    terminated = False
    total = 0.0
    while not terminated:
        reference = Reference.read(planes, 99)
        row, column = reference.food or (0, 0)
        body = [4 * cell[0] + cell[1] for cell in reference.body]
        planes, reward, terminated, truncated, info = env.step(safe_actions(4, body, 4 * row + column)[0])
        total += reward
        assert not truncated
    assert info["length"] == 16 and total == 13.0 and reward == 1.0
    assert planes[2].sum() == 0 and (planes[0] > 0).all()


def test_starts_and_food_are_spread_over_the_board() -> None:
    envs = SnakeVectorEnv(20_000, observation="grid", size=4, start_length=2)
    planes, _ = envs.reset(seed=0)
    env = SnakeEnv(observation="grid", size=4, start_length=2)
    single = np.array([env.reset(seed=seed)[0] for seed in range(3_000)])
    for plane in (1, 2):
        ours, theirs = planes[:, plane].mean(axis=0), single[:, plane].mean(axis=0)
        assert np.abs(ours - theirs).max() < 5 * np.sqrt(0.06 / 3_000)
        assert ours.min() > 0.03


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 4, "start_length": 5}, "start_length = 5: the board is too small.*size >= 5, got size = 4"),
        ({"size": 2}, "size = 2"),
        ({"start_length": 1}, "start_length = 1"),
        ({"starvation_limit": 0}, "starvation_limit = 0"),
        ({"observation": "pixels"}, "unknown observation 'pixels'.*features, grid"),
        ({"observation": "gird"}, "Did you mean 'grid'"),
        ({"reward_food": float("nan")}, "reward_food = nan"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SnakeEnv(**arguments)
    with pytest.raises(UserError, match=message):
        SnakeVectorEnv(2, **arguments)


def test_the_feature_table_is_ordered_as_its_index_says() -> None:
    assert len(np.unique(FEATURE_TABLE, axis=0)) == 72
    assert np.array_equal(FEATURE_TABLE @ [36, 18, 9, 3, 1] + 4, np.arange(72))
    assert SnakeRules(size=5).hunger_limit == 50
