"""Kickstarting: a cross-entropy towards the tutor in the student's own loss, with a weight that falls to nothing.

Schmitt et al. 2018 (arXiv 1803.03835): ℓ = ℓ_RL + λ(τ)·H(π_T(·|s), π(·|s)) in the states that the student visits,
without a filter by the critic. Two things differ from the source: λ falls linearly to 0 at θ, where there it is chosen
by population based training; and states are asked about with probability P(τ), within the advice budget. What was once
said about a state counts at each later visit. DQN has no policy: it imitates by softmax(Q/T), with T·H in units of Q,
in the states that it replays; T is ``imitation_temperature``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.rollout.arrays import NO_ROWS
from rllib_plugins.uses.base import UseContext
from rllib_plugins.uses.consulting import FadingUse
from rllib_plugins.uses.options import Kickstart


class Kickstarting(FadingUse):
    """The working object of ``Kickstart``.

    Args:
        options: As configured.
        context: What it works with.
    """

    def __init__(self, options: Kickstart, context: UseContext) -> None:
        super().__init__(context)
        self._options = options

    def targets(self, observations: NDArray[np.float32], step: int) -> NDArray[np.float32]:
        """Return the tutor's distributions in some states times λ, ``(n, A)``; zeros where it was never asked."""
        weight = self._options.weight * self._share(step)
        return (weight * self._consultations.known(observations)).astype(np.float32) if weight else NO_ROWS
