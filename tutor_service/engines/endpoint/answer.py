"""Find the action that a free-text answer names. Pure; knows labels and text.

It reads what is said and guesses nothing: where an answer names two actions, or denies one, it names none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

from tutor_service.engines.decode import parse_action
from tutor_service.engines.endpoint.names import ActionNames

_WRAPPED = " \t\r\n\"'`*_.,:;!()[]{}<>$«»“”‘’"
_DENIAL = re.compile(
    r"\b(?:not|never|no|avoid|cannot|neither|nor|unless|instead|rather|wrong|worse|if|either|or|except|excluding)\b"
    r"|n['’]t\b|\b(?:away\s+from|(?:any|every)thing\s+but)\b"
    r"|\b(?:nicht|kein\w*|nie|niemals|oder|ne|pas|jamais|ou|ni|nunca|não|non|mai|не|или)\b|[不别勿]",
    re.IGNORECASE,
)
"""Words that make the mention of an action no choice of it, in languages in which rules are written."""

_ARTICLE = re.compile(
    r"['’]|\s+(?!(?:and|as|because|but|could|due|for|given|if|in|on|over|since|so|than|to|when|will|with|would)\b"
    r"|\w*[^\Ws]s\b)[a-z]"
)
"""What follows an A that is an article: a small word that is no verb ("A dealer"; "A loses" is about the label)."""

_PRONOUN = re.compile(r"['’]|\s+[a-z]")
_TAG = "<action>"
_KEY = r"\b(?:answer|action|choice|option|move|decision|response)\b"
_VERB = r"\b(?:choose|pick|select|go\s+with|play)\b"
_IS = r"[\"'`*_\s]*(?:is\b|=>?|:|->|→|should\s+be\b|would\s+be\b)"
_OPENING = r"[\"'`*_\s:(\[{$]*"
_CLOSING = r"(?!\w|[.,]\d)"
_LIST = re.compile(r"^[ \t]*1[.)]\s.*^[ \t]*2[.)]\s", re.MULTILINE | re.DOTALL)
_NUMBERED = re.compile(rf"{_KEY}\s*[#\"'`*_(\[]*$", re.IGNORECASE)
_BEFORE = 40
"""Characters before a name that are looked at."""

_OPEN_AGAIN = re.compile(r"(<action>[^<]+)<action>\s*$", re.IGNORECASE)


def named_action(answer: str, labels: Sequence[str], words: Sequence[str] = (), *, cut: bool = False) -> int | None:
    """Return the index of the one action that an answer names, or None.

    Look, in this order, at ``<action>`` tags, the whole answer, "the answer is B" and the like (the last one counts),
    what is set off by ``**`` or ``\\boxed``, sentences that begin with a label ("B. It is safer."), and at last the
    only action that is mentioned at all.

    Args:
        answer: The answer, without its thought.
        labels: What the tutor was asked to answer, one per action; distinct.
        words: Other names of the same actions, in the same order; empty: none.
        cut: Whether the answer was cut off, so that a mention may be one of several to come.
    """
    text = unicodedata.normalize("NFKC", answer).strip()
    if not text:
        return None
    if _TAG in text.casefold():
        return _in_tags(text, labels, words)
    names = _names(tuple(labels), tuple(words))
    whole = names.index(text)
    if whole is not None:
        return whole
    if declared := names.declared(text):
        return declared[-1]
    if found := names.set_off(text) or names.leading(text):
        return _agreed(found)
    if cut or _DENIAL.search(text):
        return None
    return _agreed(names.mentioned(text))


def _in_tags(text: str, labels: Sequence[str], words: Sequence[str]) -> int | None:
    """Return what stands in the last tag: a label, a word, or both ("B: hit")."""
    text = _OPEN_AGAIN.sub(r"\1", text)
    for spelling in (labels, words):
        index = parse_action(text, spelling) if spelling else None
        if index is not None:
            return index
    inside = text[text.casefold().rindex(_TAG) + len(_TAG) :].split("</")[0]
    names = _names(tuple(labels), tuple(words))
    whole = names.index(inside)
    if whole is not None or _DENIAL.search(inside):
        return whole
    return _agreed(names.mentioned(inside, counts=False))


def _agreed(found: Iterable[int]) -> int | None:
    distinct = set(found)
    return distinct.pop() if len(distinct) == 1 else None


class _Names:
    """Look for the names of actions in a text.

    Args:
        labels: One per action.
        words: Other names, or none.
    """

    def __init__(self, labels: tuple[str, ...], words: tuple[str, ...]) -> None:
        known = self._known = ActionNames(labels, words)
        longest = sorted(known.exact, key=len, reverse=True)
        patterns = [_pattern(name, known) for name in longest]
        name = f"({'|'.join(patterns)})"
        mention = rf"(?<!\w)(?<!\d[.,]){name}{_CLOSING}"
        self._mention = re.compile(mention)
        another = rf"[\"'`*_)\s]*(?:(?i:or|and)\b|[/|&])[\"'`*_(\s]*(?:{'|'.join(patterns)}){_CLOSING}"
        self._declared = re.compile(rf"(?i:{_KEY}{_IS}|{_VERB}){_OPENING}{mention}(?!{another})")
        self._set_off = re.compile(rf"\\boxed{{(?:\\text{{)?{mention}|\*\*[\s\"'(]*{mention}[\s\"').:]*\*\*")
        self._leading = re.compile(
            rf"(?:^|[\n.;!?])[\s>#*_\"'`(\[-]*{mention}[*_\"'`)\]]*\s*(?:[).,;!—–]|$|\n|(?:because|since)\b)"
        )

    def index(self, text: str) -> int | None:
        """Return the index of the action that a text is the name of, forgiving white space, punctuation and case."""
        for candidate in (text.strip(), text.strip(_WRAPPED)):
            found = self._known.index(candidate)
            if found is not None:
                return found
        return None

    def declared(self, text: str) -> list[int]:
        """Return the actions that a text declares its answer: "Answer: B", "I choose hit"."""
        return [
            index
            for match in self._declared.finditer(text)
            if not _denied(text, match.start())
            for index in self._known_as(match)
        ]

    def set_off(self, text: str) -> list[int]:
        """Return the actions in bold type or in a box."""
        return [index for match in self._set_off.finditer(text) for index in self._of(match)]

    def leading(self, text: str) -> list[int]:
        """Return the actions that begin a sentence and end in a mark: "B. It is safer.", "B) hit"; not a list's."""
        if _LIST.search(text):
            return []
        return [index for match in self._leading.finditer(text) for index in self._of(match)]

    def mentioned(self, text: str, *, counts: bool = True) -> list[int]:
        """Return every action that is mentioned.

        Args:
            text: The text.
            counts: Whether the text may count other things, so that a number is an action only behind that word or its
                like.
        """
        return [
            index
            for match in self._mention.finditer(text)
            if not (counts and match[1].isdecimal())
            or _NUMBERED.search(text[max(0, match.start() - _BEFORE) : match.start()])
            for index in self._of(match)
        ]

    def _of(self, match: re.Match[str]) -> list[int]:
        group = match.lastindex or 0
        other = {"A": _ARTICLE, "I": _PRONOUN}.get(match[group])
        return [] if other is not None and other.match(match.string, match.end(group)) else self._known_as(match)

    def _known_as(self, match: re.Match[str]) -> list[int]:
        index = self._known.index(match[match.lastindex or 0])
        return [] if index is None else [index]


_names = lru_cache(maxsize=512)(_Names)
"""Return the names of these actions, compiled once."""


def _denied(text: str, start: int) -> bool:
    """Tell whether what stands just before says the contrary: "never choose B"."""
    return bool(
        re.search(r"(?:\b(?:not|never)|n['’]t)\s+(?:\w+\s+)?$", text[max(0, start - _BEFORE) : start], re.IGNORECASE)
    )


def _pattern(name: str, known: ActionNames) -> str:
    """Match a single letter by its case, since small ones are words; longer names in any case where none is alike."""
    escaped = re.escape(name)
    return f"(?i:{escaped})" if len(name) > 1 and name.casefold() in known.folded else escaped
