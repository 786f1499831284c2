"""One stored answer and its bytes on disk. Pure: must not know the database.

A value is ``checksum | header | probabilities | digests of identity and rules | state | actions``. The checksum covers
the key too, so that an answer that turns up under another question's key is recognised as wrong.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

_VERSION = 1
_CHECKSUM_BYTES = 8
_DIGEST_BYTES = 16
_HEADER = struct.Struct("<BHIIdI")
_LENGTH = struct.Struct("<I")
_SUM_TOLERANCE = 1e-3
_NO_TEXT = bytes(_DIGEST_BYTES)


@dataclass(frozen=True, slots=True)
class Context:
    """What a person needs to understand a stored answer; no part of it is needed to use one.

    Attributes:
        identity: The tutor as ``advice_key`` was given it.
        rules: The task's fixed text.
        state: The state in words.
        actions: The action labels, in the order of the probabilities.
    """

    identity: str
    rules: str
    state: str
    actions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoredAdvice:
    """One evaluation of a tutor, as it is kept.

    Attributes:
        probabilities: One per legal action, in the question's order; they sum to 1.
        legal_mass: Probability mass in [0, 1] that the model put on those actions before renormalising.
        invalid: Answers that named no legal action before this one was had.
        tokens: Prompt and generated tokens that the evaluation processed.
        context: The question in words, for ``export``; None where it was not given.
    """

    probabilities: tuple[float, ...]
    legal_mass: float
    invalid: int
    tokens: int
    context: Context | None = None


@dataclass(frozen=True, slots=True)
class EncodedContext:
    """A context whose long, shared texts are named by their digests."""

    identity: bytes
    rules: bytes
    state: str
    actions: tuple[str, ...]


class DamagedAnswer(ValueError):
    """Bytes that are not what was once stored under their key."""


def text_digest(text: bytes) -> bytes:
    """The name under which a text that many answers share is kept once."""
    return hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest()


def flaw(advice: StoredAdvice) -> str | None:
    """Why an answer is no distribution with health figures, or None if it is one."""
    total = math.fsum(advice.probabilities) if advice.probabilities else 0.0
    if not all(0.0 <= probability <= 1.0 + _SUM_TOLERANCE for probability in advice.probabilities):
        return f"probabilities {advice.probabilities} are not all in [0, 1]"
    if abs(total - 1.0) > _SUM_TOLERANCE:
        return f"probabilities {advice.probabilities} sum to {total}, not to 1"
    if not 0.0 <= advice.legal_mass <= 1.0 + _SUM_TOLERANCE:
        return f"legal_mass {advice.legal_mass} is not in [0, 1]"
    if not (0 <= advice.invalid < 2**32 and 0 <= advice.tokens < 2**32):
        return f"invalid {advice.invalid} or tokens {advice.tokens} is negative or beyond 32 bits"
    if len(advice.probabilities) >= 2**16:
        return f"{len(advice.probabilities)} probabilities are more than {2**16 - 1}"
    return None


def encode(key: bytes, advice: StoredAdvice) -> bytes:
    """The bytes of an answer; the texts of its context's identity and rules are to be kept under their digests."""
    context = advice.context
    digests, words = _NO_TEXT + _NO_TEXT, b""
    if context is not None:
        digests = text_digest(to_bytes(context.identity)) + text_digest(to_bytes(context.rules))
        words = _join([context.state, *context.actions])
    count = len(advice.probabilities)
    header = _HEADER.pack(_VERSION, count, advice.invalid, advice.tokens, advice.legal_mass, len(words))
    body = header + struct.pack(f"<{count}d", *advice.probabilities) + digests + words
    return _checksum(key, body) + body


def decode(key: bytes, value: bytes) -> tuple[StoredAdvice, EncodedContext | None]:
    """Reads an answer back, its context apart.

    Raises:
        DamagedAnswer: The bytes are not what ``encode`` made for this key.
    """
    body = value[_CHECKSUM_BYTES:]
    if value[:_CHECKSUM_BYTES] != _checksum(key, body):
        raise DamagedAnswer("its checksum does not hold")
    version, count, invalid, tokens, legal_mass, words_bytes = _HEADER.unpack_from(body)
    if version != _VERSION:
        raise DamagedAnswer(f"its format {version} is not known to this version")
    offset = _HEADER.size
    probabilities = struct.unpack_from(f"<{count}d", body, offset)
    advice = StoredAdvice(probabilities, legal_mass, invalid, tokens)
    if not words_bytes:
        return advice, None
    offset += 8 * count
    identity, rules = body[offset : offset + _DIGEST_BYTES], body[offset + _DIGEST_BYTES : offset + 2 * _DIGEST_BYTES]
    state, *actions = _split(body[offset + 2 * _DIGEST_BYTES :])
    return advice, EncodedContext(identity, rules, state, tuple(actions))


def to_bytes(text: str) -> bytes:
    """UTF-8, and exact for any ``str``."""
    return text.encode("utf-8", "surrogatepass")


def to_text(data: bytes) -> str:
    """Undoes ``to_bytes``."""
    return data.decode("utf-8", "surrogatepass")


def _checksum(key: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES, key=key).digest()


def _join(texts: Sequence[str]) -> bytes:
    parts = [to_bytes(text) for text in texts]
    return b"".join(_LENGTH.pack(len(part)) + part for part in parts)


def _split(data: bytes) -> list[str]:
    texts, offset = [], 0
    while offset < len(data):
        (length,) = _LENGTH.unpack_from(data, offset)
        offset += _LENGTH.size
        texts.append(to_text(data[offset : offset + length]))
        offset += length
    return texts
