"""Say which token stands for which action. Knows labels and an encoder; must not know prompts, engines or tasks.

A tutor answers with one token, so one token has to tell each label from the others. A task's own words are kept
wherever that is so: as single tokens, by a synonym that the task offers, by the first token of each, or by the first
one after what they all begin with. Only where one token cannot tell them apart do symbols (A, B, C, …) stand in.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tutor_service.errors import UserError

SYMBOLS = string.ascii_uppercase + string.ascii_lowercase + string.digits
"""Stand-ins in the order in which they are handed out."""

MAX_ACTIONS = len(SYMBOLS)

Encode = Callable[[str], Sequence[int]]
"""Text to token ids, without special tokens."""


@dataclass(frozen=True, slots=True)
class LabelMap:
    """Say how the actions of one request are shown to the tutor and read back.

    Attributes:
        actions: The request's labels, in order.
        shown: What the tutor is asked to answer for each of them.
        token_ids: The one token that tells each shown label from the others; distinct. Empty where the tokenizer is not
            at hand.
        begun: Tokens that all shown labels begin with: the answer is begun with them for the tutor.
    """

    actions: tuple[str, ...]
    shown: tuple[str, ...]
    token_ids: tuple[int, ...]
    begun: tuple[int, ...] = ()

    @property
    def mapped(self) -> bool:
        """Return whether other words or symbols stand in for some of the task's own words."""
        return self.shown != self.actions


def single_tokens(labels: Sequence[str], encode: Encode) -> tuple[int, ...] | None:
    """Return the token of each label, or None unless all are single, distinct tokens."""
    encoded = [encode(label) for label in labels]
    return _distinct([ids[0] for ids in encoded]) if all(len(ids) == 1 for ids in encoded) else None


def map_labels(actions: tuple[str, ...], encode: Encode, synonyms: Sequence[Sequence[str]] = ()) -> LabelMap:
    """Pick the task's own words where one token tells them apart, else symbols.

    Args:
        actions: Distinct labels, at most ``MAX_ACTIONS``.
        encode: See ``Encode``.
        synonyms: Other words for each action, best first; empty: there are none.

    Raises:
        UserError: The tokenizer has no single token for enough symbols.
    """
    for shown in (actions, _as_single_tokens(actions, encode, synonyms)):
        ids = single_tokens(shown, encode)
        if ids is not None:
            return LabelMap(actions, shown, ids)
    return _told_apart(actions, encode) or _symbols(actions, encode)


def endpoint_labels(actions: tuple[str, ...]) -> LabelMap:
    """Pick what an endpoint is asked for, whose tokenizer is unknown: words that begin differently, else symbols."""
    if len(actions) == len({_first(action) for action in actions}):
        return LabelMap(actions, actions, ())
    return LabelMap(actions, tuple(SYMBOLS[: len(actions)]), ())


def other_names(labels: LabelMap) -> tuple[str, ...]:
    """Return what else an endpoint may name the actions by: words for symbols, symbols for words.

    Empty where that would be ambiguous.
    """
    if labels.mapped:
        return labels.actions
    symbols = SYMBOLS[: len(labels.shown)]
    taken = {_first(label) for label in labels.shown}
    return () if taken & {_first(symbol) for symbol in symbols} else tuple(symbols)


def _first(label: str) -> str:
    return label[0].casefold()


def _as_single_tokens(actions: tuple[str, ...], encode: Encode, synonyms: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return the actions, with the first synonym that is a single token in place of each that is not."""
    shown = list(actions)
    for place, others in enumerate(synonyms):
        if len(encode(actions[place])) != 1:
            taken = {*shown[:place], *actions}
            shown[place] = next(
                (word for word in others if word not in taken and len(encode(word)) == 1), actions[place]
            )
    return tuple(shown)


def _told_apart(actions: tuple[str, ...], encode: Encode) -> LabelMap | None:
    """Tell words by their first token, after those that all of them begin with; None where one token does not do."""
    encoded = [tuple(int(token) for token in encode(action)) for action in actions]
    columns = list(zip(*encoded, strict=False))  # as long as the shortest one
    common = next((place for place, column in enumerate(columns) if len(set(column)) > 1), len(columns))
    ids = _distinct(columns[common]) if common < len(columns) else None
    return None if ids is None else LabelMap(actions, actions, ids, encoded[0][:common])


def _symbols(actions: tuple[str, ...], encode: Encode) -> LabelMap:
    usable = [symbol for symbol in SYMBOLS if single_tokens((symbol,), encode)]
    shown = tuple(usable[: len(actions)])
    ids = single_tokens(shown, encode)
    if ids is None or len(shown) < len(actions):
        raise UserError(
            f"the tutor's tokenizer cannot tell these {len(actions)} actions apart by one token, and has single tokens "
            f"for {len(usable)} of the symbols that would stand in for them. Use words that begin differently, fewer "
            "actions, or a tutor with another tokenizer."
        )
    return LabelMap(actions, shown, ids)


def _distinct(ids: Sequence[int]) -> tuple[int, ...] | None:
    """Return token ids that tell labels apart; None where two are the same or one is 0.

    vLLM fills the rows of shorter label lists in a batch with token 0.
    """
    return tuple(int(token) for token in ids) if 0 not in ids and len(set(ids)) == len(ids) else None
