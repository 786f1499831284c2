"""Register the subcommands of ``tutor``, and turn a user's mistake into one line."""

from __future__ import annotations

import os
import sys

import typer
from rich.console import Console

from tune_sweeps.cli import (
    ask,
    audition,
    compare,
    doctor,
    grade,
    init,
    lists,
    play,
    report,
    serve,
    store,
    submit,
    sweep,
    train,
    ui,
)
from tune_sweeps.console.signals import EXIT_INTERRUPTED
from tutor_service.errors import UserError
from tutor_service.proxies import spare_loopback

EXIT_USER_ERROR = 2

app = typer.Typer(
    name="tutor",
    help="Reinforcement learning with LLM tutors, on Ray.\n\nTry `tutor sweep demo`, then `tutor ui`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    *(
        sweep.sweep,
        report.report,
        compare.compare,
        ui.ui,
        ask.ask,
        grade.grade,
        audition.audition,
        train.train,
        play.play,
    ),
    *(serve.serve, submit.submit, lists.tutors, lists.tasks, lists.presets),
    *(init.init, doctor.doctor),
):
    app.command()(command)
app.add_typer(store.store_app, name="store")
app.add_typer(submit.jobs_app, name="jobs")


def main() -> None:
    """Run ``tutor``: a mistake of the user's ends in one red line and status 2, without traceback."""
    spare_loopback(os.environ)
    try:
        status = app(standalone_mode=False)
    except UserError as error:
        fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        if not hasattr(error, "format_message"):  # what the parser raises: its class is private to typer
            raise
        fail(f"{error.format_message().rstrip('.')}. See --help.")
    sys.exit(status if isinstance(status, int) else 0)


def fail(message: str) -> None:
    """Print what is wrong on standard error, in one line, and end the program."""
    text = " ".join(message.split())
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("error:", style="bold red", end=" ")
    console.print(text, markup=False)
    sys.exit(EXIT_USER_ERROR)
