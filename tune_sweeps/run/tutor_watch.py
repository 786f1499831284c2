"""Watch the tutors of a running sweep: what they have spent, and why some questions got no advice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence

from tutor_service.serving import TutorStatus

LOOK_EVERY_S = 10.0


class TutorWatch:
    """Look at tutors every few seconds, beside whatever else goes on.

    Args:
        names: Which tutors; none: nobody is asked.
        status: Returns the state of all that are deployed; may raise while a service changes.
    """

    def __init__(self, names: Collection[str], status: Callable[[], Sequence[TutorStatus]]) -> None:
        self._names = frozenset(names)
        self._status = status
        self._lines: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="tutor-watch", daemon=True)

    def __enter__(self) -> TutorWatch:
        if self._names:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._names:
            self._thread.join()

    def lines(self) -> list[str]:
        """Return what was seen last, a line each; empty where there is nothing to say."""
        return self._lines

    def look(self) -> None:
        """Look once; where nothing can be learnt now, what was seen before stays."""
        try:
            found = [item for item in self._status() if item.name in self._names]
        except Exception:  # a service that starts, changes or ends; the next look will tell
            return
        if found:
            self._lines = [f"tutor {item.name}: {line}" for item in found for line in item.health()]

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            self.look()
        self.look()
