"""Show an audition while it goes on: a live table on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time

from rich.console import Console, Group, RenderableType
from rich.text import Text

from rllib_plugins.audition import Audition
from rllib_plugins.audition.view import cost_table, ways_table
from tune_sweeps.console.terminal import duration, live

_LINE_EVERY_S = 10.0


class AuditionView:
    """Show the newest state of an audition until the end of a ``with`` block.

    Args:
        screen: Where to.
    """

    def __init__(self, screen: Console) -> None:
        self._screen = screen
        self._state: Audition | None = None
        self._started = time.monotonic()
        self._said = self._started
        self._live = live(screen, self._render)

    def __enter__(self) -> AuditionView:
        if self._screen.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._screen.is_terminal:
            self._live.stop()

    def update(self, state: Audition) -> None:
        """Take the newest state."""
        self._state = state
        self.refresh()

    def refresh(self) -> None:
        """Say how far it is, where no table shows it."""
        now = time.monotonic()
        if not self._screen.is_terminal and now - self._said >= _LINE_EVERY_S:
            self._said = now
            self._screen.print(self._line())

    def _line(self) -> str:
        state, passed = self._state, time.monotonic() - self._started
        if state is None:
            return f"asking and playing references, {duration(passed)}"
        race, best = state.race, state.best
        evaluated = sum(answers.cost.evaluations for answers in state.answers.values())
        left = passed * (race.planned - race.episodes) / race.episodes if race.episodes else 0.0
        return (
            f"{race.episodes:,} of at most {race.planned:,} episodes · {evaluated:,} evaluations of the model · "
            f"{duration(passed)} · ETA {duration(left)} · leading: {best.player.words} {best.score.mean:.3g}"
        )

    def _render(self) -> RenderableType:
        if self._state is None:
            return Text(self._line())
        return Group(ways_table(self._state), cost_table(self._state), Text(self._line()))
