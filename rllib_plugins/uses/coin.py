"""The coin: at each step it decides whether the tutor acts, and advised steps are weighted and imitated.

The paper's form (arXiv 2509.08329) is the preset of its fields in ``PAPER_ADVICE``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.config import ImitationWeights
from rllib_plugins.algorithms.advice_replay import AdviceReplay
from rllib_plugins.uses.base import Imitator, Use, UseContext


class CoinUse(Use):
    """Imitate the advised steps of rollouts, and tell the explorer what advice was worth.

    Args:
        context: What it works with; the tutor acts by the runner's explorer.
    """

    def __init__(self, context: UseContext) -> None:
        super().__init__(context)
        self._replay = AdviceReplay.for_rollout(context.config, context.runner.rollout)

    def weights(self, step: int) -> ImitationWeights:
        """Return how strongly an update at an env step imitates the advised steps of its rollout."""
        return self._runner.core.imitation(step)

    def remember(self, start: int = 0, stop: int | None = None) -> None:
        """Keep the advised ones among the vector steps ``start`` to ``stop`` of the rollout for replay."""
        self._replay.add(self._runner.rollout, self._runner.core.num_consultations, start, stop)

    def imitate(self, learner: Imitator, step: int, weights: ImitationWeights) -> None:
        """Have remembered advice imitated again, as often as ``weights`` says."""
        self._replay.learn(learner, weights.replay)

    def compare(self, advantages: NDArray[np.float32]) -> None:
        """Tell the explorer what advised and own actions of the rollout were worth."""
        self._runner.core.observe(advantages, self._runner.rollout.heads, self._runner.rollout.eligible)

    def get_state(self) -> dict[str, Any]:
        """Return everything that later updates depend on; the explorer has its own."""
        return self._replay.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``."""
        self._replay.set_state(state)
