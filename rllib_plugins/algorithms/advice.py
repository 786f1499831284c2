"""Weigh the advised steps of an actor-critic's batch: importance weights, and what is imitated until when."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.config import AdviceConfig, ImitationWeights
from rllib_plugins.compiled import compiled


class AdviceWeights(NamedTuple):
    """Weigh the advice of a rollout; every field is a ``np.float32``.

    Attributes:
        cap: c in ρ = min(c, π_old/μ); 0: advantages are not weighted.
        better: Weight of imitation where the advised action turned out better than expected.
        worse: Weight of imitation elsewhere.
    """

    cap: np.float32
    better: np.float32
    worse: np.float32

    @classmethod
    def of(cls, advice: AdviceConfig, imitation: ImitationWeights) -> AdviceWeights:
        """Combine what the config says with the weights of imitation at this point of training."""
        cap = advice.weight_cap if advice.weights == "behaviour" else 0.0
        return cls(np.float32(cap), np.float32(imitation.better), np.float32(imitation.worse))


@compiled
def weigh_advice(
    advantages: NDArray[np.float32],
    estimated: NDArray[np.float32],
    probabilities: NDArray[np.float32],
    consulted: NDArray[np.bool_],
    advice: NDArray[np.float32],
    weights: AdviceWeights,
    imitation: NDArray[np.float32],
) -> bool:
    """Weigh the advantages of tutored steps, in place, and the advice that is to be imitated.

    An advantage is multiplied by ρ = min(c, π_old/μ), the decoupled objective's weight (Hilton et al. 2021,
    arXiv 2110.00641). Equal weights of imitation are those of LLM4Teach (arXiv 2311.13373); ``worse = 0`` is the
    Q-filter of Nair et al. 2018 (arXiv 1709.10089) with the advantage in place of Q.

    Args:
        advantages: ``(T, N)``, standardised or not.
        estimated: ``(T, N)``, not standardised.
        probabilities: ``(2, T, N)``: μ, above 0, and π_old of the executed actions.
        consulted: ``(T, N)``.
        advice: ``(T, N, A)``.
        weights: c and the weights of imitation.
        imitation: Output, ``(T, N, A)``: the weighted advice; zeros where there is nothing to imitate.

    Returns:
        Whether there is anything to imitate.
    """
    any_consulted = False
    for t in range(advantages.shape[0]):
        for env in range(advantages.shape[1]):
            behaviour, policy = probabilities[0, t, env], probabilities[1, t, env]
            if weights.cap > 0:
                capped = policy >= weights.cap * behaviour
                advantages[t, env] *= weights.cap if capped else policy / behaviour
            weight = np.float32(0)
            if consulted[t, env]:
                any_consulted = True
                weight = weights.better if estimated[t, env] > 0 else weights.worse
            for action in range(advice.shape[2]):
                imitation[t, env, action] = advice[t, env, action] * weight
    return any_consulted and bool(weights.better > 0)


def imitated_until(advice: AdviceConfig) -> float:
    """Return the probability of the advised action from which on a step is not imitated; above 1: always imitate."""
    return advice.imitation_until if advice.imitation == "filtered" else 2.0
