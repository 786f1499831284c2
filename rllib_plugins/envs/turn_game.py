"""A two-player turn game of PettingZoo as an environment for one student, whose opponent answers inside the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Opponent: TypeAlias = Callable[[Any, NDArray[np.bool_], np.random.Generator], int]
"""From an observation, the mask of legal actions ``(num_actions,)`` and a generator to an action."""


def random_opponent(observation: Any, mask: NDArray[np.bool_], rng: np.random.Generator) -> int:
    """Return a random legal action."""
    return int(rng.choice(np.flatnonzero(mask)))


class TurnGameEnv(gym.Env[Any, int]):
    """One seat of a game of ``pettingzoo.classic``, e.g. ``TurnGameEnv(tictactoe_v3.env)``.

    ## Observation Space
    The game's own ``observation`` of the player to move; it is always the student's turn.

    ## Rewards
    The student's rewards since its last action.

    ## Episode End
    When the game is over.

    ## Information
    ``action_mask``: the game's own.

    ## Arguments
    * ``make_game``: makes the game (an AEC environment with ``observation`` and ``action_mask``).
    * ``opponent``: who answers; default: ``random_opponent``.
    """

    def __init__(self, make_game: Callable[[], Any], opponent: Opponent = random_opponent) -> None:
        self.game = make_game()
        self.opponent = opponent
        agent = self.game.possible_agents[0]
        self.observation_space: spaces.Space[Any] = self.game.observation_space(agent)["observation"]
        self.action_space = self.game.action_space(agent)
        self.student = agent

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start a game; either side is as likely to begin."""
        super().reset(seed=seed)
        self.game.reset(seed=int(self.np_random.integers(2**31)))
        self.student = str(self.np_random.choice(self.game.possible_agents))
        observation, *_, info = self._until_the_student()
        return observation, info

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Make the student's move and the opponent's answer."""
        self.game.step(int(action))
        return self._until_the_student()

    def close(self) -> None:
        """Close the game."""
        self.game.close()

    def _until_the_student(self) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        while self.game.agent_selection != self.student:
            seen, _, terminated, truncated, _ = self.game.last()
            over = terminated or truncated
            mask = np.asarray(seen["action_mask"], dtype=bool)
            self.game.step(None if over else self.opponent(seen["observation"], mask, self.np_random))
        seen, reward, terminated, truncated, _ = self.game.last()
        return seen["observation"], float(reward), terminated, truncated, {"action_mask": seen["action_mask"]}
