"""Show a running sweep: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from rich.console import Console, Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tune_sweeps.console.terminal import duration, live
from tune_sweeps.run.progress import Progress

_LINE_EVERY_S = 15.0
_SHOWN_RUNNING = 12


class View:
    """Show progress until it is closed.

    Args:
        console: Where to.
        progress: What to show.
        concurrent: Trials that run at once, for the ETA.
        warning: A line about something that is wrong just now, or an empty one.
        tutors: Lines about the tutors, or none.
    """

    def __init__(
        self,
        console: Console,
        progress: Progress,
        concurrent: int,
        warning: Callable[[], str] = lambda: "",
        tutors: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._console = console
        self._progress = progress
        self._concurrent = concurrent
        self._warning = warning
        self._tutors = tutors
        self._started = time.monotonic()
        self._live = live(console, self._render)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._print_lines, name="view", daemon=True)

    def __enter__(self) -> View:
        if self._console.is_terminal:
            self._live.start()
        else:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._console.is_terminal:
            self._live.stop()
        else:
            self._thread.join()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(text)

    def summary(self) -> str:
        """Sum up in one line: trials done, running and failed, time, ETA, advice."""
        progress = self._progress
        journal = progress.journal
        eta = progress.eta_s(self._concurrent)
        starting = not progress.running and bool(journal.missing())
        parts = [
            f"{journal.count('done')}/{len(progress.trials)} done",
            "starting" if starting else f"{len(progress.running)} running",
            f"{journal.count('failed')} failed",
            f"{duration(time.monotonic() - self._started)} gone",
        ]
        if eta is not None or not starting:
            parts.append(f"ETA {duration(eta)}" if eta is not None else "ETA –")
        advice = progress.advice()
        if advice["consultations"] or advice["missed"]:
            parts.append(
                f"advice: {advice['consultations']:,.0f} consultations, {advice['model_evaluations']:,.0f} LLM "
                f"evaluations, {advice['store_hits']:,.0f} from the store, {advice['missed']:,.0f} missed"
            )
        return " · ".join(parts)

    def _best_lines(self) -> list[str]:
        return [
            f"best on {task}: {value:.3f} ({label})" for task, (value, label) in sorted(self._progress.best().items())
        ]

    def _render(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for key in list(self._progress.running)[:_SHOWN_RUNNING]:
            trial = self._progress.trials[key]
            fraction = self._progress.fraction(key)
            table.add_row(
                trial.label,
                ProgressBar(total=1.0, completed=fraction, width=24),
                f"{fraction:4.0%}",
                self._last_return(key),
            )
        lines = [
            Text(self.summary(), style="bold"),
            *(Text(line, style="dim") for line in (*self._best_lines(), *self._tutors())),
        ]
        warning = self._warning()
        return Group(*lines, table, *([Text(warning, style="yellow")] if warning else []))

    def _last_return(self, key: str) -> str:
        points = self._progress.journal[key].points
        value = points[-1].metrics.get("eval/return_mean") if points else None
        return "" if value is None else f"greedy return {value:.3f}"

    def _print_lines(self) -> None:
        while not self._stop.wait(_LINE_EVERY_S):
            self._console.print(self.summary())
            for line in self._tutors():
                self._console.print(line, markup=False)
            if warning := self._warning():
                self._console.print(warning)
