"""The coin's explorer with a stand-in: its answers are followed as the tutor's are, also once the budget is spent."""

from __future__ import annotations

from typing import Any

import numpy as np

from rllib_plugins.advising.advisor import AdviceBatch, Advisor
from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.advising.explorer import Explorer
from rllib_plugins.array_types import Bools, Floats, Floats32
from rllib_plugins.metrics import Source
from rllib_plugins.stand_ins.stand_in import StandIn


class StandInExplorer(Explorer):
    """Ask the stand-in, which asks the tutor within the budget.

    What the model says is not known before the coin: μ is conditional on the coin, as where the tutor is asked.

    Args:
        config: As ``Explorer``'s.
        advisor: The tutor.
        seed: As ``Explorer``'s.
        **fields: Likewise.
    """

    def __init__(self, config: AdviceConfig, *, advisor: Advisor, seed: int, **fields: Any) -> None:
        super().__init__(config.model_copy(update={"advice_budget": None}), advisor=advisor, seed=seed, **fields)
        stand_in = StandIn.of(config, advisor, seed)
        assert stand_in is not None
        self._stand_in = stand_in
        self._judges = True

    @property
    def num_consultations(self) -> int:
        """Count the env steps so far on which advice was used, the stand-in's among it."""
        return self._counters.consultations + self._counters.stand_in

    def gauges(self) -> dict[str, float]:
        """Return those of the stand-in, too."""
        return super().gauges() | self._stand_in.gauges()

    def get_state(self) -> dict[str, Any]:
        """Return the stand-in's, too."""
        return super().get_state() | {"stand_in": self._stand_in.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``; an empty one changes nothing."""
        super().set_state(state)
        if state:
            self._stand_in.set_state(state["stand_in"])

    def _judge(self, policy: Floats, legal: Bools | None, q_values: Floats | None, observations: Floats32) -> None:
        """Close the gate, too, where the tutor would have to be asked beyond its budget."""
        super()._judge(policy, legal, q_values, observations)
        remaining, visits = self._stand_in.remaining, self._visits
        if remaining is not None and remaining < len(visits):
            is_free = self._stand_in.answers(observations)
            visits["open"] &= is_free | (np.cumsum(visits["open"] & ~is_free) <= remaining)

    def _consult(self, observations: Floats32) -> AdviceBatch:
        """Ask the stand-in."""
        return self._stand_in.ask(observations)

    def _count(self, num_known: int, num_reused: int) -> None:
        """Count env steps whose advice was kept."""
        self._counters.add(Source.KEPT, num_known + num_reused)
