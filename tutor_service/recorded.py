"""Recorded answers as a tutor: what an exported file answers to a question, and whether it fits a task at all.

A file may hold answers to several tasks and of several ways of asking (other rules, another identity). Only answers
that were given under a task's rules, notes behind them included, count for it. Knows text and labels; must not know
environments or how a student reads a distribution.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from tutor_service.config import TutorConfig
from tutor_service.errors import UserError
from tutor_service.schema import Advice
from tutor_service.store import AdviceStore
from tutor_service.store.answer import Context, Entry
from tutor_service.store.export import write_export
from tutor_service.store.opening import folder_of
from tutor_service.store.reading import ExportedAnswer, read_export

logger = logging.getLogger(__name__)

Question: TypeAlias = tuple[str, tuple[str, ...]]
"""A state in words and the labels of its legal actions, in order."""

_SAME = 1e-6
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class RecordedSetting:
    """Say how a recorded tutor was asked.

    Attributes:
        identity: The tutor as it was when it answered.
        rules: What it read before the state: the task's rules, and notes behind them.
    """

    identity: str
    rules: str

    @property
    def text(self) -> str:
        """Return what a tutor file's field ``identity`` says for this way and no other."""
        return f"{self.identity}\n{self.rules}"


class RecordedAnswers:
    """The answers of one file.

    Args:
        path: An exported file.
        identity: The identity or the rules of the answers that count, or a part of them, for a file that holds several
            ways of asking.

    Raises:
        UserError: The file cannot be read or holds no answers of that identity.
    """

    def __init__(self, path: Path, identity: str | None = None) -> None:
        self.path = path
        rows = read_export(path)
        if identity is not None:
            exact = [row for row in rows if identity in (_way(row).text, row.context.identity, row.context.rules)]
            rows = exact or [row for row in rows if identity in row.context.identity or identity in row.context.rules]
            if not rows:
                raise UserError(f"recorded tutor '{path}': no answer has '{identity}' in its identity or rules.")
        self._rows: list[ExportedAnswer] = rows
        self._tables: dict[str, dict[Question, Advice]] = {}

    def find(self, rules: str, question: Question) -> Advice | None:
        """Return the answer to a question that was asked under a task's rules; None where it was never asked."""
        table = self._tables.get(rules)
        if table is None:
            table = self._tables[rules] = self._table(rules)
        return table.get(question)

    def ways(self, rules: str) -> list[RecordedSetting]:
        """Return the ways in which the tutor was asked under a task's rules, in the file's order."""
        return list(dict.fromkeys(_way(row) for row in self._under(rules)))

    def check(self, task: str, rules: str, actions: Sequence[str], questions: Iterable[Question]) -> None:
        """Refuse a task that the answers are not about.

        Args:
            task: Name of the task.
            rules: Its rules.
            actions: All its labels.
            questions: Questions that students of the task ask.

        Raises:
            UserError: Other labels, or none of the questions was ever asked.
        """
        labels = list(dict.fromkeys(label for row in self._under(rules) for label in row.context.actions))
        if not set(labels) <= set(actions):
            raise UserError(
                f"recorded tutor '{self.path}' answers with {_shown(labels)}; task '{task}' has the actions "
                f"{_shown(actions)}. It was recorded for another task or label set: record it anew with "
                "`tutor store export`."
            )
        asked = {(row.context.state, row.context.actions) for row in self._under(rules)}
        if not self._has(rules) and asked.isdisjoint(questions):
            example = self._rows[0].context
            raise UserError(
                f"recorded tutor '{self.path}' was never asked a state of task '{task}': it was recorded for another "
                f"task. Its first state: {example.state!r:.{_SHOWN}}."
            )

    def check_one_way(self, rules: str) -> None:
        """Refuse answers to a task that contradict one another.

        Raises:
            UserError: The same question was answered in several ways.
        """
        self.find(rules, ("", ()))

    def _has(self, rules: str) -> bool:
        return any(_contains(row.context.rules, rules) for row in self._rows)

    def _under(self, rules: str) -> list[ExportedAnswer]:
        """Answers that were given under a task's rules; all of them where none says so."""
        return [row for row in self._rows if _contains(row.context.rules, rules)] or self._rows

    def _table(self, rules: str) -> dict[Question, Advice]:
        if not self._has(rules):
            logger.warning(
                "Recorded tutor '%s' was asked under other rules than the task's; its answers are used anyway. %s",
                self.path,
                _difference(self._rows[0].context.rules, rules),
            )
        table: dict[Question, Advice] = {}
        ways: dict[Question, RecordedSetting] = {}
        for row in self._under(rules):
            context = row.context
            question, way = (context.state, context.actions), _way(row)
            known = table.get(question)
            if known is None:
                table[question], ways[question] = row.advice, way
            elif way != ways[question] and _differ(known, row.advice):
                raise UserError(
                    f"recorded tutor '{self.path}' answers {context.state!r:.{_SHOWN}} in several ways: asked as "
                    f"{_what(ways[question], way)} and as {_what(way, ways[question])}. Choose one by a part of it, in "
                    "the tutor file: identity: TEXT; or try them all: `tutor audition`."
                )
        return table


