"""Keep the terminal for our own words: everything that libraries print goes to a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from rich.console import Console, RenderableType
from rich.live import Live


@contextmanager
def quiet(log: Path, silent: bool = False) -> Iterator[Console]:
    """Send standard output and error of this process and its children to a file, below Python.

    Args:
        log: The file; it is appended to.
        silent: Whether the console says nothing either: a program reads what comes at the end.

    Yields:
        A console on what was standard output before: the one way to reach the user meanwhile.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept_out, kept_err = os.dup(1), os.dup(2)
    is_terminal = os.isatty(kept_out)
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)
    screen: TextIO = os.fdopen(os.dup(kept_out), "w", buffering=1, encoding="utf-8", errors="replace")
    try:
        console = make_console(screen, is_terminal)
        console.quiet = silent
        yield console
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # the log's disk may be full
                stream.flush()
        os.dup2(kept_out, 1)
        os.dup2(kept_err, 2)
        os.close(kept_out)
        os.close(kept_err)
        screen.close()


def make_console(file: TextIO | None = None, is_terminal: bool | None = None) -> Console:
    """Make a console that writes plain, unwrapped lines where nobody watches."""
    live = sys.stdout.isatty() if is_terminal is None else is_terminal
    return Console(
        file=file, force_terminal=live, width=None if live else 160, highlight=False, markup=False, soft_wrap=not live
    )


def live(console: Console, render: Callable[[], RenderableType]) -> Live:
    """Return a display that is drawn anew twice a second once it is started, and leaves nothing behind."""
    return Live(
        get_renderable=render,
        console=console,
        refresh_per_second=2,
        transient=True,
        redirect_stdout=False,  # what libraries print belongs in the log
        redirect_stderr=False,
    )


def duration(seconds: float) -> str:
    """Format seconds: ``75`` as ``1:15``, ``4000`` as ``1:06:40``."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"


def log_path(command: str) -> Path:
    """Return the log of a command that belongs to no sweep; its folder is made when missing."""
    from tutor_service import paths
    from tutor_service.errors import UserError

    folder = paths.home() / "logs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the folder '{folder}' cannot be written ({error.strerror}). Set {paths.HOME_VARIABLE} to one of yours."
        ) from error
    return folder / f"{command}.log"
