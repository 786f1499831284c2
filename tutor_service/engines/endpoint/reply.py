"""Turn the body of an HTTP reply into one record, whatever the body is. Pure: never raises, never connects.

The shapes it knows are those that OpenAI-compatible servers send: chat completions, text completions, streamed chunks,
``content`` as text or as a list of parts, thoughts in fields of their own or in tags, two forms of log-probabilities.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from tutor_service.engines.endpoint.logprobs import Position, as_number, read_positions

MAX_TEXT = 8_000
"""Characters of an answer that are looked at; of a longer one the beginning and the end."""

MAX_REASON = 300
_SHOWN_ERRORS = 3

_MAX_DEPTH = 8
_MAX_PARTS = 1_000
_THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking", "thought", "reasoning_details")
_THOUGHT_TYPE = re.compile(r"think|thought|reason|summary", re.IGNORECASE)
_THOUGHT_END = re.compile(
    r"</(?:\w+:)?(?:think|thinking|thought|reasoning)>|\[/THINK\]|<\|channel\|>final<\|message\|>", re.I
)
_THOUGHT_BEGIN = re.compile(
    r"<(?:\w+:)?(?:think|thinking|thought|reasoning)>|\[THINK\]|<\|channel\|>analysis<\|message\|>", re.I
)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_MARKUP = re.compile(r"<(?:script|style)\b.*?</(?:script|style)>|<[^>]*>", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Received:
    """Hold a reply of whatever status.

    Attributes:
        status: HTTP status.
        body: Its body.
        words: What an error says, in the provider's words; empty for status 200.
        retry_after_s: Seconds after which the server asks to be called again; None: it does not say.
    """

    status: int
    body: bytes
    words: str = ""
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class NotRead:
    """Say why a reply, or the answer in it, could not be read.

    Attributes:
        reason: In words, the provider's own where it gave any.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Count the tokens that a reply took.

    Attributes:
        prompt_tokens: Of the question.
        completion_tokens: Of the answer, its thought included.
        stated: Whether the server said so; where it did not, both are 0.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    stated: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """Hold what one reply says.

    Attributes:
        text: The answer in words, without its thought.
        positions: Its tokens with log-probabilities; empty where the server gives none.
        thinks: Whether the model thought first.
        cut: Whether the answer ended because no more tokens were allowed.
        refusal: Why the model or a filter of the provider's gave no answer; else empty.
        usage: Tokens that it took.
    """

    text: str = ""
    positions: tuple[Position, ...] = ()
    thinks: bool = False
    cut: bool = False
    refusal: str = ""
    usage: Usage = Usage()


@dataclass(slots=True)
class _Words:
    """Gather the text of a message by what it is."""

    answer: str = ""
    thought: str = ""
    refusal: str = ""


def parse_reply(body: bytes) -> Reply | NotRead:
    """Read the body of a reply with status 200."""
    text = _decoded(body)
    if not text:
        return NotRead("the reply is empty")
    data = _streamed(text) if text.startswith(("data:", "event:", "id:", "retry:", ":")) else _json(text)
    if data is _NOT_JSON:
        return NotRead(f"the reply is not JSON: '{_clean(_MARKUP.sub(' ', text))[:120]}'")
    if not isinstance(data, dict):
        return NotRead(f"the reply is a JSON {_kind(data)} where an object belongs")
    return _from_object(data)


def error_words(body: bytes, secret: str | None = None) -> str:
    """Return what a refusal says, in the provider's words on one line; a secret that it repeats is left out."""
    text = _decoded(body)
    data = _json(text)
    if data is _NOT_JSON:
        title = _TITLE.search(text)
        words = title[1] if title else _MARKUP.sub(" ", text)
    else:
        words = _error_in(data)
    words = _clean(words)
    if secret:
        words = words.replace(secret, "…")
    return words[:MAX_REASON]


def _decoded(body: bytes) -> str:
    """Return a body as text, without the mark of byte order that some servers put first."""
    return body.decode("utf-8", "replace").lstrip("\ufeff").strip()


def _from_object(data: dict[str, Any]) -> Reply | NotRead:
    if data.get("error"):
        return NotRead(_error_in(data))
    choice = _first_choice(data)
    if choice is None:
        return NotRead(f"the reply has no choices: {_error_in(data)}")
    if choice.get("error"):
        return NotRead(_error_in(choice))
    message: dict[str, Any] = next(
        (choice[key] for key in ("message", "delta") if isinstance(choice.get(key), dict)), {}
    )
    words = _Words()
    _collect(message.get("content"), words, 0)
    if not words.answer and isinstance(choice.get("text"), str):
        words.answer = choice["text"]
    for name in _THOUGHT_FIELDS:
        if message.get(name):
            thought = _Words()
            _collect(message[name], thought, 0)
            words.thought += thought.answer + thought.thought
    if isinstance(message.get("refusal"), str):
        words.refusal += message["refusal"]
    answer, thought_in_tags = _without_thought(words.answer)
    finish = choice.get("finish_reason")
    refusal = _clean(words.refusal)[:MAX_REASON]
    if not refusal and finish == "content_filter":
        refusal = "the provider's content filter stopped the answer"
    if not refusal and not answer.strip() and message.get("tool_calls"):
        refusal = "the model called a tool instead of answering"
    usage, reasoning_tokens = _usage(data.get("usage"))
    return Reply(
        text=_clipped(answer),
        positions=tuple(read_positions(choice.get("logprobs"))),
        thinks=bool(words.thought.strip()) or thought_in_tags or reasoning_tokens > 0,
        cut=finish in ("length", "max_tokens", "MAX_TOKENS"),
        refusal=refusal,
        usage=usage,
    )


