"""Show how far a tutor is with its questions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from tune_sweeps.console.counting import counting
from tutor_service.schema import Advice, AdviceRequest, Ask

AT_ONCE = 32
"""Questions that are asked in one list: as many as a tutor's replica works on at once, and few enough to show."""


@contextmanager
def asking(screen: Console, ask: Ask) -> Iterator[Ask]:
    """Yield a tutor that is asked a few questions at a time, and shown doing so.

    Args:
        screen: Where to.
        ask: The tutor: one answer per request, None where there is none.
    """
    with counting(screen, "asking", "asked {} questions") as count:

        def shown(requests: list[AdviceRequest]) -> list[Advice | None]:
            count.expect(len(requests))
            answers: list[Advice | None] = []
            for start in range(0, len(requests), AT_ONCE):
                part = requests[start : start + AT_ONCE]
                answers += ask(part)
                count.advance(len(part))
            return answers

        yield shown
