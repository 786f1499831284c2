"""Show how far something is that is counted: a bar with an ETA on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")

_LINE_EVERY_S = 10.0


class Count:
    """Count what is done of what there is to do.

    Args:
        screen: Where it is shown.
        bar: Shows it on a terminal.
        what: What is done to what, e.g. ``asked {} questions``.
    """

    def __init__(self, screen: Console, bar: Progress, what: str) -> None:
        self._screen, self._bar, self._what = screen, bar, what
        self._task = bar.add_task("", total=0)
        self._done = self._total = 0
        self._said = time.monotonic()

    def expect(self, more: int) -> None:
        """Take note of more that is to be done."""
        self._total += more
        self._bar.update(self._task, total=self._total)

    def advance(self, more: int = 1) -> None:
        """Take note of what is done."""
        self._done += more
        self._bar.update(self._task, completed=self._done)
        if not self._screen.is_terminal and time.monotonic() - self._said >= _LINE_EVERY_S:
            self._said = time.monotonic()
            self._screen.print(self._what.format(f"{self._done:,} of {self._total:,}"))

    def follow(self, items: Iterable[T], total: int) -> Iterator[T]:
        """Pass items on, of which there are so many, and count them."""
        self.expect(total)
        for item in items:
            yield item
            self.advance()


@contextmanager
def counting(screen: Console, doing: str, what: str) -> Iterator[Count]:
    """Yield a count that is shown while the block lasts.

    Args:
        screen: Where to.
        doing: Stands before the bar, e.g. ``asking``.
        what: The line elsewhere, with ``{}`` for the numbers, e.g. ``asked {} questions``.
    """
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal)
    with bar:
        yield Count(screen, bar, what)
