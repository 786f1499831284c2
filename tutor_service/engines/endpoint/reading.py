"""Read a policy over the actions out of a reply: by log-probabilities, or by the action that the answer names. Pure.

What is returned as a ``Distribution`` was read from the reply; everything else is ``NotRead`` with its reason. Nothing
is ever uniform for want of an answer.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from tutor_service.engines.decode import Distribution, one_hot, renormalise
from tutor_service.engines.endpoint.answer import named_action
from tutor_service.engines.endpoint.logprobs import Position, Token
from tutor_service.engines.endpoint.names import ActionNames
from tutor_service.engines.endpoint.reply import NotRead, Reply

_MASS_TOLERANCE = 0.05
_LEAST_MASS = 1e-3
"""Below this the labels are what is left beside something else: the mark of a thought or of a role, a first word."""

_SHOWN_TOKENS = 5
_SHOWN_CHARS = 80
_PUNCTUATION = " \t\r\n\"'`*_.,:;!?()[]{}<>|#=-“”‘’«»"
_FIRST_WORDS = frozenset(["a", "an", "as", "at", "for", "he", "i", "if", "in", "it", "my", "no", "so", "to", "we"])
"""Begin sentences when capitalised, and are then no beginning of a label."""

_MARKERS = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\n", "ĉ": "\t"})
"""How byte-level and sentence-piece tokenizers write white space."""

_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
_BYTES = {chr(byte): byte for byte in _PRINTABLE} | {chr(256 + nth): byte for nth, byte in enumerate(_OTHERS)}
"""The byte that each character of GPT-2's byte-level alphabet stands for."""


def read(
    reply: Reply | NotRead, labels: Sequence[str], words: Sequence[str] = (), *, scored: bool
) -> Distribution | NotRead:
    """Read a reply.

    Args:
        reply: The reply, as ``parse_reply`` returns it.
        labels: What the tutor was asked to answer, one per action; distinct, at least one.
        words: Other names of the same actions, in the same order; empty: none.
        scored: Read log-probabilities where they are of use, and words only otherwise.
    """
    if isinstance(reply, NotRead):
        return reply
    if reply.refusal:
        return NotRead(f"the tutor refused to answer: {reply.refusal}")
    found = read_logprobs(reply, labels, words) if scored and reply.positions else None
    if isinstance(found, Distribution):
        return found
    index = named_action(reply.text, labels, words, cut=reply.cut)
    if index is not None:
        return Distribution(one_hot(index, len(labels)), 1.0)
    if found is not None:
        return found
    if not reply.text.strip():
        if reply.thinks or reply.cut:
            return NotRead("the tutor's thought took all its tokens and no answer followed: raise thinking_tokens")
        return NotRead("the reply holds no answer")
    cut = ", and was cut off: raise answer_tokens" if reply.cut else ""
    return NotRead(f"the answer names no legal action: '{_shown(reply.text)}'{cut}")


def read_logprobs(reply: Reply, labels: Sequence[str], words: Sequence[str] = ()) -> Distribution | NotRead:
    """Read the distribution at the first place of an answer that says something."""
    names = _spellings_of(tuple(labels), tuple(words))
    position = next((item for item in reply.positions if _says_something(item, names)), reply.positions[0])
    total = math.fsum(math.exp(token.logprob) for token in position.top)
    if total > 1 + _MASS_TOLERANCE:
        return NotRead(f"what the endpoint calls log-probabilities are none: they add up to {total:.3g}")
    masses = [0.0] * len(labels)
    for token in position.top:
        index = names.index(token)
        if index is not None:
            masses[index] += math.exp(token.logprob)
    found = renormalise([math.log(mass) if mass > 0 else -math.inf for mass in masses])
    if found is not None and found.mass >= _LEAST_MASS:
        return found
    likeliest = sorted(position.top, key=lambda token: -token.logprob)[:_SHOWN_TOKENS]
    shown = ", ".join(f"'{_shown(token.text)}'" for token in likeliest) or "none"
    if found is None:
        return NotRead(f"no legal answer is among the {len(position.top)} likeliest tokens ({shown})")
    return NotRead(f"the legal answers have a probability of {found.mass:.0e} beside the likeliest tokens ({shown})")


def opens_with_marks(reply: Reply, labels: Sequence[str]) -> bool:
    """Tell whether all places of a reply hold white space and marks alone, so that its answer would come later."""
    names = _spellings_of(tuple(labels), ())
    return not any(_says_something(position, names) for position in reply.positions)


def _says_something(position: Position, names: _Spellings) -> bool:
    """Tell whether a place holds more than white space and marks, or a label that is made of these."""
    if position.chosen is None:
        return True
    return names.index(position.chosen) is not None or all(
        spelling.strip(_PUNCTUATION) for spelling in _spellings(position.chosen)
    )


class _Spellings:
    """Tell which action a token stands for.

    Args:
        labels: One per action.
        words: Other names, or none.
    """

    def __init__(self, labels: tuple[str, ...], words: tuple[str, ...]) -> None:
        known = ActionNames(labels, words)
        self._exact, self._folded = known.exact, known.folded
        self._begun = _beginnings(known.exact)
        folded = _beginnings(known.folded)
        self._begun_folded = {name: index for name, index in folded.items() if name not in _FIRST_WORDS}

    def index(self, token: Token) -> int | None:
        """Return the index of the action that a token is the name of, or that it alone begins; None: of none."""
        spellings = list(_spellings(token))
        tables = ((self._exact, False), (self._folded, True), (self._begun, False), (self._begun_folded, True))
        for table, fold in tables:
            for spelling in spellings:
                for candidate in (spelling.strip(), spelling.strip(_PUNCTUATION)):
                    index = table.get(candidate.casefold() if fold else candidate)
                    if index is not None:
                        return index
        return None


_spellings_of = lru_cache(maxsize=512)(_Spellings)
"""Return the spellings of these actions, listed once."""


def _beginnings(names: Mapping[str, int]) -> dict[str, int]:
    """Return the index of the action by everything that its names alone begin with."""
    begun: dict[str, set[int]] = {}
    for name, index in names.items():
        for end in range(1, len(name)):
            begun.setdefault(name[:end], set()).add(index)
    return {name: indices.pop() for name, indices in begun.items() if len(indices) == 1}


def _spellings(token: Token) -> Iterator[str]:
    """Yield the text of a token in every way that servers write it: plain, with marks for white space, or as bytes."""
    raw = token.raw.decode("utf-8", "replace") if token.raw else ""
    for text in dict.fromkeys((token.text, raw)):
        if not text:
            continue
        yield unicodedata.normalize("NFKC", text)
        marked = text.translate(_MARKERS).removeprefix("##").removesuffix("</w>").removesuffix("@@")
        if marked != text:
            yield unicodedata.normalize("NFKC", marked)
        if (decoded := _byte_level(text)) is not None:
            yield unicodedata.normalize("NFKC", decoded)


def _byte_level(text: str) -> str | None:
    """Return a token in GPT-2's alphabet of bytes, or as ``<0x42>``, as text; None where it is neither."""
    if text.startswith("<0x") and text.endswith(">"):
        try:
            return bytes.fromhex(text[3:-1]).decode("utf-8")
        except ValueError:
            return None
    if text.isascii() or not all(character in _BYTES for character in text):
        return None
    try:
        return bytes(_BYTES[character] for character in text).decode("utf-8")
    except UnicodeDecodeError:
        return None


def _shown(text: str) -> str:
    return " ".join(text.encode("utf-8", "replace").decode().split())[:_SHOWN_CHARS]
