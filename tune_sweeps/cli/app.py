"""The command ``tutor``: registers the commands, and turns mistakes into one line. Light: heavy imports come later."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from tune_sweeps.cli import ask, grade, lists, play, report, serve, store, submit, sweep, train, ui
from tune_sweeps.console.signals import EXIT_INTERRUPTED
from tutor_service.errors import UserError

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
for module in (sweep, report, ui, ask, grade, train, play, serve, store, submit, lists):
    module.register(app)


def main() -> None:
    """Entry point of ``tutor``: a mistake of the user's ends in one red line and status 2, without traceback."""
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
    """Says what is wrong on standard error, in one line, and ends the program."""
    text = " ".join(message.split())
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("error:", style="bold red", end=" ")
    console.print(text, markup=False)
    sys.exit(EXIT_USER_ERROR)
