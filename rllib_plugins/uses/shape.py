"""Shaping: the tutor's opinion of an action is added to its reward, with a weight that falls to nothing.

Knox & Stone 2012 ("Reinforcement learning from simultaneous human and MDP reward", AAMAS), their reward shaping:
r'(s, a) = r(s, a) + λ(τ)·H(s, a), with λ annealed. Here H(s, a) = q(a|s) − 1/|A(s)|, where q is the tutor's
distribution and A(s) are the legal actions, so that a tutor that prefers nothing adds nothing; λ falls linearly from
``weight`` to 0 at θ. It is not potential based: while λ is above 0 another policy may be the best one, such as to go
on following advice in place of ending an episode. What was once said about a state counts at each later visit, and
DQN adds the present λ's share to the transitions that it replays, so that nothing of it is left after θ. Returns that
a trial reports are the task's own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.advisor import above_uniform, legal_mask
from rllib_plugins.uses.base import UseContext
from rllib_plugins.uses.consulting import FadingUse
from rllib_plugins.uses.options import Shape


class Shaping(FadingUse):
    """The working object of ``Shape``.

    Args:
        options: As configured.
        context: What it works with.
    """

    def __init__(self, options: Shape, context: UseContext) -> None:
        super().__init__(context)
        self._options = options

    def rewards(self, observations: NDArray[np.float32], actions: NDArray[np.int64], step: int) -> NDArray[np.float32]:
        """Return λ·H(s, a), ``(n,)``; 0 in states that the tutor was never asked about."""
        weight = self._options.weight * self._share(step)
        if not weight:
            return np.zeros(len(actions), np.float32)
        assert self._context.advisor is not None
        told = self._consultations.known(observations)
        excess = above_uniform(told, legal_mask(self._context.advisor.task, observations))
        return np.where(told.any(axis=1), weight * excess[np.arange(len(actions)), actions], 0.0).astype(np.float32)
