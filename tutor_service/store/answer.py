"""Write one answer as bytes and read it back. Pure: must not know the database.

A value is ``checksum | header | probabilities | digests of identity and rules | thought | state | actions``. The
checksum covers the key too, so that an answer that turns up under another question's key is recognised as wrong.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tutor_service.schema import Advice

_VERSION = 2
_WITHOUT_THOUGHTS = 1
_CHECKSUM_BYTES = 8
_DIGEST_BYTES = 16
_HEADER = struct.Struct("<BHIIdI")
_LENGTH = struct.Struct("<I")
_NO_TEXT = bytes(_DIGEST_BYTES)


@dataclass(frozen=True, slots=True)
class Context:
    """Hold what a person needs to understand a stored answer; no part of it is needed to use one.

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


class Entry(NamedTuple):
    """Name one answer with the key it is kept under.

    Attributes:
        key: See ``advice_key``.
        advice: The answer as it was evaluated.
        context: The question in words, for ``export``; None where it was not given.
    """

    key: bytes
    advice: Advice
    context: Context | None = None


@dataclass(frozen=True, slots=True)
class EncodedContext:
    """Name the long, shared texts of a context by their digests."""

    identity: bytes
    rules: bytes
    state: str
    actions: tuple[str, ...]


class DamagedAnswer(ValueError):
    """Report bytes that are not what was once stored under their key."""


def text_digest(text: bytes) -> bytes:
    """Return the name under which a text that many answers share is kept once."""
    return hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest()


def encode(entry: Entry) -> bytes:
    """Return the bytes of an answer; the identity and rules of its context are to be kept under their digests."""
    key, advice, context = entry
    digests, texts = _NO_TEXT + _NO_TEXT, [advice.thought]
    if context is not None:
        digests = text_digest(to_bytes(context.identity)) + text_digest(to_bytes(context.rules))
        texts += [context.state, *context.actions]
    words = _join(texts)
    count = len(advice.probabilities)
    header = _HEADER.pack(_VERSION, count, advice.invalid, advice.tokens, advice.legal_mass, len(words))
    body = header + struct.pack(f"<{count}d", *advice.probabilities) + digests + words
    return _checksum(key, body) + body


def decode(key: bytes, value: bytes) -> tuple[Advice, EncodedContext | None]:
    """Read an answer back, its context apart.

    Raises:
        DamagedAnswer: The bytes are not what ``encode`` made for this key.
    """
    body = _checked(key, value)
    version, count, invalid, tokens, legal_mass, _ = _HEADER.unpack_from(body)
    if version not in (_VERSION, _WITHOUT_THOUGHTS):
        raise DamagedAnswer(f"its format {version} is not known to this version")
    offset = _HEADER.size
    probabilities = struct.unpack_from(f"<{count}d", body, offset)
    offset += 8 * count
    texts = _split(body[offset + 2 * _DIGEST_BYTES :])
    thought = texts.pop(0) if version == _VERSION else ""
    try:
        advice = Advice(probabilities, legal_mass, "store", 0.0, invalid, tokens, thought)
    except ValueError as error:
        raise DamagedAnswer(str(error)) from None
    if not texts:
        return advice, None
    identity, rules = body[offset : offset + _DIGEST_BYTES], body[offset + _DIGEST_BYTES : offset + 2 * _DIGEST_BYTES]
    state, *actions = texts
    return advice, EncodedContext(identity, rules, state, tuple(actions))


def encode_notes(key: bytes, notes: str) -> bytes:
    """Return the bytes of notes that a tutor wrote."""
    body = to_bytes(notes)
    return _checksum(key, body) + body


def decode_notes(key: bytes, value: bytes) -> str:
    """Read notes back.

    Raises:
        DamagedAnswer: The bytes are not what ``encode_notes`` made for this key.
    """
    return to_text(_checked(key, value))


def to_bytes(text: str) -> bytes:
    """Return UTF-8 that is exact for any ``str``."""
    return text.encode("utf-8", "surrogatepass")


def to_text(data: bytes) -> str:
    """Undo ``to_bytes``."""
    return data.decode("utf-8", "surrogatepass")


def _checksum(key: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES, key=key).digest()


def _checked(key: bytes, value: bytes) -> bytes:
    """Return what follows the checksum, once that holds."""
    body = value[_CHECKSUM_BYTES:]
    if value[:_CHECKSUM_BYTES] != _checksum(key, body):
        raise DamagedAnswer("its checksum does not hold")
    return body


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
