"""Replays our games of Connect Four, stone by stone, on PettingZoo's environment."""

from __future__ import annotations

from typing import Any

import numpy as np

from rllib_plugins.envs.connect_four import ConnectFourEnv
from rllib_plugins.envs.connect_four_opponents import choose
from rllib_plugins.envs.connect_four_vector import ConnectFourVectorEnv


class Peer:
    """One game on the peer. Moves are read off our observations, so nothing but what a student sees is compared."""

    def __init__(self) -> None:
        from pettingzoo.classic.connect_four.connect_four import raw_env

        self._env = raw_env()
        self.num_games = 0

    def start(self, planes: np.ndarray) -> None:
        """A new game; ``planes`` are empty or hold the opponent's first stone."""
        self._env.reset()
        self.num_games += 1
        self._shown = np.zeros_like(planes)
        self._over = False
        self._reward = 0.0
        self._student = self._env.possible_agents[int(planes[1].any())]
        self._follow(1, planes)
        self.check(planes, 0.0, False)

    def step(self, column: int, planes: np.ndarray) -> None:
        """The student's move, and the opponent's as ``planes`` show it."""
        self._drop(column)
        row = max(row for row in range(6) if not self._shown[:, row, column].any())
        self._shown[0, row, column] = 1
        self._follow(1, planes)

    def check(self, planes: np.ndarray, reward: float, terminated: bool) -> None:
        """Holds our observation, reward and end against the peer's."""
        theirs = self._env.observe(self._student)["observation"]
        assert np.array_equal(planes, np.moveaxis(theirs, 2, 0))
        assert (reward, terminated) == (self._reward, self._over)
        if not terminated:
            assert self._env.agent_selection == self._student
            mask = [column for column in range(7) if self._env.board[column] == 0]
            assert np.array_equal(np.flatnonzero(planes[:, 0].max(axis=0) == 0), mask)

    def _follow(self, player: int, planes: np.ndarray) -> None:
        new = np.argwhere(planes[player] != self._shown[player])
        if self._over:
            assert len(new) == 0
            return
        assert len(new) <= 1
        for _, column in new:
            self._drop(int(column))
        self._shown = planes.copy()

    def _drop(self, column: int) -> None:
        agent = self._env.agent_selection
        self._env.step(column)
        self._over = self._env.terminations[agent]
        won = bool(self._env.rewards[agent])
        if won:
            self._reward = 1.0 if agent == self._student else -1.0


def replay_single(peer: Peer, env: ConnectFourEnv, num_games: int, seed: int) -> None:
    """Plays random games on the single environment and holds every step against the peer."""
    rng = np.random.default_rng(seed)
    for game in range(num_games):
        planes, info = env.reset(seed=seed + game)
        peer.start(planes)
        terminated = False
        while not terminated:
            column = int(rng.choice(np.flatnonzero(info["action_mask"])))
            planes, reward, terminated, truncated, info = env.step(column)
            peer.step(column, planes)
            peer.check(planes, reward, terminated)
            assert not truncated


def replay_vector(peer: Peer, envs: ConnectFourVectorEnv, num_games: int, seed: int) -> None:
    """Plays random games on the vector environment, then holds every step of every game against the peer."""
    rng = np.random.default_rng(seed)
    planes, infos = envs.reset(seed=seed)
    running: list[list[Any]] = [[rows] for rows in planes]
    num_left = num_games
    while num_left > 0:
        columns = choose(infos["action_mask"] > 0, rng)
        planes, rewards, terminated, truncated, infos = envs.step(columns)
        assert not truncated.any()
        for i, game in enumerate(running):
            shown = infos["final_obs"][i] if terminated[i] else planes[i]
            game.append((int(columns[i]), shown, float(rewards[i]), bool(terminated[i])))
            if terminated[i]:
                _hold(peer, game)
                num_left -= 1
                running[i] = [planes[i]]


def _hold(peer: Peer, game: list[Any]) -> None:
    peer.start(game[0])
    for column, planes, reward, terminated in game[1:]:
        peer.step(column, planes)
        peer.check(planes, reward, terminated)
