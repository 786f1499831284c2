"""Build prompts for endpoints that take messages and keep their tokenizer to themselves."""

from __future__ import annotations

from collections.abc import Sequence

from tutor_service.errors import UserError
from tutor_service.prompts.labels import LabelMap, endpoint_labels, other_names
from tutor_service.prompts.layout import opening, question
from tutor_service.prompts.prompt import Decoding, Prompt
from tutor_service.schema import AdviceRequest


class MessagePrompts:
    """Build prompts for endpoints that take messages and keep their tokenizer to themselves."""

    def __init__(self, decoding: Decoding) -> None:
        self._decoding = decoding

    def build(self, request: AdviceRequest) -> Prompt:
        """See ``PromptBuilder``. Token ids are the text's bytes: they identify the prompt in the store."""
        actions = request.actions
        labels = LabelMap(actions, actions, ()) if self._decoding == "text" else endpoint_labels(actions)
        text = opening(request.rules) + question(request, labels, self._decoding)
        return Prompt(tuple(text.encode()), (), labels.shown, text, other_names(labels))

    def build_many(self, requests: Sequence[AdviceRequest]) -> list[Prompt | UserError]:
        """See ``PromptBuilder``."""
        return [self.build(request) for request in requests]

    def plain(self, text: str) -> Prompt:
        """See ``PromptBuilder``."""
        return Prompt(tuple(text.encode()), (), (), text)

    def show(self, prompt: Prompt) -> str:
        """See ``PromptBuilder``."""
        return prompt.text
