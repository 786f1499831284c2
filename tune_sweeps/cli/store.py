"""Implement ``tutor store``: the advice that tutors have given, kept on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tune_sweeps.cli.options import JsonOption

if TYPE_CHECKING:
    from tutor_service.store import AdviceStore

NameArgument = Annotated[str | None, typer.Argument(help="Tutor whose store is meant. Default: all.")]
EXIT_DAMAGED = 1

store_app = typer.Typer(help="Advice that tutors gave and that is kept: sizes, export, check.", no_args_is_help=True)


@store_app.command("stats")
def stats(tutor: NameArgument = None, as_json: JsonOption = False) -> None:
    """How many answers are stored, and how large the stores are."""
    from tune_sweeps.console.rows import print_rows
    from tune_sweeps.console.terminal import make_console

    rows = []
    for path in _folders(tutor):
        with _open(path) as opened:
            found = opened.stats()
        size = found.file_bytes / 2**20
        rows.append({"tutor": path.name, "answers": found.answers, "size (MiB)": size, "folder": str(path)})
    print_rows(make_console(), rows, as_json=as_json)


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


@store_app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="File that `tutor store export` wrote: .parquet or .jsonl.")],
    tutor: Annotated[
        str | None, typer.Option(metavar="NAME", help="Tutor whose store takes them. Default: the file's name.")
    ] = None,
) -> None:
    """Take exported answers into a tutor's store: what another machine paid for is not evaluated again here.

    An answer that is there already stays. Answers without a key, and those of another model or way of asking, are kept
    but found by no live tutor. To have a sweep use a file and nothing else, give its path in place of a tutor's name.

    Example: `tutor store import advice.jsonl --tutor smollm2`
    """
    from tune_sweeps.console.terminal import make_console
    from tutor_service import paths
    from tutor_service.config import TutorConfig, load_tutor
    from tutor_service.errors import UserError
    from tutor_service.store import AdviceStore
    from tutor_service.store.reading import read_export

    name = tutor or load_tutor(str(file)).name
    if not TutorConfig.is_name(name):
        raise UserError(f"--tutor '{name}' is no tutor's name: small letters, digits, '.', '_' and '-'.")
    answers = read_export(file)
    folder = paths.advice_dir() / name
    with AdviceStore(folder) as opened:
        new = opened.put_many(answer.entry for answer in answers)
    keyless = sum(answer.key is None for answer in answers)
    make_console().print(
        f"{len(answers):,} answers read, {new:,} of them new in '{folder}'"
        + (f"; {keyless:,} have no key: no live tutor will find them" if keyless else "")
    )


@store_app.command("merge")
def merge(
    target: Annotated[Path, typer.Argument(help="File to write: .parquet or .jsonl.")],
    files: Annotated[list[Path], typer.Argument(help="Exported files, the most trusted first.")],
) -> None:
    """Put exported files together into one. Of two answers to the same question the first one counts.

    Example: `tutor store merge all.jsonl monday.jsonl tuesday.jsonl`
    """
    from tune_sweeps.console.terminal import make_console
    from tutor_service.store.export import write_export
    from tutor_service.store.reading import merge_exports

    merged = merge_exports(files)
    count = write_export(merged.entries, target)
    make_console().print(
        f"wrote {count:,} answers to {target}"
        + (f"; {merged.conflicts:,} were left out: an earlier file answers otherwise" if merged.conflicts else "")
    )


@store_app.command("verify")
def verify(tutor: NameArgument = None) -> None:
    """Read every answer and check it; status 1 where one is damaged. Such an answer is never used: it is asked anew."""
    from tune_sweeps.console.counting import counting
    from tune_sweeps.console.terminal import make_console

    console = make_console()
    damaged = 0
    for path in _folders(tutor):
        with _open(path) as opened, counting(console, "reading", f"{path.name}: read {{}} answers") as count:
            count.expect(opened.stats().answers)
            found = opened.verify(count.advance)
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
