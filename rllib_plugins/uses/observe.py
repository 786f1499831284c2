"""Observing: the student sees its tutor's advice as part of its observation, and learns what to make of it.

Language models' recommendations beside the environment's observation, as soft hints (arXiv 2510.08779), with dropout:
to a student's flat observation belong |A| further features, q(a|s) − 1/|A(s)| on legal actions a, where q is the
tutor's distribution and A(s) are the legal actions. They are 0 where advice is withheld, in a share ``dropout`` of the
states at first and in all of them from θ on; so is what follows a step, whose value is that of a student that goes on
without. Two things differ from the source: the hint is the tutor's distribution, and evaluation never shows it, since
the student is to do without in the end.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rllib_plugins.advising.advisor import above_uniform, legal_mask
from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.array_types import Bools, Floats32
from rllib_plugins.uses.beside import ExplorerBeside
from rllib_plugins.uses.options import Observe


class ObservingExplorer(ExplorerBeside):
    """Show the student advice; the tutor's part is the share of states in which it does.

    Args:
        options: As configured.
        config: As ``Explorer``'s.
        **fields: As ``ExplorerBeside``'s.
    """

    def __init__(self, options: Observe, config: AdviceConfig, **fields: Any) -> None:
        super().__init__(config, first_part=1.0 - options.dropout, **fields)

    def show(self, observations: Floats32, legal: Bools | None, step: int) -> Floats32:
        """Return q(a|s) − 1/|A(s)| on legal actions, ``(n, num_actions)``; zeros where advice is withheld or missed."""
        self._part = self._part_at(step)
        shown = np.flatnonzero(self._tutor_rng.random(len(observations)) < self._part)
        told = self.told(observations, shown)
        mask = legal_mask(self._tutor.task, observations) if legal is None else legal
        return above_uniform(told, mask).astype(np.float32)

    def gauges(self) -> dict[str, float]:
        """Return values at this point of the trial; the probability is the share of states with advice."""
        return super().gauges() | {"advice/trust": math.nan, "advice/probability": self._part}
