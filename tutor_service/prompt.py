"""Turns an advice request into the tokens that a tutor reads. Knows templates and labels, not engines or transport.

A prompt is laid out for the prefix cache: everything that all requests of a task share comes first and is padded to a
full block, and only the state, the legal actions and the cue to answer follow. The words of a request are tokenised as
plain text, so a state that spells a control token of the chat format cannot end the user's turn.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from tutor_service.config import CATALOG_DIR
from tutor_service.errors import UserError
from tutor_service.labels import LabelMap, map_labels, symbol_labels
from tutor_service.schema import AdviceRequest

Decoding = Literal["scored", "reasoned", "text"]

BLOCK = 32
"""Tokens that the shared prefix is padded to a multiple of: vLLM's least block on CPU, twice its block on GPU."""

EMPTY_STATE = "(no observation)"
"""The state that shows a tutor's prior over the labels."""

_MARK = "3f9c2b7e-the-question-goes-here"
_TODAY = "26 Jul 2024"
_CACHED = 512


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question as an engine takes it.

    Attributes:
        token_ids: The whole prompt. UTF-8 bytes for an endpoint whose tokenizer is not at hand.
        label_token_ids: The token of each label, in the order of the request's actions; empty as above.
        labels: What the tutor is asked to answer for each action, in that order.
        text: The user's turn in words, for endpoints that take messages; else empty.
    """

    token_ids: tuple[int, ...]
    label_token_ids: tuple[int, ...]
    labels: tuple[str, ...]
    text: str = ""


class PromptBuilder(Protocol):
    """Builds the prompts of one tutor."""

    def build(self, request: AdviceRequest) -> Prompt:
        """The prompt of a valid request.

        Raises:
            UserError: The tutor's tokenizer cannot tell that many labels apart.
        """

    def show(self, prompt: Prompt) -> str:
        """The prompt as text, control tokens included."""


def question(request: AdviceRequest, labels: LabelMap, decoding: Decoding) -> str:
    """What follows the rules: the state, the legal actions and how to answer."""
    shown = ", ".join(labels.shown)
    lines = [request.state.strip(), ""]
    if labels.mapped:
        pairs = zip(labels.shown, labels.actions, strict=True)
        lines.append("Actions: " + "; ".join(f"{symbol} = {action}" for symbol, action in pairs) + ".")
    if decoding == "text":
        lines.append(f"Choose one of: {shown}. Give it in tags: <action>your choice</action>")
    elif decoding == "reasoned":
        lines.append(f"Think it through, then answer with exactly one of: {shown}. Nothing else.")
    else:
        lines.append(f"Answer with exactly one of: {shown}.")
    return "\n".join(lines)


class ChatPrompts:
    """Prompts by a tutor's own tokenizer and chat template.

    Args:
        tokenizer: A transformers tokenizer.
        decoding: How the tutor is asked to answer.
        template: Jinja source that takes the place of the tokenizer's own chat template.

    Raises:
        UserError: There is no chat template, or it does not show the user's words.
    """

    def __init__(self, tokenizer: Any, decoding: Decoding, template: str | None = None) -> None:
        self._tokenizer = tokenizer
        self._decoding = decoding
        self._control = _kept_whole(tokenizer)
        opening, closing = _split_template(tokenizer, template)
        self._opening = self._encode(opening)
        self._closing = self._encode(closing)
        self._padding = self._encode("\n")[-1]
        self._heads: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        self._labels: OrderedDict[tuple[str, ...], LabelMap] = OrderedDict()

    def build(self, request: AdviceRequest) -> Prompt:
        """See ``PromptBuilder``."""
        labels = _cached(self._labels, request.actions, self._map)
        head = _cached(self._heads, request.rules, self._head)
        body = self._encode_plain(question(request, labels, self._decoding))
        return Prompt((*head, *body, *self._closing), labels.token_ids, labels.shown)

    def show(self, prompt: Prompt) -> str:
        """See ``PromptBuilder``."""
        return str(self._tokenizer.decode(list(prompt.token_ids), skip_special_tokens=False))

    def _map(self, actions: tuple[str, ...]) -> LabelMap:
        return map_labels(actions, self._encode_plain)

    def _head(self, rules: str) -> tuple[int, ...]:
        """Template opening and rules, padded to full blocks with line feeds."""
        ids = (*self._opening, *self._encode_plain(rules.strip() + "\n\n"))
        return ids + (self._padding,) * (-len(ids) % BLOCK)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def _encode_plain(self, text: str) -> tuple[int, ...]:
        """Tokens of words, none of them a control token: what spells one is cut after its first character."""
        cuts = [match.start() + 1 for match in self._control.finditer(text)] if self._control else []
        pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        encode = self._tokenizer.encode
        return tuple(
            token for piece in pieces for token in encode(piece, add_special_tokens=False, split_special_tokens=True)
        )


class MessagePrompts:
    """Prompts for endpoints that take messages and keep their tokenizer to themselves."""

    def __init__(self, decoding: Decoding) -> None:
        self._decoding = decoding

    def build(self, request: AdviceRequest) -> Prompt:
        """See ``PromptBuilder``. Token ids are the text's bytes: they identify the prompt in the store."""
        labels = symbol_labels(request.actions)
        text = f"{request.rules.strip()}\n\n{question(request, labels, self._decoding)}"
        return Prompt(tuple(text.encode()), (), labels.shown, text)

    def show(self, prompt: Prompt) -> str:
        """See ``PromptBuilder``."""
        return prompt.text


