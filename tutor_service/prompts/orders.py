"""Lay out one question with its labels in several orders. Knows prompts; must not know tokenizers or engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tutor_service.errors import UserError
from tutor_service.prompts.prompt import Prompt, PromptBuilder
from tutor_service.schema import AdviceRequest


class OrderedPrompts(PromptBuilder):
    """Build prompts that carry the same question with its labels rotated. See ``prompt.PromptBuilder``.

    Args:
        builder: Builds a prompt with its labels in a given order.
        num_orders: Orders of the labels; a question has no more than it has labels.
    """

    def __init__(self, builder: PromptBuilder, num_orders: int) -> None:
        self._builder = builder
        self._num_orders = num_orders

    def build_many(self, requests: Sequence[AdviceRequest]) -> list[Prompt | UserError]:
        """See ``PromptBuilder``."""
        orders = [_rotations(request, self._num_orders) for request in requests]
        built = iter(self._builder.build_many([request for each in orders for request in each]))
        return [_joined([next(built) for _ in each]) for each in orders]

    def show(self, prompt: Prompt) -> str:
        """See ``PromptBuilder``; of the first order alone."""
        return self._builder.show(prompt)

    def plain(self, text: str) -> Prompt:
        """See ``PromptBuilder``."""
        return self._builder.plain(text)


def _rotations(request: AdviceRequest, num_orders: int) -> list[AdviceRequest]:
    """Return a request as it is, then with its labels rotated to the left by one, by two, ...."""
    actions, synonyms = request.actions, request.synonyms
    return [
        replace(request, actions=actions[by:] + actions[:by], synonyms=synonyms[by:] + synonyms[:by])
        for by in range(min(num_orders, len(actions)))
    ]


def _joined(built: Sequence[Prompt | UserError]) -> Prompt | UserError:
    prompts = []
    for one in built:
        if isinstance(one, UserError):
            return one
        prompts.append(one)
    return replace(prompts[0], rotated=tuple(prompts[1:]))
