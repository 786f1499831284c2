"""Open and end a thought around the tokens that a model wrote itself. Knows a tokenizer and no engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

CUE = "Answer:\n"
"""Follows every thought: one that was cut off leaves the model in the middle of a sentence."""

_BEGIN, _END = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class Thought:
    """Hold what a model thought.

    Attributes:
        token_ids: The model's own tokens, then the mark of a thought's end and the cue to answer.
        text: The thought in words.
    """

    token_ids: tuple[int, ...]
    text: str


class Thinking:
    """Know how one tokenizer marks thoughts.

    Args:
        tokenizer: A transformers tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._begin = self._encode(f"{_BEGIN}\n")
        self._tail = self._encode(f"\n{_END}\n\n{CUE}")
        self._special = frozenset(tokenizer.all_special_ids)
        marks = self._encode(_END)
        self._mark = marks[0] if len(marks) == 1 else None
        self.stop: dict[str, Any] = {"stop": [_END]} if self._mark is None else {"stop_token_ids": [self._mark]}

    @property
    def num_added(self) -> int:
        """Return how many tokens opening and ending add to a thought."""
        return len(self._begin) + len(self._tail)

    def opened(self, prompt: Sequence[int]) -> tuple[int, ...]:
        """Return a prompt with the thought opened, which some templates do themselves."""
        opens = self._tokenizer.decode(list(prompt[-8:])).rstrip().endswith(_BEGIN)
        return tuple(prompt) if opens else (*prompt, *self._begin)

    def ended(self, completion: Any) -> Thought:
        """Return a thought with its end marked and the cue to answer, on the tokens that the model wrote.

        Args:
            completion: vLLM's, with ``token_ids`` and ``text``; a stop string is in the tokens and not in the text.
        """
        ids = list(completion.token_ids)
        while ids and (ids[-1] == self._mark or ids[-1] in self._special):
            ids.pop()
        if self._mark is None:
            while ids and _END in self._tokenizer.decode(ids):
                ids.pop()
            while ids and len(self._tokenizer.decode(ids)) > len(completion.text):
                ids.pop()
        return Thought((*ids, *self._tail), completion.text.strip())

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))