def _first_choice(data: dict[str, Any]) -> dict[str, Any] | None:
    choices = data.get("choices")
    return next((item for item in choices if isinstance(item, dict)), None) if isinstance(choices, list) else None


def _collect(content: Any, words: _Words, depth: int) -> None:
    """Add the text of a message's content, which may be text, a part, or a list of either, nested."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(content, str):
        words.answer += content
    elif isinstance(content, list):
        for part in content[:_MAX_PARTS]:
            _collect(part, words, depth + 1)
    elif isinstance(content, dict):
        inner = _Words()
        for name in ("text", "content", "value", "thinking", "reasoning", "refusal", "parts", "summary"):
            if content.get(name):
                _collect(content[name], inner, depth + 1)
        kind = content.get("type")
        kind = kind if isinstance(kind, str) else ""
        words.thought += inner.thought
        words.refusal += inner.refusal
        if "refusal" in kind:
            words.refusal += inner.answer
        elif _THOUGHT_TYPE.search(kind) or content.get("thought") is True:
            words.thought += inner.answer
        else:
            words.answer += inner.answer


def _without_thought(text: str) -> tuple[str, bool]:
    """Return what follows the thought in an answer's own text, and whether there is one."""
    ends = list(_THOUGHT_END.finditer(text))
    rest = text[ends[-1].end() :] if ends else text
    begin = _THOUGHT_BEGIN.search(rest)
    if begin:
        rest = rest[: begin.start()]
    return rest, bool(ends or begin)


def _clipped(text: str) -> str:
    if len(text) <= MAX_TEXT:
        return text
    return text[: MAX_TEXT // 4] + "\n" + text[-MAX_TEXT * 3 // 4 :]


def _usage(usage: Any) -> tuple[Usage, int]:
    """Return the tokens as the server counts them, and how many of them were a thought."""
    if not isinstance(usage, dict):
        return Usage(), 0
    prompt, completion, total = (
        _count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens", "total_tokens")
    )
    if prompt is None and completion is None and total is None:
        return Usage(), 0
    if completion is None:
        completion = max(0, (total or 0) - (prompt or 0)) if prompt is not None else 0
    if prompt is None:
        prompt = max(0, (total or 0) - completion)
    details = usage.get("completion_tokens_details")
    reasoning = _count(details.get("reasoning_tokens")) if isinstance(details, dict) else None
    return Usage(prompt, completion, stated=True), reasoning or 0


def _count(value: Any) -> int | None:
    number = as_number(value)
    return None if number is None or not 0 <= number < 1e12 else int(number)


def _streamed(text: str) -> Any:
    """Merge the chunks of a server that streams although it was not asked to."""
    content: list[Any] = []
    places: list[Any] = []
    merged: dict[str, Any] = {}
    choice: dict[str, Any] = {}
    for line in text.splitlines():
        chunk = _json(line.removeprefix("data:").strip()) if line.startswith("data:") else None
        if not isinstance(chunk, dict):
            continue
        merged |= {name: value for name, value in chunk.items() if name != "choices" and value is not None}
        first = _first_choice(chunk)
        if first is None:
            continue
        choice |= {
            name: value for name, value in first.items() if value is not None and name in ("finish_reason", "error")
        }
        delta = next((first[name] for name in ("delta", "message") if isinstance(first.get(name), dict)), first)
        content.append(delta.get("content", delta.get("text")))
        for name in _THOUGHT_FIELDS:
            if isinstance(delta.get(name), str):
                content.append({"type": "thinking", "text": delta[name]})
        logprobs = first.get("logprobs")
        if isinstance(logprobs, dict) and isinstance(logprobs.get("content"), list):
            places.extend(logprobs["content"])
    if not merged and not content:
        return _NOT_JSON
    if not content:
        return merged
    message = {"content": content}
    return {**merged, "choices": [{**choice, "message": message, "logprobs": {"content": places} if places else None}]}


_NOT_JSON = object()


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _error_in(data: Any, depth: int = 0) -> str:
    """Return the message in an error object of any shape, or the first few in a list of them."""
    if depth < _MAX_DEPTH and isinstance(data, dict):
        if isinstance(data.get("loc"), list) and isinstance(data.get("msg"), str):  # a validator's complaint
            return _error_in(f"{'.'.join(map(str, data['loc']))}: {data['msg']}")
        inner = next(
            (data[key] for key in ("error", "message", "detail", "msg", "title", "errors") if data.get(key)), None
        )
        if inner is not None:
            return _error_in(inner, depth + 1)
    if depth < _MAX_DEPTH and isinstance(data, list) and data:
        return "; ".join(_error_in(item, depth + 1) for item in data[:_SHOWN_ERRORS])[:MAX_REASON]
    if isinstance(data, str):
        return _clean(data)[:MAX_REASON]
    try:
        return _clean(json.dumps(data, ensure_ascii=False))[:MAX_REASON]
    except (ValueError, RecursionError):
        return f"a JSON {_kind(data)}"


def _clean(text: str) -> str:
    """Put a text on one line, printable everywhere."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())


def _kind(data: Any) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(data), "number")
