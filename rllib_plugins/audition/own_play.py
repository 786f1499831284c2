"""Have a tutor play by itself, read as a student reads it: its return is the level up to which it can teach."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.advisor import Advisor, holds_guess
from rllib_plugins.advising.llm import best_guess
from rllib_plugins.evaluation import evaluate
from rllib_plugins.metrics import Source
from rllib_plugins.tasks.base import Task
from tutor_service.errors import UserError

NUM_ENVS = 8
"""Environments where they are stepped one after the other: a tutor is asked about so many states at once."""
MOST_MISSED = 0.1
"""Share of its questions without an answer above which a tutor's play says nothing."""


@dataclass(frozen=True, slots=True)
class OwnPlay:
    """The play of a tutor's best guesses.

    Attributes:
        return_mean: Mean episode return (undiscounted).
        return_se: Its standard error; 0 where the value is exact.
        num_env_steps: Env steps that were played; 0 where the value is exact.
        missed_share: Share of the questions that got no answer: random play took its place.
        return_std: Standard deviation of an episode's return.
        follow: Whether that shows the tutor to be worth following (``worth``); None: it does not tell.
        is_best: Whether that shows it to play about as well as can be.
    """

    return_mean: float
    return_se: float
    num_env_steps: int
    missed_share: float
    return_std: float = 0.0
    follow: bool | None = None
    is_best: bool = False

    @property
    def tutor_return(self) -> float | None:
        """Return the mean; None where too many answers were missed for it to be the tutor's."""
        return self.return_mean if self.missed_share <= MOST_MISSED else None

    def as_told(self) -> dict[str, Any]:
        """Return the fields of ``AdviceConfig`` by which a student is told of it."""
        return {"tutor_return": self.tutor_return, "follow": self.follow, "tutor_is_best": self.is_best}


def own_play(task: Task, advisor: Advisor, *, episodes: int, seed: int, most_seconds: float = math.inf) -> OwnPlay:
    """Have a tutor play a task by its best guesses; where it guesses nothing, at random.

    Args:
        task: The task.
        advisor: The tutor.
        episodes: Episodes to play where no exact evaluation exists.
        seed: Of the episodes.
        most_seconds: How long it may take.

    Raises:
        UserError: It takes longer.
    """
    num_asked = num_missed = 0
    started = time.monotonic()

    def play(observations: NDArray[np.float32]) -> NDArray[np.float64]:
        nonlocal num_asked, num_missed
        if time.monotonic() - started > most_seconds:
            raise UserError(
                f"{episodes} episodes take longer than {most_seconds:.0f} s. Set evaluation.tutor_episodes lower, or "
                "advice.tutor_return to what the tutor reaches."
            )
        batch = advisor.ask(observations)
        num_asked += len(observations)
        num_missed += int((batch.source == Source.MISSED).sum())
        told = batch.probabilities
        guessed = holds_guess(told, task.legal_batch(observations))
        return np.where(guessed[:, None], best_guess(told), 0.0)  # nothing on any action is played at random

    played = evaluate(task, play, episodes=episodes, seed=seed, num_envs=NUM_ENVS)
    return OwnPlay(
        return_mean=played.return_mean,
        return_se=0.0 if played.exact else played.return_std / math.sqrt(played.num_episodes),
        num_env_steps=played.num_env_steps,
        missed_share=num_missed / max(num_asked, 1),
        return_std=played.return_std,
    )
