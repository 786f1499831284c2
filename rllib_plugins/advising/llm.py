"""An LLM as an advisor: from a flat observation to a question in words, from an answer to a row over all actions.

It must not know students, coins or reuse, nor how an LLM is reached and asked.
"""

from __future__ import annotations

import logging
import math
import time

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.advisor import AdviceBatch, Advisor, legal_mask
from rllib_plugins.metrics import Source
from rllib_plugins.tasks.base import Task
from tutor_service.client import TutorClient
from tutor_service.schema import Advice, AdviceRequest

logger = logging.getLogger(__name__)

_SUM_TOLERANCE = 1e-3


class LLMAdvisor(Advisor):
    """An LLM. It is shown the legal actions only; a state with one legal action is not asked about (SCRIPT).

    Advice that is no distribution over the legal actions is dropped and counted as invalid: the student acts.

    Args:
        task: The task that is advised on: its rules, words and legal actions make the questions.
        client: The tutor.
    """

    def __init__(self, task: Task, client: TutorClient) -> None:
        super().__init__(task, Source.STORE)
        self.client = client
        self._warned = False

    def evaluate(self, observations: NDArray[np.float32]) -> AdviceBatch:
        """Asks the tutor about all of them in one call."""
        n = len(observations)
        legal = legal_mask(self.task, observations)
        probabilities = np.full((n, self.task.num_actions), np.nan)
        source = np.full(n, Source.MISSED, dtype=np.int8)
        choices = legal.sum(axis=1)
        forced = np.flatnonzero(choices == 1)
        probabilities[forced] = legal[forced]
        source[forced] = Source.SCRIPT
        asked = np.flatnonzero(choices > 1)
        if not asked.size:
            return AdviceBatch(probabilities, source)
        started = time.perf_counter()
        answers = self.client.advise([self.request(observations[row], legal[row]) for row in asked])
        latency_ms = 1e3 * (time.perf_counter() - started)
        invalid = tokens = 0
        for row, advice in zip(asked, answers, strict=True):
            if advice is None:
                continue
            tokens += advice.tokens
            distribution = scatter(advice, legal[row])
            if distribution is None:
                self._warn(advice)
                invalid += 1
                continue
            probabilities[row] = distribution
            source[row] = Source.MODEL if advice.source == "model" else Source.STORE
            invalid += advice.invalid if advice.source == "model" else 0
        return AdviceBatch(probabilities, source, invalid, latency_ms, tokens)

    def request(self, observation: NDArray[np.float32], legal: NDArray[np.bool_]) -> AdviceRequest:
        """The question about one flat observation ``(obs_dim,)`` with its mask ``(num_actions,)``."""
        labels = tuple(label for label, allowed in zip(self.task.actions, legal, strict=True) if allowed)
        return AdviceRequest(self.task.rules, self.task.describe(self.task.raw_observation(observation)), labels)

    def _warn(self, advice: Advice) -> None:
        if not self._warned:
            self._warned = True
            logger.warning("Advice that is no distribution over the legal actions is dropped: %s", advice)


def scatter(advice: Advice, legal: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """An answer over the legal actions as a row over all actions, renormalised.

    Args:
        advice: Probabilities of the legal actions, in the task's order.
        legal: ``(num_actions,)``.

    Returns:
        ``(num_actions,)`` with 0 on illegal actions; None where the answer is of the wrong length, holds NaN or
        negative numbers, or does not sum to 1.
    """
    given = advice.probabilities
    if len(given) != int(legal.sum()):
        return None
    total = math.fsum(given) if all(math.isfinite(p) and p >= 0.0 for p in given) else math.nan
    if not abs(total - 1.0) <= _SUM_TOLERANCE:
        return None
    row = np.zeros(len(legal))
    row[legal] = np.asarray(given) / total
    return row
