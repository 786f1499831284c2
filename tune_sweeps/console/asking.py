"""Shows how far a tutor is with its questions: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tutor_service.schema import Advice, AdviceRequest

Ask = Callable[[list[AdviceRequest]], Sequence[Advice | None]]

AT_ONCE = 32
"""Questions that are asked in one list: as many as a tutor's replica works on at once, and few enough to show."""
_LINE_EVERY_S = 10.0


@contextmanager
def asking(screen: Console, ask: Ask) -> Iterator[Ask]:
    """Yield a tutor that is asked a few questions at a time, and shown doing so.

    Args:
        screen: Where to.
        ask: The tutor: one answer per request, None where there is none.
    """
    columns = (TextColumn("asking"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal)
    task = bar.add_task("", total=0)
    asked = total = 0
    said = time.monotonic()

    def shown(requests: list[AdviceRequest]) -> list[Advice | None]:
        nonlocal asked, total, said
        total += len(requests)
        bar.update(task, total=total)
        answers: list[Advice | None] = []
        for start in range(0, len(requests), AT_ONCE):
            part = requests[start : start + AT_ONCE]
            answers += ask(part)
            asked += len(part)
            bar.update(task, completed=asked)
            if not screen.is_terminal and time.monotonic() - said >= _LINE_EVERY_S:
                said = time.monotonic()
                screen.print(f"asked {asked:,} of {total:,} questions")
        return answers

    with bar:
        yield shown
