"""Put strategy notes behind a task's rules: given ones, or those that the tutor writes itself, once.

Notes join the rules before the prompt is made, so they lie in the cached prefix and are part of the store's key.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from tutor_service.engines.base import Written
from tutor_service.prompts.layout import NOTES, opening, with_notes
from tutor_service.prompts.prompt import Prompt, PromptBuilder
from tutor_service.schema import AdviceError
from tutor_service.store import advice_key

REQUEST = "What is the best simple strategy for this game? Answer in a few plain sentences."
"""What a tutor that briefs itself is asked behind the rules."""

_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")

Write = Callable[[Prompt, int], Awaitable[Written | AdviceError]]


class NotesStore(Protocol):
    """Keep notes by key; neither call raises. ``keep_notes`` returns those that count."""

    def get_notes(self, key: bytes) -> str | None: ...  # noqa: D102

    def keep_notes(self, key: bytes, notes: str) -> str: ...  # noqa: D102


class Briefer(Protocol):
    """Put notes behind rules; see ``Briefing.brief``."""

    async def brief(self, rules: str) -> str | AdviceError: ...  # noqa: D102


class Briefing:
    """Know the notes of one tutor.

    Args:
        said: Field ``briefing`` of the tutor: ``none``, ``self``, or the notes.
        max_tokens: Most tokens of notes that it writes itself.
        identity: The tutor's, part of the key that its own notes are kept under.
        builder: Makes the prompt that asks for notes.
        write: The model.
        store: Keeps what it wrote.
    """

    def __init__(
        self, said: str, max_tokens: int, identity: str, builder: PromptBuilder, write: Write, store: NotesStore
    ) -> None:
        self._said = said
        self._max_tokens = max_tokens
        self._identity = identity
        self._builder = builder
        self._write = write
        self._store = store
        self._written: dict[str, asyncio.Task[str | AdviceError]] = {}

    async def brief(self, rules: str) -> str | AdviceError:
        """Return the rules with the notes behind them.

        Returns:
            Why there are no notes, where the tutor has to write them and cannot.
        """
        if self._said == "none":
            return rules
        if self._said != "self":
            return with_notes(rules, self._said)
        if rules not in self._written:
            self._written[rules] = asyncio.create_task(self._own(rules))
        writing = self._written[rules]
        notes = await asyncio.shield(writing)  # a caller who gives up leaves the writing to those who come later
        if isinstance(notes, AdviceError):
            if self._written.get(rules) is writing:
                del self._written[rules]
            return notes
        return with_notes(rules, notes)

    async def _own(self, rules: str) -> str | AdviceError:
        """Return what the tutor wrote once, or has it write."""
        prompt = self._builder.plain(opening(rules) + REQUEST)
        key = advice_key(f"{self._identity} notes of {self._max_tokens} tokens", prompt.token_ids, ())
        kept = await asyncio.to_thread(self._store.get_notes, key)
        if kept is not None:
            return kept
        try:
            written = await self._write(prompt, self._max_tokens)
        except Exception as error:  # a replica that died, as for any other question
            return AdviceError(f"briefing: the tutor's replica failed ({type(error).__name__})", retry=True)
        if isinstance(written, AdviceError):
            return replace(written, reason=f"briefing: {written.reason}")
        notes = tidy(written)
        if not notes:
            return AdviceError("briefing: the tutor wrote nothing. Give notes of your own, or briefing = 'none'.")
        return await asyncio.to_thread(self._store.keep_notes, key, notes)


def tidy(written: Written) -> str:
    """Return notes on one paragraph, ended where a sentence ends: of what was cut off the last one goes."""
    text = " ".join(written.text.split()).removeprefix(NOTES.strip()).strip()
    if written.whole:
        return text
    ends = [found.end() for found in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]] if ends else text
