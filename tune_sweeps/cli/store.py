"""``tutor store``: the advice that tutors have given, kept on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tutor_service.store import AdviceStore

NameArgument = Annotated[str | None, typer.Argument(help="Tutor whose store is meant. Default: all.")]
EXIT_DAMAGED = 1

store_app = typer.Typer(help="Advice that tutors gave and that is kept: sizes, export, check.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.add_typer(store_app, name="store")


@store_app.command("stats")
def stats(tutor: NameArgument = None) -> None:
    """How many answers are stored, and how large the stores are."""
    from rich.table import Table

    from tune_sweeps.console.terminal import make_console

    table = Table(box=None, pad_edge=False)
    for column in ("tutor", "answers", "size", "folder"):
        table.add_column(column, justify="right" if column in {"answers", "size"} else "left")
    for path in _folders(tutor):
        with _open(path) as opened:
            found = opened.stats()
        table.add_row(path.name, f"{found.answers:,}", f"{found.file_bytes / 2**20:.1f} MiB", str(path))
    make_console().print(table)


@store_app.command("export")
def export(
    tutor: Annotated[str, typer.Argument(help="Tutor whose store is exported.")],
    file: Annotated[Path, typer.Argument(help="File to write: .parquet or .jsonl.")],
) -> None:
    """Write all answers with their questions to a file.

    Example: `tutor store export smollm2 advice.parquet`
    """
    from tune_sweeps.console.terminal import make_console

    (path,) = _folders(tutor)
    with _open(path) as opened:
        count = opened.export(file)
    make_console().print(f"wrote {count:,} answers to {file}")


@store_app.command("verify")
def verify(tutor: NameArgument = None) -> None:
    """Read every answer and check it; status 1 where one is damaged. Such an answer is never used: it is asked anew."""
    from tune_sweeps.console.terminal import make_console

    console = make_console()
    damaged = 0
    for path in _folders(tutor):
        with _open(path) as opened:
            found = opened.verify()
        damaged += len(found.damaged)
        console.print(f"{path.name}: {found.answers:,} answers, {len(found.damaged)} damaged")
        for key, flaw in found.damaged:
            console.print(f"  {key.hex()}: {flaw}")
    if damaged:
        raise typer.Exit(EXIT_DAMAGED)


def _folders(tutor: str | None) -> list[Path]:
    from tutor_service import paths
    from tutor_service.errors import UserError, unknown_name

    folder = paths.advice_dir()
    found = sorted(path.parent for path in folder.glob("*/data.mdb"))
    if not found:
        raise UserError(f"no advice is stored in '{folder}' yet: `tutor ask smollm2 blackjack` stores the first.")
    if tutor is None:
        return found
    if tutor not in [path.name for path in found]:
        raise unknown_name("advice store", tutor, [path.name for path in found])
    return [folder / tutor]


def _open(path: Path) -> AdviceStore:
    from tutor_service.store import AdviceStore

    return AdviceStore(path, readonly=True)
