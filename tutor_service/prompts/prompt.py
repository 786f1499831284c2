"""Define a prompt and who builds one. Must not know tokenizers or engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tutor_service.errors import UserError
from tutor_service.schema import AdviceRequest

Decoding = Literal["scored", "reasoned", "text"]

BLOCK = 32
"""Tokens that the shared prefix is padded to a multiple of: vLLM's least block on CPU, twice its block on GPU."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Hold one question as an engine takes it.

    Attributes:
        token_ids: The whole prompt. UTF-8 bytes for an endpoint whose tokenizer is not known.
        label_token_ids: The token of each label, in the order of the request's actions; empty as above.
        labels: What the tutor is asked to answer for each action, in that order.
        text: The user's turn in words, for endpoints that take messages; else empty.
        words: Other names of the actions that an endpoint may answer by, in their order; empty: none.
        begun: Tokens that the answer is begun with, because all labels begin so.
        rotated: The same question with its labels rotated to the left by one, by two, ...; empty: one order is asked.
    """

    token_ids: tuple[int, ...]
    label_token_ids: tuple[int, ...]
    labels: tuple[str, ...]
    text: str = ""
    words: tuple[str, ...] = ()
    begun: tuple[int, ...] = ()
    rotated: tuple[Prompt, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Return the tokens of its longest order."""
        return max(len(prompt.token_ids) for prompt in (self, *self.rotated))


class PromptBuilder(Protocol):
    """Build the prompts of one tutor; a subclass writes all but ``build``."""

    def build(self, request: AdviceRequest) -> Prompt:
        """Return the prompt of a valid request.

        Raises:
            UserError: The tutor's tokenizer cannot tell that many labels apart.
        """
        (built,) = self.build_many([request])
        if isinstance(built, UserError):
            raise built
        return built

    def build_many(self, requests: Sequence[AdviceRequest]) -> list[Prompt | UserError]:
        """Return the prompts of valid requests, in order, and in place of each that ``build`` refuses its error."""

    def show(self, prompt: Prompt) -> str:
        """Return the prompt as text, control tokens included."""

    def plain(self, text: str) -> Prompt:
        """Return a prompt that is one turn of the user's and asks for text."""


def prefix_length(prompts: Sequence[Prompt]) -> int:
    """Return how many leading tokens all prompts share."""
    first, last = min(prompt.token_ids for prompt in prompts), max(prompt.token_ids for prompt in prompts)
    for index, (one, other) in enumerate(zip(first, last, strict=False)):
        if one != other:
            return index
    return min(len(first), len(last))