def read_template(name_or_path: str) -> str:
    """Source of a chat template, by its name in ``catalog/templates`` or by path.

    Raises:
        UserError: No such template.
    """
    shipped = CATALOG_DIR / "templates" / f"{name_or_path.removesuffix('.jinja')}.jinja"
    for path in (shipped, Path(name_or_path).expanduser()):
        if path.is_file():
            return path.read_text(encoding="utf-8")
    names = ", ".join(sorted(path.stem for path in shipped.parent.glob("*.jinja")))
    raise UserError(f"chat_template = {name_or_path!r} is neither a file nor one of: {names}.")


def _split_template(tokenizer: Any, template: str | None) -> tuple[str, str]:
    """The text around the user's words, with the tutor's turn opened.

    Templates that print today's date get a fixed one: the same state must give the same prompt tomorrow.
    """
    if template is None and not getattr(tokenizer, "chat_template", None):
        raise UserError(
            "the tutor's tokenizer has no chat template. Set chat_template to one of catalog/templates "
            "(e.g. 'vicuna') or to the path of a Jinja file."
        )
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": _MARK}],
        tokenize=False,
        add_generation_prompt=True,
        chat_template=template,
        date_string=_TODAY,
        strftime_now=lambda pattern: _TODAY,
    )
    if rendered.count(_MARK) != 1:
        raise UserError(f"the chat template shows the user's words {rendered.count(_MARK)} times; once is needed.")
    opening, closing = rendered.split(_MARK)
    return opening, closing


def _kept_whole(tokenizer: Any) -> re.Pattern[str] | None:
    """Finds where an added token begins that its tokenizer does not call special, and so would not split.

    DeepSeek's distilled models have their turns and thoughts marked by such.
    """
    added = (token for token in tokenizer.added_tokens_decoder.values() if not token.special)
    texts = [token.content for token in added if len(token.content.strip()) > 1]
    return re.compile(f"(?={'|'.join(map(re.escape, texts))})") if texts else None


def _cached(cache: OrderedDict[Any, Any], key: Any, make: Callable[[Any], Any]) -> Any:
    value = cache.get(key)
    if value is None:
        value = cache[key] = make(key)
        if len(cache) > _CACHED:
            cache.popitem(last=False)
    return value


def prefix_length(prompts: Sequence[Prompt]) -> int:
    """Number of leading tokens that all prompts share."""
    first, last = min(prompt.token_ids for prompt in prompts), max(prompt.token_ids for prompt in prompts)
    for index, (one, other) in enumerate(zip(first, last, strict=False)):
        if one != other:
            return index
    return min(len(first), len(last))
