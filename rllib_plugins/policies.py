"""Turn a network's outputs into distributions over legal actions: softmax, greedy and ε-greedy.

Masks are ``(n, num_actions)`` bool, or None where every action is always legal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating[Any]]
Masks = NDArray[np.bool_] | None


def masked_softmax(logits: Scores, legal: Masks) -> NDArray[np.float64]:
    """Return the probabilities ``(n, num_actions)`` of logits, 0 on illegal actions."""
    z = logits.astype(np.float64)
    if legal is not None:
        z[~legal] = -np.inf
    z -= z.max(axis=1, keepdims=True)
    np.exp(z, out=z)
    z /= z.sum(axis=1, keepdims=True)
    return z


def best_actions(scores: Scores, legal: Masks) -> NDArray[np.int64]:
    """Return the legal action of highest score per row, the first of equals, ``(n,)``."""
    return np.asarray((scores if legal is None else np.where(legal, scores, -np.inf)).argmax(axis=1))


def greedy(scores: Scores, legal: Masks) -> NDArray[np.float64]:
    """Put all probability on the legal action of highest score, ``(n, num_actions)``."""
    probabilities = np.zeros(scores.shape)
    probabilities[np.arange(len(scores)), best_actions(scores, legal)] = 1.0
    return probabilities


def epsilon_greedy(q_values: Scores, legal: Masks, epsilon: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Put 1 − ε on the best legal action and spread ε over the legal ones, ``(n, num_actions)``.

    ``epsilon`` may be ``(n, 1)``.
    """
    probabilities = greedy(q_values, legal) * (1.0 - epsilon)
    if legal is None:
        probabilities += epsilon / q_values.shape[1]
    else:
        probabilities += epsilon * legal / legal.sum(axis=1, keepdims=True)
    return probabilities


def best_values(q_values: NDArray[np.float32], legal: Masks) -> NDArray[np.float32]:
    """Return max Q over legal actions, ``(n,)``; where no action is legal (a finished game) over all of them."""
    if legal is None:
        return np.asarray(q_values.max(axis=1))
    allowed = legal | ~legal.any(axis=1, keepdims=True)
    return np.asarray(np.where(allowed, q_values, np.float32(-np.inf)).max(axis=1))
