"""Average a tutor's answers over the orders in which its prompts list the labels. Knows no model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from tutor_service.engines.base import Engine, EngineFacts, Written
from tutor_service.prompts.prompt import Prompt
from tutor_service.schema import Advice, AdviceError


class OrderAveraging(Engine):
    """Evaluate each prompt with its rotated ones, and answer with their mean.

    Args:
        engine: Evaluates one order of one prompt.
        num_orders: Orders per prompt, as its builder was told: part of the identity.
    """

    def __init__(self, engine: Engine, num_orders: int) -> None:
        self._engine = engine
        self._num_orders = num_orders

    async def start(self) -> EngineFacts:
        """See ``Engine``."""
        facts = await self._engine.start()
        fields = {**json.loads(facts.identity), "label_orders": self._num_orders}
        return replace(facts, identity=json.dumps(fields, sort_keys=True))

    async def evaluate(self, prompts: Sequence[Prompt]) -> list[Advice | AdviceError]:
        """See ``Engine``."""
        answers = iter(await self._engine.evaluate([one for prompt in prompts for one in (prompt, *prompt.rotated)]))
        return [averaged_over_orders(list(islice(answers, 1 + len(prompt.rotated)))) for prompt in prompts]

    async def write(self, prompt: Prompt, max_tokens: int) -> Written | AdviceError:
        """See ``Engine``."""
        return await self._engine.write(prompt, max_tokens)

    async def check_health(self) -> None:
        """See ``Engine``."""
        await self._engine.check_health()

    def spent(self) -> str:
        """See ``Engine``."""
        return self._engine.spent()

    def shutdown(self) -> None:
        """See ``Engine``."""
        self._engine.shutdown()


def averaged_over_orders(answers: Sequence[Advice | AdviceError]) -> Advice | AdviceError:
    """Return the mean of the answers to one question, weighted by their legal mass.

    Args:
        answers: The k-th one to the question with its labels rotated to the left by k.

    Returns:
        With the labels in the first answer's order; the first error where there is one.
    """
    tokens, invalid = sum(answer.tokens for answer in answers), sum(answer.invalid for answer in answers)
    given: list[Advice] = []
    for answer in answers:
        if isinstance(answer, AdviceError):
            return replace(answer, tokens=tokens, invalid=invalid)
        given.append(answer)
    if len(given) == 1:
        return given[0]
    masses = np.array([answer.legal_mass for answer in given])
    rows = np.stack([np.roll(answer.probabilities, by) for by, answer in enumerate(given)])
    mean = np.average(rows, axis=0, weights=masses)
    return replace(
        given[0],
        probabilities=tuple(float(probability) for probability in mean),
        legal_mass=float(masses.mean()),
        tokens=tokens,
        invalid=invalid,
        thought="\n\n".join(filter(None, (answer.thought for answer in given))),
    )
