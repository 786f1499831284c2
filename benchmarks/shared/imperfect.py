"""Tutors between oracle and noise, as oracles of the tasks they advise on: what real LLMs said, and scripted kinds.

``snake_answers.json`` and ``blackjack_answers.json`` hold what Qwen2.5-Coder-1.5B said of every state of Snake's
``features`` and of Blackjack, asked plainly and behind strategy notes that it wrote itself, and what SmolLM2-135M said
of Blackjack; ``../data`` holds what Qwen said of CartPole. *Calibrated* answers are divided by their mean over the
states.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.shared.grounds import RuledConnectFour
from examples.frozen_lake import FrozenLakeTask
from rllib_plugins.tasks.base import Task
from rllib_plugins.tasks.blackjack import BlackjackTask
from rllib_plugins.tasks.cart_pole import CartPoleTask
from rllib_plugins.tasks.snake import SnakeTask
from tutor_service.prompts.layout import EMPTY_STATE, HINT, NOTES

Rows = NDArray[np.float64]
Said = dict[str, Rows]
"""By a state in words, the probabilities of its actions."""
RECORDED = {
    "plain": ("plain", False),
    "hint": ("hint", False),
    "calibrated": ("plain", True),
    "strategy": ("strategy", True),
    "notes": ("strategy", False),
    "smollm2": ("smollm2", False),
}
"""By kind: the way of asking, and whether its answers are calibrated."""
KINDS = ("oracle", *RECORDED, "soft", "constant", "half_states", "one_wrong", "worst")
CART_POLE = Path(__file__).parents[1] / "data" / "qwen2.5-coder-1.5b-cart_pole.jsonl"
MARKS = {"strategy": NOTES.strip(), "hint": HINT.strip(), "plain": ""}
"""What the rules of a way of asking hold."""


def best_guess(rows: Rows) -> Rows:
    """Put all probability on the first best action, ``(n, num_actions)``."""
    return np.eye(rows.shape[1])[rows.argmax(axis=1)]


def distorted(kind: str, observations: NDArray[np.float32], oracle: Rows) -> Rows:
    """Return what a scripted kind of tutor says where the oracle says ``oracle``, ``(n, num_actions)``.

    ``constant``: always the first action. ``half_states``: the oracle's in a fixed random half of the states, another
    in the rest. ``soft``: the oracle's, but any action with probability ½. ``one_wrong``: another where the last number
    of the observation is above 0 (Snake: food to the right; Blackjack: a usable ace; CartPole: the pole turns to the
    right; Connect Four: the opponent holds a certain corner). ``worst``: never the oracle's.
    """
    num_actions = oracle.shape[1]
    best = oracle.argmax(axis=1)
    if kind == "constant":
        best = np.zeros_like(best)
    elif kind == "half_states":
        hashed = np.array([zlib.crc32(np.ascontiguousarray(row).tobytes()) for row in observations])
        best = np.where(hashed % 2 == 0, best, (best + 1) % num_actions)
    elif kind == "one_wrong":
        best = np.where(observations[:, -1] > 0, (best + 1) % num_actions, best)
    elif kind == "worst":
        best = (best + 1) % num_actions
    rows: Rows = np.eye(num_actions)[best]
    return 0.5 * rows + 0.5 / num_actions if kind == "soft" else rows


def answers_of(task: Task, way: str) -> Said:
    """Return what was recorded of a task, asked in one way.

    Args:
        task: Has recorded answers under its name.
        way: plain, hint, strategy or smollm2.
    """
    if task.name != CartPoleTask.name:
        ways = json.loads(Path(__file__).with_name(f"{task.name}_answers.json").read_text())["ways"]
        return {task.describe(np.array(one["observation"])): np.array(one["probabilities"]) for one in ways[way]}
    answers = [json.loads(line) for line in CART_POLE.read_text().splitlines()]
    others = [mark for mark in MARKS.values() if mark and mark != MARKS[way]]
    asked = [one for one in answers if MARKS[way] in one["rules"] and not any(mark in one["rules"] for mark in others)]
    return {one["state"]: np.array(one["probabilities"]) for one in asked if one["state"] != EMPTY_STATE}


def recorded(task: Task, kind: str) -> Said:
    """Return the best guesses of a recorded kind.

    Args:
        task: Has recorded answers under its name.
        kind: One of ``RECORDED``.
    """
    way, is_calibrated = RECORDED[kind]
    said = answers_of(task, way)
    rows = np.array(list(said.values()))
    return dict(zip(said, best_guess(rows / rows.mean(axis=0) if is_calibrated else rows), strict=True))


class Imperfect:
    """Makes a task's oracle a tutor of some kind; put it before the task.

    Args:
        kind: One of ``KINDS``.
        **options: The task's own.
    """

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__(**options)
        self._kind = kind
        self._recorded = recorded(self, kind) if kind in RECORDED else None  # type: ignore[arg-type]

    def oracle_batch(self, observations: NDArray[np.float32]) -> Rows:
        """Return what the tutor says of flat observations ``(n, obs_dim)``."""
        best: Rows = super().oracle_batch(observations)  # type: ignore[misc]
        if self._recorded is None:
            return best if self._kind == "oracle" else distorted(self._kind, observations, best)
        unasked = np.full(best.shape[1], 1 / best.shape[1])  # Snake: a state in which every move ends the game
        task: Any = self
        states = [task.describe(task.raw_observation(row)) for row in observations]
        return np.array([self._recorded.get(state, unasked) for state in states])


class ImperfectSnake(Imperfect, SnakeTask):
    """Is Snake with a tutor of some kind."""


class ImperfectCartPole(Imperfect, CartPoleTask):
    """Is CartPole in words with a tutor of some kind."""


class ImperfectConnectFour(Imperfect, RuledConnectFour):
    """Is Connect Four with a tutor of some kind; an illegal move that it names is no advice."""


class ImperfectLake(Imperfect, FrozenLakeTask):
    """Is FrozenLake with a tutor of some kind."""


class ImperfectBlackjack(Imperfect, BlackjackTask):
    """Is Blackjack with a tutor of some kind; always the first action is always to stick, as SmolLM2 does."""
