"""Which token stands for which action. Knows labels and an encoder; must not know prompts, engines or tasks.

A tutor answers with one token, so every label must be a single token of its tokenizer, and no two the same. Where a
task's words are not, symbols (A, B, C, …) stand in for them and the prompt says which is which.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tutor_service.errors import UserError

SYMBOLS = string.ascii_uppercase + string.ascii_lowercase + string.digits
"""Stand-ins in the order in which they are handed out."""

MAX_ACTIONS = len(SYMBOLS)


@dataclass(frozen=True, slots=True)
class LabelMap:
    """How the actions of one request are shown to the tutor and read back.

    Attributes:
        actions: The request's labels, in order.
        shown: What the tutor is asked to answer for each of them.
        token_ids: The one token of each shown label; distinct. Empty where the tokenizer is not at hand.
    """

    actions: tuple[str, ...]
    shown: tuple[str, ...]
    token_ids: tuple[int, ...]

    @property
    def mapped(self) -> bool:
        """Whether symbols stand in for the task's own words."""
        return self.shown != self.actions


def single_tokens(labels: Sequence[str], encode: Callable[[str], Sequence[int]]) -> tuple[int, ...] | None:
    """The token of each label, or None unless all are single, distinct tokens.

    Token 0 does not qualify: vLLM fills the rows of shorter label lists in a batch with it.
    """
    ids: list[int] = []
    for label in labels:
        encoded = encode(label)
        if len(encoded) != 1 or encoded[0] == 0 or encoded[0] in ids:
            return None
        ids.append(int(encoded[0]))
    return tuple(ids)


def map_labels(actions: tuple[str, ...], encode: Callable[[str], Sequence[int]]) -> LabelMap:
    """Picks the task's own words where they are single tokens, else symbols.

    Args:
        actions: Distinct labels, at most ``MAX_ACTIONS``.
        encode: Text to token ids, without special tokens.

    Raises:
        UserError: The tokenizer has no single token for enough symbols.
    """
    ids = single_tokens(actions, encode)
    if ids is not None:
        return LabelMap(actions, actions, ids)
    usable = [symbol for symbol in SYMBOLS if single_tokens((symbol,), encode)]
    shown = tuple(usable[: len(actions)])
    ids = single_tokens(shown, encode)
    if ids is None or len(shown) < len(actions):
        raise UserError(
            f"the tutor's tokenizer has single tokens for {len(usable)} of the symbols that stand in for actions, "
            f"but the request has {len(actions)} actions. Use a tutor with another tokenizer or fewer actions."
        )
    return LabelMap(actions, shown, ids)


def symbol_labels(actions: tuple[str, ...]) -> LabelMap:
    """Symbols for all actions that are longer than one character, for endpoints whose tokenizer is unknown."""
    if all(len(action) == 1 for action in actions):
        return LabelMap(actions, actions, ())
    return LabelMap(actions, tuple(SYMBOLS[: len(actions)]), ())
