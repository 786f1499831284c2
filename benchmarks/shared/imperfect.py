"""Tutors between oracle and noise, as oracles of the tasks they advise on: what real LLMs said, and scripted kinds.

``snake_answers.json`` and ``blackjack_answers.json`` hold what Qwen2.5-Coder-1.5B said of every state of Snake's
``features`` and of Blackjack, asked plainly and behind strategy notes that it wrote itself, and what SmolLM2-135M said
of Blackjack. *Calibrated* answers are divided by their mean over the states.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.tasks.base import Task
from rllib_plugins.tasks.blackjack import BlackjackTask
from rllib_plugins.tasks.snake import SnakeTask

Rows = NDArray[np.float64]
RECORDED = {
    "plain": ("plain", False),
    "calibrated": ("plain", True),
    "strategy": ("strategy", True),
    "smollm2": ("smollm2", False),
}
"""By kind: the way of asking, and whether its answers are calibrated."""
KINDS = ("oracle", *RECORDED, "constant", "half_states", "one_wrong", "worst")


def best_guess(rows: Rows) -> Rows:
    """Put all probability on the first best action, ``(n, num_actions)``."""
    return np.eye(rows.shape[1])[rows.argmax(axis=1)]


def distorted(kind: str, observations: NDArray[np.float32], oracle: Rows) -> Rows:
    """Return what a scripted kind of tutor says where the oracle says ``oracle``, ``(n, num_actions)``.

    ``constant``: always the first action. ``half_states``: the oracle's in a fixed random half of the states, another
    in the rest. ``one_wrong``: another where the last number of the observation is above 0 (Snake: food to the right;
    Blackjack: a usable ace). ``worst``: never the oracle's.
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
    return np.eye(num_actions)[best]


def recorded(task: Task, kind: str) -> dict[bytes, Rows]:
    """Return the best guesses of a recorded kind by the bytes of a flat observation.

    Args:
        task: Has recorded answers under its name, and encodes their observations.
        kind: One of ``RECORDED``.
    """
    way, is_calibrated = RECORDED[kind]
    answers = json.loads(Path(__file__).with_name(f"{task.name}_answers.json").read_text())["ways"][way]
    rows = np.array([answer["probabilities"] for answer in answers])
    guesses = best_guess(rows / rows.mean(axis=0) if is_calibrated else rows)
    keys = [task.encode(np.array(answer["observation"])).astype(np.float32).tobytes() for answer in answers]
    return dict(zip(keys, guesses, strict=True))


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
        return np.array([self._recorded.get(np.ascontiguousarray(row).tobytes(), unasked) for row in observations])


class ImperfectSnake(Imperfect, SnakeTask):
    """Is Snake with a tutor of some kind."""


class ImperfectBlackjack(Imperfect, BlackjackTask):
    """Is Blackjack with a tutor of some kind; always the first action is always to stick, as SmolLM2 does."""
