"""How a model's answer becomes a policy over the legal actions. Pure arithmetic; knows neither engines nor prompts."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

_TAG = re.compile(r"<action>(.*?)(?:</action>|$)", re.IGNORECASE | re.DOTALL)


def renormalise(logprobs: Sequence[float]) -> tuple[tuple[float, ...], float]:
    """The distribution over the legal labels, and the mass that the model put on them.

    Args:
        logprobs: Log-probability of each label under the model's whole vocabulary; ``-inf`` for unknown.

    Returns:
        Probabilities that sum to 1 (uniform where every label has probability 0), and their mass in [0, 1].
    """
    finite = [value if not math.isnan(value) else -math.inf for value in logprobs]
    top = max(finite)
    if top == -math.inf:
        return (1.0 / len(finite),) * len(finite), 0.0
    weights = [math.exp(value - top) for value in finite]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights), min(1.0, total * math.exp(top))


def shape(
    probabilities: Sequence[float], temperature: float = 1.0, prior: Sequence[float] | None = None
) -> tuple[float, ...]:
    """Calibrates and tempers a distribution: p'ᵢ ∝ (pᵢ / priorᵢ)^(1/T).

    Dividing by the prior that the model shows for an empty state is the contextual calibration of Zhao et al. 2021
    (arXiv 2102.09690) with a diagonal matrix.

    Args:
        probabilities: ``(num_actions,)``, summing to 1.
        temperature: T > 0; below 1 sharpens, above 1 flattens.
        prior: ``(num_actions,)`` for an empty state; None: no calibration.
    """
    if temperature == 1.0 and prior is None:
        return tuple(probabilities)
    tiny = 1e-12
    scores = [math.log(max(value, tiny)) for value in probabilities]
    if prior is not None:
        scores = [score - math.log(max(value, tiny)) for score, value in zip(scores, prior, strict=True)]
    shaped, _ = renormalise([score / temperature for score in scores])
    return shaped


def one_hot(index: int | None, num_actions: int) -> tuple[float, ...]:
    """All probability on one action; uniform for None."""
    if index is None:
        return (1.0 / num_actions,) * num_actions
    return tuple(1.0 if position == index else 0.0 for position in range(num_actions))


def parse_action(answer: str, labels: Sequence[str]) -> int | None:
    """Index of the label that an answer names inside ``<action>`` tags, or None where it names no legal one.

    The last tag counts, since models repeat the question before they answer. Case and surrounding white space,
    quotes and full stops are forgiven unless that would be ambiguous.
    """
    tags = _TAG.findall(answer)
    if not tags:
        return None
    named = tags[-1].strip().strip("\"'`.").strip()
    if named in labels:
        return list(labels).index(named)
    folded = [label.casefold() for label in labels]
    if folded.count(named.casefold()) == 1:
        return folded.index(named.casefold())
    return None
