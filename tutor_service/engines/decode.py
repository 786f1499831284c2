"""Read a policy over the legal actions from a model's answers. Knows neither engines nor prompts."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from tutor_service.schema import Advice, AdviceError

_NOTHING = -700.0
"""Log-probabilities at or below this are how endpoints write "not shown": their exponential is no normal number."""

_TAG = re.compile(r"<action>(.*?)(?:</action>|$)", re.IGNORECASE | re.DOTALL)


class Distribution(NamedTuple):
    """Hold probabilities over the legal labels.

    Attributes:
        probabilities: They sum to 1.
        mass: Probability mass in (0, 1] that the model put on the labels before renormalising.
    """

    probabilities: tuple[float, ...]
    mass: float


def renormalise(logprobs: Sequence[float]) -> Distribution | None:
    """Read a distribution over the legal labels from their log-probabilities.

    Args:
        logprobs: Log-probability of each label under the model's whole vocabulary; ``-inf`` or NaN for unknown.

    Returns:
        None where no label has any probability: nothing can be read.
    """
    known = [-math.inf if math.isnan(value) else value for value in logprobs]
    top = max(known)
    if not top > _NOTHING:
        return None
    weights = [math.exp(value - top) for value in known]
    total = math.fsum(weights)
    return Distribution(tuple(weight / total for weight in weights), min(1.0, total * math.exp(top)))


def averaged(logprobs: Sequence[Sequence[float]], tokens: int, thought: str = "") -> Advice | AdviceError:
    """Turn the labels' log-probabilities into advice, or into a miss where they say nothing.

    Probabilities are averaged over thoughts: each is one sample of what the model might think.

    Args:
        logprobs: ``(num_thoughts, num_labels)``, of one row without a thought; see ``renormalise``.
        tokens: Tokens that the model processed for all of them.
        thought: The thoughts in words.
    """
    read = [found for found in map(renormalise, logprobs) if found is not None]
    mass = math.fsum(found.mass for found in read) / len(logprobs)
    if mass <= 0.0:
        return AdviceError("answer: the model put no probability on any legal label", invalid=1, tokens=tokens)
    if len(logprobs) == 1:
        return Advice(read[0].probabilities, mass, tokens=tokens, thought=thought)
    weights = [found.mass / (mass * len(logprobs)) for found in read]
    columns = zip(*(found.probabilities for found in read), strict=True)
    return Advice(tuple(_dot(weights, column) for column in columns), mass, tokens=tokens, thought=thought)


def _dot(weights: Sequence[float], values: Sequence[float]) -> float:
    return math.fsum(weight * value for weight, value in zip(weights, values, strict=True))


def one_hot(index: int, num_actions: int) -> tuple[float, ...]:
    """Put all probability on one action."""
    return tuple(1.0 if position == index else 0.0 for position in range(num_actions))


def parse_action(answer: str, labels: Sequence[str]) -> int | None:
    """Return the index of the label that an answer names in ``<action>`` tags; None where it names no legal one.

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


async def answer_in_text(
    generate: Callable[[int], Awaitable[tuple[str, int]]], labels: Sequence[str], attempts: int, prompt_tokens: int
) -> Advice | AdviceError:
    """Return the action that the first parsable answer names, as a distribution with all its probability on it.

    Args:
        generate: Attempt number to the answer's text and its number of tokens. Attempt 0 is the likeliest answer, later
            ones are seeded samples, so that the whole stays a function of the prompt.
        labels: What may be answered.
        attempts: Most answers asked for; after that it is a miss.
        prompt_tokens: Tokens of the prompt, for the count.
    """
    tokens = prompt_tokens
    for attempt in range(attempts):
        text, generated = await generate(attempt)
        tokens += generated
        index = parse_action(text, labels)
        if index is not None:
            return Advice(one_hot(index, len(labels)), 1.0, invalid=attempt, tokens=tokens)
    return AdviceError(f"answer: {attempts} answers named no legal action", invalid=attempts, tokens=tokens)
