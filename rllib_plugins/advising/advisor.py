"""Where the distributions come from: the one seam between the exploration core and any tutor."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Source(IntEnum):
    """Where a row of advice came from."""

    MISSED = 0
    MODEL = 1
    STORE = 2
    SCRIPT = 3


@dataclass(slots=True)
class AdviceBatch:
    """Advice for a list of states.

    Attributes:
        probabilities: ``(n, num_actions)`` float64; rows sum to 1 with 0 on illegal actions; NaN where missed.
        source: ``(n,)`` int8 of ``Source``. A row from the process-local map counts as STORE.
        invalid: Illegal or unparsable answers that it took, summed over the rows.
        latency_ms: Milliseconds that the call took; 0 where no call was needed.
        tokens: Tokens that the model processed for it, summed over the rows.
    """

    probabilities: NDArray[np.float64]
    source: NDArray[np.int8]
    invalid: int
    latency_ms: float
    tokens: int = 0


class Advisor(Protocol):
    """A tutor as the exploration core sees it."""

    def known(self, observations: NDArray[np.float32]) -> NDArray[np.float64]:
        """Distributions that are at hand without asking, ``(n, num_actions)``; NaN rows where they are not."""

    def ask(self, observations: NDArray[np.float32]) -> AdviceBatch:
        """Advice for flat observations ``(n, obs_dim)``; asks the tutor once for all that are not known."""
