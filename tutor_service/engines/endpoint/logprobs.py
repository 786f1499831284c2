"""Read the log-probabilities of a reply, in whatever form they come. Pure: never raises."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_MAX_POSITIONS = 64
_MAX_TOP = 256
_MAX_BYTES = 256
_ROUNDING = 0.01
"""How far above 0 a log-probability may lie."""


@dataclass(frozen=True, slots=True)
class Token:
    """Hold one token and how likely it was.

    Attributes:
        text: As the server spells it.
        raw: Its bytes where the server gives them.
        logprob: At most 0.
    """

    text: str
    raw: bytes | None
    logprob: float


@dataclass(frozen=True, slots=True)
class Position:
    """Hold one place of an answer.

    Attributes:
        chosen: The token that stands there; None where the server does not say.
        top: The likeliest tokens of the place, distinct.
    """

    chosen: Token | None
    top: tuple[Token, ...]


def read_positions(logprobs: Any) -> Iterator[Position]:
    """Yield the places with log-probabilities, in today's form (``content``) or that of text completions."""
    if not isinstance(logprobs, dict):
        return
    content = logprobs.get("content")
    if isinstance(content, list):
        for entry in content[:_MAX_POSITIONS]:
            if isinstance(entry, dict):
                yield _position(_token(entry), entry.get("top_logprobs"))
        return
    tokens, numbers, tops = (logprobs.get(name) for name in ("tokens", "token_logprobs", "top_logprobs"))
    length = max((len(item) for item in (tokens, tops) if isinstance(item, list)), default=0)
    for index in range(min(length, _MAX_POSITIONS)):
        chosen = _token({"token": _at(tokens, index), "logprob": _at(numbers, index)})
        yield _position(chosen, _at(tops, index))


def _position(chosen: Token | None, top: Any) -> Position:
    """Return one place; of equal tokens the likeliest counts, since a server may name one twice."""
    entries: list[Any] = []
    if isinstance(top, Mapping):
        entries = [{"token": token, "logprob": logprob} for token, logprob in top.items()]
    elif isinstance(top, list):
        entries = top
    best: dict[str | tuple[str, bytes | None], Token] = {}
    for token in (*map(_token, entries[:_MAX_TOP]), chosen):
        if token is None:
            continue
        key = (token.text, token.raw) if "\ufffd" in token.text else token.text  # parts of characters look alike
        known = best.get(key)
        if known is None or token.logprob > known.logprob:
            best[key] = token
    return Position(chosen, tuple(best.values()))


def _token(entry: Any) -> Token | None:
    """Return a token with its log-probability; None where either is missing or the number cannot be one."""
    if not isinstance(entry, dict) or not isinstance(entry.get("token"), str):
        return None
    logprob = as_number(entry.get("logprob"))
    if logprob is None or logprob > _ROUNDING:
        return None
    return Token(entry["token"], _bytes(entry.get("bytes")), min(logprob, 0.0))


def as_number(value: Any) -> float | None:
    """Return a JSON number as a float; None for what is none, NaN among it."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return None if math.isnan(number) else number


def _bytes(value: Any) -> bytes | None:
    if not isinstance(value, list) or len(value) > _MAX_BYTES:
        return None
    if not all(isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 256 for item in value):
        return None
    return bytes(value)


def _at(items: Any, index: int) -> Any:
    return items[index] if isinstance(items, list) and index < len(items) else None
