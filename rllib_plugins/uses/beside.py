"""What explorers have in common of which the student takes every step, with its tutor beside it until θ."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rllib_plugins.advising.advisor import Advisor
from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.advising.explorer import Explorer
from rllib_plugins.advising.rules import LinearSchedule
from rllib_plugins.array_types import Floats, Floats32, Ints


class ExplorerBeside(Explorer):
    """Ask the tutor about states in which the student then acts; the tutor's part falls linearly to 0 at θ.

    Args:
        config: As ``Explorer``'s.
        theta_steps: Likewise.
        advisor: The tutor.
        first_part: The tutor's part at env step 0, of whatever kind it is.
        **fields: As ``Explorer``'s.
    """

    def __init__(
        self, config: AdviceConfig, *, theta_steps: float, advisor: Advisor, first_part: float = 1.0, **fields: Any
    ) -> None:
        super().__init__(config, theta_steps=theta_steps, advisor=None, **fields)
        self._tutor = advisor
        self._part_at = LinearSchedule(first_part, 0.0, theta_steps)
        self._part = first_part

    @property
    def acts_alone(self) -> bool:
        """Return False: advice is in what the student acts by."""
        return False

    @property
    def num_tutor_steps(self) -> int:
        """Return 0: the student takes every step."""
        return 0

    def told(self, observations: Floats32, chosen: Ints) -> Floats:
        """Ask about some states, as far as the budget goes.

        Args:
            observations: ``(n, obs_dim)``.
            chosen: ``(k,)`` rows of them.

        Returns:
            ``(n, num_actions)`` distributions, NaN where the tutor was not asked or advice was missed.
        """
        asked = chosen[: self._remaining]
        told = np.full((len(observations), self._num_actions), np.nan)
        if asked.size:
            batch = self._tutor.ask(observations[asked])
            batch.count(self._counters, self._latency)
            told[asked] = batch.probabilities
        return told

    def gauges(self) -> dict[str, float]:
        """Return values at this point of the trial; what advice is worth is not measured."""
        return super().gauges() | dict.fromkeys(("advice/agreement", "advice/effect", "advice/effect_se"), math.nan)

    def get_state(self) -> dict[str, Any]:
        """Return what is known of the tutor's advice, too."""
        return super().get_state() | {"part": self._part, "beside": self._tutor.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``; an empty one changes nothing."""
        super().set_state(state)
        if state:
            self._part = state["part"]
            self._tutor.set_state(state["beside"])
