"""Implement ``tutor init``: commented starts of one's own tasks, tutors, sweeps and rules."""

from __future__ import annotations

from typing import Annotated

import typer


def init(
    kind: Annotated[str, typer.Argument(help="What to begin: task, tutor, sweep or rule.")],
    name: Annotated[str, typer.Argument(help="Its name, and that of the files, which are written to this folder.")],
) -> None:
    """Write a commented start that works: a task, a tutor, a sweep, or a rule that says when a student asks.

    Tasks and rules come with a test. The file is loaded once, as a sweep would load it.

    Example: `tutor init task maze`
    """
    from tune_sweeps.console.terminal import make_console
    from tune_sweeps.run.scaffolds import write_start

    written = write_start(kind, name)
    console = make_console()
    for path in written.files:
        console.print(f"wrote {path}")
    console.print(f"next: {written.next}")
