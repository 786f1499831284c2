"""Handover: the tutor begins each episode, the student goes on, and the tutor's part shrinks as the student learns.

Jump-start reinforcement learning with a curriculum (Uchendu et al. 2022, arXiv 2204.02372): the tutor's part is made
shorter once the mean return of the latest episodes is within a tolerance of the best so far, until it is nothing. Two
things differ from the source: the returns are those of training episodes, not of evaluations; and PPO and A2C, which
the source does not use, weight the tutor's steps by min(c, π_old/μ), as the coin does. Once the advice budget is
spent, the tutor takes no more steps.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.advising.explorer import Explorer
from rllib_plugins.array_types import Bools, Floats, Floats32, Ints
from rllib_plugins.uses.options import Handover

WHOLLY = {
    "probability_initial": 1.0,
    "probability_final": 1.0,
    "probability_cap": 1.0,
    "trust": "fixed",
    "imitation": "off",
}
"""How the tutor acts in its part: the coin always shows heads, and nothing is imitated."""


@dataclass(slots=True)
class Curriculum:
    """Shorten the tutor's part.

    Attributes:
        options: As configured.
        stage: How often it was shortened.
        best: Highest mean return so far.
        returns: Of the latest episodes that were begun in this stage, the oldest first.
    """

    options: Handover
    stage: int = 0
    best: float = -math.inf
    returns: list[float] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Return the env steps of the tutor's part."""
        return math.ceil(self.options.horizon * (1.0 - self.stage / self.options.stages))

    def note(self, returns: list[float]) -> None:
        """Take note of episodes that were begun in this stage, in the order in which they ended."""
        for value in returns:
            self.returns = [*self.returns, value][-self.options.episodes :]
            if len(self.returns) == self.options.episodes:
                mean = sum(self.returns) / len(self.returns)
                is_good = mean >= self.best - self.options.tolerance * abs(self.best)
                self.best = max(self.best, mean)
                if is_good and self.length:
                    self.stage, self.returns = self.stage + 1, []
                    return


class HandoverExplorer(Explorer):
    """Let the tutor act in the first steps of each episode.

    Args:
        options: As configured.
        config: As ``Explorer``'s.
        **fields: Likewise.
    """

    _left: Ints
    _stages: Ints
    _returns: Floats

    def __init__(self, options: Handover, config: AdviceConfig, **fields: Any) -> None:
        self._curriculum = Curriculum(options)
        super().__init__(config.model_copy(update=WHOLLY), **fields)
        self._judges = True
        self._probability_at = lambda step: float(self._curriculum.length > 0 or bool(self._left.any()))

    def note_step(self, rewards: NDArray[Any], ended: Bools) -> None:
        """Take note of what a vector step led to: the next one may be the student's, or begin an episode."""
        self._left = np.maximum(self._left - 1, 0)
        self._returns += rewards
        if ended.any():
            counted = ended & (self._stages == self._curriculum.stage)
            self._curriculum.note(self._returns[counted].tolist())
            self._begin(ended)

    def begin_episodes(self) -> None:
        """Begin an episode everywhere."""
        self._begin(np.ones(len(self._left), dtype=bool))

    def gauges(self) -> dict[str, float]:
        """Return values at this point of the trial; trust is what is left of the tutor's part, as a share."""
        left = self._curriculum.length / self._curriculum.options.horizon
        return super().gauges() | {"advice/trust": left}

    def get_state(self) -> dict[str, Any]:
        """Return the curriculum and the running episodes, too."""
        curriculum = asdict(self._curriculum)
        del curriculum["options"]
        running = {"left": self._left.copy(), "stages": self._stages.copy(), "returns": self._returns.copy()}
        return super().get_state() | {"curriculum": curriculum, "running": running}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``; an empty one changes nothing."""
        super().set_state(state)
        if state:
            self._curriculum = Curriculum(self._curriculum.options, **state["curriculum"])
            running = {name: array.copy() for name, array in state["running"].items()}
            self._allocate(len(running["left"]))
            self._left, self._stages, self._returns = running["left"], running["stages"], running["returns"]

    def _judge(self, policy: Floats, legal: Bools | None, q_values: Floats | None, observations: Floats32) -> None:
        """Open the gate where an episode is in the tutor's part."""
        self._visits["open"] = self._left > 0

    def _allocate(self, n: int) -> None:
        """Allocate scratch arrays for n environments, which begin an episode."""
        super()._allocate(n)
        self._left, self._stages, self._returns = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n)
        self._begin(np.ones(n, dtype=bool))

    def _begin(self, where: Bools) -> None:
        """Begin an episode in some environments, ``(n,)``."""
        self._left[where], self._stages[where] = self._curriculum.length, self._curriculum.stage
        self._returns[where] = 0.0
