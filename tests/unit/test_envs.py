"""What holds for every environment that this project registers."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import rllib_plugins.envs  # noqa: F401 - registers the environments
from rllib_plugins.envs.blackjack_vector import BlackjackVectorEnv
from rllib_plugins.envs.connect_four import ConnectFourEnv
from rllib_plugins.envs.snake import SnakeEnv
from tutor_service.errors import UserError

OURS = [spec.id for spec in gym.registry.values() if spec.namespace == "LLMTutors"]
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("LLMTutors/ConnectFour-v0", {}),
    ("LLMTutors/ConnectFour-v0", {"opponent": "greedy", "first": "opponent"}),
    ("LLMTutors/ConnectFour-v0", {"opponent": "perfect", "error_rate": 1.0}),
    ("LLMTutors/Snake-v0", {}),
    ("LLMTutors/Snake-v0", {"observation": "grid", "size": 5, "start_length": 2}),
]
HEADINGS = (
    "Description",
    "Action Space",
    "Observation Space",
    "Starting State",
    "Rewards",
    "Episode End",
    "Information",
    "Arguments",
)


def legal_action(env: Any, info: dict[str, Any], rng: np.random.Generator) -> int:
    mask = info.get("action_mask")
    return int(rng.integers(env.action_space.n) if mask is None else rng.choice(np.flatnonzero(mask)))


def test_both_environments_are_registered() -> None:
    assert sorted(OURS) == ["LLMTutors/ConnectFour-v0", "LLMTutors/Snake-v0"]


@pytest.mark.parametrize(("env_id", "arguments"), VARIANTS)
def test_gymnasiums_checker_passes(env_id: str, arguments: dict[str, Any]) -> None:
    check_env(gym.make(env_id, **arguments).unwrapped)


@pytest.mark.parametrize("env_id", OURS)
def test_docstrings_have_gymnasiums_headings(env_id: str) -> None:
    docstring = type(gym.make(env_id).unwrapped).__doc__ or ""
    assert [line.strip("# ") for line in docstring.splitlines() if line.strip().startswith("## ")] == list(HEADINGS)


@pytest.mark.parametrize(("env_id", "arguments"), VARIANTS)
def test_two_seeded_copies_play_the_same_games(env_id: str, arguments: dict[str, Any]) -> None:
    first, second = gym.make(env_id, **arguments), gym.make(env_id, **arguments)
    rng = np.random.default_rng(0)
    observation, info = first.reset(seed=11)
    other, _ = second.reset(seed=11)
    for _ in range(150):
        assert np.array_equal(observation, other)
        action = legal_action(first, info, rng)
        observation, reward, terminated, truncated, info = first.step(action)
        other, *rest = second.step(action)
        assert rest[:3] == [reward, terminated, truncated]
        if terminated or truncated:
            assert np.array_equal(observation, other)
            observation, info = first.reset()
            other, _ = second.reset()


@pytest.mark.parametrize(("env_id", "arguments"), VARIANTS)
def test_rendering_shows_the_game(env_id: str, arguments: dict[str, Any]) -> None:
    text, image = (gym.make(env_id, render_mode=mode, **arguments) for mode in ("ansi", "rgb_array"))
    _, info = text.reset(seed=4)
    image.reset(seed=4)
    before = text.render(), image.render()
    action = legal_action(text, info, np.random.default_rng(1))
    text.step(action)
    image.step(action)
    after = text.render(), image.render()
    assert isinstance(before[0], str) and before[0] != after[0]
    assert before[1].dtype == np.uint8 and before[1].ndim == 3 and before[1].shape[2] == 3
    assert (before[1] != after[1]).any()


def test_pictures_are_what_the_board_is() -> None:
    board = ConnectFourEnv(first="opponent", render_mode="ansi")
    board.reset(seed=1)
    column = board.render().splitlines()[5].index("O")
    board.step(column)
    rows = board.render().splitlines()
    assert rows[5][column] == "O" and rows[4][column] == "X" and rows[6] == "1234567"
    snake = SnakeEnv(size=4, render_mode="ansi")
    snake.reset(seed=2)
    assert [snake.render().count(sign) for sign in "@o*."] == [1, 2, 1, 12]


@pytest.mark.parametrize("env_id", OURS)
def test_steps_that_make_no_sense_are_refused(env_id: str) -> None:
    env = gym.make(env_id).unwrapped
    with pytest.raises(UserError, match="reset"):
        env.step(0)
    env.reset(seed=0)
    for action in (-1, 7, 99):
        with pytest.raises(UserError, match=f"action {action}"):
            env.step(action)
    info: dict[str, Any] = env.reset(seed=0)[1]
    ended = False
    rng = np.random.default_rng(0)
    while not ended:
        _, _, terminated, truncated, info = env.step(legal_action(env, info, rng))
        ended = terminated or truncated
    with pytest.raises(UserError, match="reset"):
        env.step(0)


@pytest.mark.parametrize("env_id", OURS)
def test_vector_steps_that_make_no_sense_are_refused(env_id: str) -> None:
    envs = gym.make_vec(env_id, num_envs=3, vectorization_mode="vector_entry_point")
    with pytest.raises(UserError, match="reset"):
        envs.step(np.zeros(3, dtype=int))
    envs.reset(seed=0)
    with pytest.raises(UserError, match="action 7 in environment 1"):
        envs.step(np.array([0, 7, 0]))
    with pytest.raises(UserError, match=r"expected 3 integers, got shape \(2,\)"):
        envs.step(np.array([0, 1]))
    with pytest.raises(UserError, match=r"expected 3 integers, got .* of float64"):
        envs.step(np.array([0.0, 1.0, 2.0]))


def test_draws_are_not_those_of_a_generator_with_the_same_seed() -> None:
    envs = BlackjackVectorEnv(1_000)
    envs.reset(seed=7)
    assert not np.array_equal(envs.rng.random(50), np.random.default_rng(7).random(50))
    first, _, _ = envs.reset(seed=7)[0]
    cards = np.minimum(np.random.default_rng(7).integers(1, 14, size=(3, 1_000)), 10)
    assert abs(np.corrcoef(first, cards[0] + cards[1])[0, 1]) < 0.2


def test_a_vector_without_environments_is_refused() -> None:
    with pytest.raises(UserError, match="num_envs = 0"):
        BlackjackVectorEnv(0)
