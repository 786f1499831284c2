"""Tutors between oracle and noise, as oracles of the tasks they advise on: what real LLMs said, and scripted kinds.

The answers in ``snake_answers.json`` are those of Qwen2.5-Coder-1.5B to 64 states of Snake's ``features``, asked
plainly and behind strategy notes that the model wrote itself. *Calibrated* answers are divided by their mean over the
states.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.tasks.blackjack import BlackjackTask
from rllib_plugins.tasks.snake import SnakeTask

Rows = NDArray[np.float64]
ANSWERS = Path(__file__).with_name("snake_answers.json")
RECORDED = {"plain": ("plain", False), "calibrated": ("plain", True), "strategy": ("strategy", True)}
"""By kind: the way of asking, and whether its answers are calibrated."""
KINDS = ("oracle", *RECORDED, "constant", "half_states")


def best_guess(rows: Rows) -> Rows:
    """Put all probability on the first best action, ``(n, num_actions)``."""
    return np.eye(rows.shape[1])[rows.argmax(axis=1)]


def distorted(kind: str, observations: NDArray[np.float32], oracle: Rows) -> Rows:
    """Return what a scripted kind of tutor says where the oracle says ``oracle``, ``(n, num_actions)``.

    ``constant``: always the first action. ``half_states``: the oracle's in a fixed random half of the states, another
    in the rest.
    """
    num_actions = oracle.shape[1]
    best = oracle.argmax(axis=1)
    if kind == "constant":
        best = np.zeros_like(best)
    elif kind == "half_states":
        hashed = np.array([zlib.crc32(np.ascontiguousarray(row).tobytes()) for row in observations])
        best = np.where(hashed % 2 == 0, best, (best + 1) % num_actions)
    return np.eye(num_actions)[best]


def recorded(kind: str) -> dict[bytes, Rows]:
    """Return the best guesses of a recorded kind by the bytes of an observation."""
    way, is_calibrated = RECORDED[kind]
    answers = json.loads(ANSWERS.read_text())["ways"][way]
    rows = np.array([answer["probabilities"] for answer in answers])
    guesses = best_guess(rows / rows.mean(axis=0) if is_calibrated else rows)
    keys = [np.array(answer["observation"], np.float32).tobytes() for answer in answers]
    return dict(zip(keys, guesses, strict=True))


class ImperfectSnake(SnakeTask):
    """Snake whose oracle is a tutor of some kind.

    Args:
        kind: One of ``KINDS``.
        **options: Snake's own.
    """

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__(**options)
        self._kind = kind
        self._recorded = recorded(kind) if kind in RECORDED else None

    def oracle_batch(self, observations: NDArray[np.float32]) -> Rows | None:
        """Return what the tutor says of flat observations ``(n, obs_dim)``."""
        best = super().oracle_batch(observations)
        assert best is not None
        if self._recorded is None:
            return best if self._kind == "oracle" else distorted(self._kind, observations, best)
        unasked = np.full(3, 1 / 3)  # a state in which every move ends the game
        return np.array([self._recorded.get(np.ascontiguousarray(row).tobytes(), unasked) for row in observations])


class ImperfectBlackjack(BlackjackTask):
    """Blackjack whose oracle is a tutor of some kind; always the first action is always to stick.

    Args:
        kind: One of ``KINDS`` that is scripted.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind

    def oracle_batch(self, observations: NDArray[np.float32]) -> Rows:
        """Return what the tutor says of flat observations ``(n, 3)``."""
        best = super().oracle_batch(observations)
        return best if self._kind == "oracle" else distorted(self._kind, observations, best)
