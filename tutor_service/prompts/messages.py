"""Build prompts for endpoints that take messages and keep their tokenizer to themselves."""

from __future__ import annotations

from tutor_service.prompts.labels import symbol_labels
from tutor_service.prompts.prompt import Decoding, Prompt, question
from tutor_service.schema import AdviceRequest


class MessagePrompts:
    """Prompts for endpoints that take messages and keep their tokenizer to themselves."""

    def __init__(self, decoding: Decoding) -> None:
        self._decoding = decoding

    def build(self, request: AdviceRequest) -> Prompt:
        """See ``PromptBuilder``. Token ids are the text's bytes: they identify the prompt in the store."""
        labels = symbol_labels(request.actions)
        text = f"{request.rules.strip()}\n\n{question(request, labels, self._decoding)}"
        return Prompt(tuple(text.encode()), (), labels.shown, text, labels.actions if labels.mapped else ())

    def show(self, prompt: Prompt) -> str:
        """See ``PromptBuilder``."""
        return prompt.text
