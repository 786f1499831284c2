"""Build prompts by a tutor's own tokenizer and chat template.

The words of a request are tokenised as plain text, so a state that spells a control token of the chat format cannot end
the user's turn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain, islice
from typing import Any

from tutor_service.errors import UserError
from tutor_service.prompts.chat_templates import split_template
from tutor_service.prompts.labels import LabelMap, map_labels
from tutor_service.prompts.layout import opening, question
from tutor_service.prompts.prompt import BLOCK, Decoding, Prompt, PromptBuilder
from tutor_service.schema import AdviceRequest

_CACHED = 512


class ChatPrompts(PromptBuilder):
    """Build prompts by a tutor's own tokenizer and chat template.

    Args:
        tokenizer: A transformers tokenizer.
        decoding: How the tutor is asked to answer.
        template: Jinja source that takes the place of the tokenizer's own chat template.
        arguments: More arguments of the template.

    Raises:
        UserError: There is no chat template, or it does not show the user's words.
    """

    def __init__(
        self,
        tokenizer: Any,
        decoding: Decoding,
        template: str | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._decoding = decoding
        self._control = _kept_whole(tokenizer)
        before, closing = split_template(tokenizer, template, arguments or {})
        self._opening = self._encode(before)
        self._closing = self._encode(closing)
        self._padding = self._encode("\n")[-1]
        self._head = lru_cache(maxsize=_CACHED)(self._make_head)
        self._map = lru_cache(maxsize=_CACHED)(self._make_map)

    def build_many(self, requests: Sequence[AdviceRequest]) -> list[Prompt | UserError]:
        """See ``PromptBuilder``. Questions are tokenised together, which takes half the time."""
        labels = [self._labels_of(request) for request in requests]
        bodies = iter(
            self._encode_plain(
                [
                    question(request, known, self._decoding)
                    for request, known in zip(requests, labels, strict=True)
                    if isinstance(known, LabelMap)
                ]
            )
        )
        built: list[Prompt | UserError] = []
        for request, known in zip(requests, labels, strict=True):
            if isinstance(known, UserError):
                built.append(known)
                continue
            ids = (*self._head(request.rules), *next(bodies), *self._closing)
            built.append(Prompt(ids, known.token_ids, known.shown, begun=known.begun))
        return built

    def plain(self, text: str) -> Prompt:
        """See ``PromptBuilder``."""
        return Prompt((*self._opening, *self._encode_one(text), *self._closing), (), ())

    def show(self, prompt: Prompt) -> str:
        """See ``PromptBuilder``."""
        return str(self._tokenizer.decode([*prompt.token_ids, *prompt.begun], skip_special_tokens=False))

    def _labels_of(self, request: AdviceRequest) -> LabelMap | UserError:
        try:
            return self._map(request.actions, request.synonyms)
        except UserError as error:
            return error

    def _make_map(self, actions: tuple[str, ...], synonyms: tuple[tuple[str, ...], ...]) -> LabelMap:
        if self._decoding == "text":  # whole words are read
            return LabelMap(actions, actions, ())
        return map_labels(actions, self._encode_one, synonyms)

    def _make_head(self, rules: str) -> tuple[int, ...]:
        """Return the template's opening and the task's, padded to full blocks with line feeds."""
        ids = (*self._opening, *self._encode_one(opening(rules)))
        return ids + (self._padding,) * (-len(ids) % BLOCK)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def _encode_one(self, text: str) -> tuple[int, ...]:
        (ids,) = self._encode_plain([text])
        return ids

    def _encode_plain(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return tokens of words, none of them a control token: what spells one is cut after its first character."""
        pieces = [self._pieces(text) for text in texts]
        together = [piece for each in pieces for piece in each]
        if not together:  # of which tokenizers make an error
            return []
        ids = iter(self._tokenizer(together, add_special_tokens=False, split_special_tokens=True)["input_ids"])
        return [tuple(chain.from_iterable(islice(ids, len(each)))) for each in pieces]

    def _pieces(self, text: str) -> list[str]:
        cuts = [match.start() + 1 for match in self._control.finditer(text)] if self._control else []
        return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def _kept_whole(tokenizer: Any) -> re.Pattern[str] | None:
    """Find where an added token begins that its tokenizer does not call special, and so would not split.

    DeepSeek's distilled models have their turns and thoughts marked by such.
    """
    added = (token for token in tokenizer.added_tokens_decoder.values() if not token.special)
    texts = [token.content for token in added if len(token.content.strip()) > 1]
    return re.compile(f"(?={'|'.join(map(re.escape, texts))})") if texts else None