def write_answers(tutor: TutorConfig, rules: Collection[str], path: Path) -> int:
    """Write down what a tutor answered to some tasks, asked as its file says: the file is a recorded tutor by itself.

    Args:
        tutor: A tutor whose store is on this machine, or a recorded one.
        rules: What it read before a state of the tasks that count, without the tutor's own notes.
        path: File to write, ``.jsonl`` or ``.parquet``.

    Returns:
        How many answers were written; 0, and no file, where there are none here.

    Raises:
        UserError: The file cannot be written.
        StoreError: The store cannot be read.
    """
    briefed = tutor.briefing != "none" or tutor.file is not None
    entries = [entry for entry in _all_entries(tutor) if entry.context and _is_about(entry.context, rules, briefed)]
    return write_export(entries, path) if entries else 0


def _all_entries(tutor: TutorConfig) -> Iterator[Entry]:
    if tutor.file is not None:
        yield from (answer.entry for answer in read_export(tutor.file))
        return
    folder = folder_of(tutor)
    if folder.is_dir():
        with AdviceStore(folder, readonly=True) as store:
            yield from store.entries()


def _is_about(asked: Context, rules: Collection[str], briefed: bool) -> bool:
    """Return whether a question was asked under one of the rules, with notes behind them if there are any."""
    shown = _plain(asked.rules)
    return any(shown.startswith(_plain(task)) if briefed else shown == _plain(task) for task in rules)


def open_recorded(path: Path, identity: str | None = None) -> RecordedAnswers:
    """Return a file's answers, read once per process as long as the file stays the same.

    Raises:
        UserError: See ``RecordedAnswers``.
    """
    try:
        modified_ns = path.stat().st_mtime_ns
    except OSError as error:
        raise UserError(f"recorded tutor: file '{path}' cannot be read: {error.strerror}.") from error
    return _read(path, identity, modified_ns)


@lru_cache(maxsize=32)
def _read(path: Path, identity: str | None, modified_ns: int) -> RecordedAnswers:
    return RecordedAnswers(path, identity)


def _way(row: ExportedAnswer) -> RecordedSetting:
    return RecordedSetting(row.context.identity, row.context.rules)


def _contains(shown: str, rules: str) -> bool:
    """Return whether a text holds a task's rules, white space aside."""
    return _plain(rules) in _plain(shown)


@lru_cache(maxsize=256)
def _plain(text: str) -> str:
    return " ".join(text.split())


def _differ(one: Advice, other: Advice) -> bool:
    return any(abs(a - b) > _SAME for a, b in zip(one.probabilities, other.probabilities, strict=True))


def _difference(shown: str, rules: str) -> str:
    """Show where two texts part."""
    one, other = _plain(shown), _plain(rules)
    parting = _parting(one, other)
    return f"Recorded: '…{one[parting]}…', the task: '…{other[parting]}…'."


def _what(way: RecordedSetting, beside: RecordedSetting) -> str:
    """Name a way by what tells it from another."""
    one, other = (way.identity, beside.identity) if way.identity != beside.identity else (way.rules, beside.rules)
    return repr(one[_parting(one, other)])


def _parting(one: str, other: str) -> slice:
    """Return the place at which two texts part, with a little before it."""
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return slice(max(0, at - 20), at + _SHOWN)


def _shown(labels: Sequence[str]) -> str:
    return ", ".join(labels[:8]) + (" …" if len(labels) > 8 else "")
