"""Implement ``tutor store``: the advice that tutors have given, kept on this machine or in a shared database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tune_sweeps.cli.options import JsonOption

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tutor_service.config import TutorConfig
    from tutor_service.store import Entry, Store

_STORE = "Tutor whose store is meant, by name or file, or postgresql://user@host/database."
NameArgument = Annotated[str | None, typer.Argument(metavar="[STORE]", help=f"{_STORE} Default: all on this machine.")]
EXIT_DAMAGED = 1

store_app = typer.Typer(help="Show, export, import, merge and check stored advice.", no_args_is_help=True)


@store_app.command("stats")
def stats(tutor: NameArgument = None, as_json: JsonOption = False) -> None:
    """Show how many answers are stored, and how large the stores are."""
    from tune_sweeps.console.rows import print_rows
    from tune_sweeps.console.terminal import make_console

    rows = []
    for name, store in _stores(tutor):
        with store as opened:
            found = opened.stats()
        size = found.file_bytes / 2**20
        rows.append({"tutor": name, "answers": found.answers, "size (MiB)": size, "place": found.place})
    print_rows(make_console(), rows, as_json=as_json)


@store_app.command("export")
def export(
    tutor: Annotated[str, typer.Argument(metavar="STORE", help=_STORE)],
    file: Annotated[Path, typer.Argument(help="File to write: .parquet or .jsonl.")],
) -> None:
    """Write all answers with their questions to a file.

    Example: `tutor store export smollm2 advice.parquet`
    """
    from tune_sweeps.console.terminal import make_console

    ((_, store),) = _stores(tutor)
    with store as opened:
        count = opened.export(file)
    make_console().print(f"wrote {count:,} answers to {file}")


@store_app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="File that `tutor store export` wrote: .parquet or .jsonl.")],
    tutor: Annotated[
        str | None,
        typer.Option(metavar="STORE", help=f"{_STORE} Default: the tutor of the file's name."),
    ] = None,
) -> None:
    """Take exported answers into a tutor's store, so that what another machine paid for is not evaluated again here.

    Answers that are there already stay. Answers without a key, and those of another model or way of asking, are kept,
    but no live tutor finds them. To have a sweep use a file and nothing else, give its path in place of a tutor's name.

    Example: `tutor store import advice.jsonl --tutor smollm2`
    """
    from tune_sweeps.console.terminal import make_console
    from tutor_service.store.reading import read_export
    from tutor_service.tutor_files import load_tutor

    answers = read_export(file)
    with _writable(tutor or load_tutor(str(file)).name) as opened:
        new = opened.put_many(answer.entry for answer in answers)
        place = opened.place
    keyless = sum(answer.key is None for answer in answers)
    make_console().print(
        f"{len(answers):,} answers read, {new:,} of them new in '{place}'"
        + (f"; {keyless:,} have no key: no live tutor will find them" if keyless else "")
    )


@store_app.command("merge")
def merge(
    target: Annotated[str, typer.Argument(help="File to write (.parquet or .jsonl), or a database to add to.")],
    sources: Annotated[list[str], typer.Argument(help="Exported files or databases, the most trusted first.")],
) -> None:
    """Merge exported files into one. Where two answer the same question, the first one counts.

    A database (postgresql://user@host/database) may stand in place of a file; the answers that it holds already stay.

    Example: `tutor store merge all.jsonl monday.jsonl tuesday.jsonl`
    """
    from tune_sweeps.console.terminal import make_console
    from tutor_service.store.export import write_export
    from tutor_service.store.reading import merged

    found = merged(_entries(source) for source in sources)
    if _is_address(target):
        with _writable(target) as opened:
            count = opened.put_many(found.entries)
    else:
        count = write_export(found.entries, Path(target))
    make_console().print(
        f"wrote {count:,} answers to {target}"
        + (f"; {found.conflicts:,} were left out: an earlier source answers otherwise" if found.conflicts else "")
    )


@store_app.command("verify")
def verify(tutor: NameArgument = None) -> None:
    """Check every answer; the status is 1 if one is damaged. A damaged answer is never used: it is asked for again."""
    from tune_sweeps.console.counting import counting
    from tune_sweeps.console.terminal import make_console

    console = make_console()
    damaged = 0
    for name, store in _stores(tutor):
        with store as opened, counting(console, "reading", f"{name}: read {{}} answers") as count:
            count.expect(opened.stats().answers)
            found = opened.verify(count.advance)
        damaged += len(found.damaged)
        console.print(f"{name}: {found.answers:,} answers, {len(found.damaged)} damaged")
        for key, flaw in found.damaged:
            console.print(f"  {key.hex()}: {flaw}")
    if damaged:
        raise typer.Exit(EXIT_DAMAGED)


def _is_address(name: str) -> bool:
    return "://" in name


def _tutor(name: str) -> TutorConfig:
    """Return the tutor of a file or a name, or one whose store is at an address."""
    from pydantic import ValidationError

    from tutor_service.config import StoreConfig, TutorConfig
    from tutor_service.errors import UserError, field_problems
    from tutor_service.tutor_files import load_tutor
    from tutor_service.yaml_files import is_yaml

    if _is_address(name):
        try:
            return TutorConfig.model_validate({"name": "any", "store": StoreConfig(location=name)})
        except ValidationError as error:
            raise UserError(f"{field_problems(error, prefix='store')}.") from None
    if is_yaml(name):
        return load_tutor(name)
    if not TutorConfig.is_name(name):
        raise UserError(f"'{name}' is no tutor's name: small letters, digits, '.', '_' and '-'.")
    return TutorConfig.model_validate({"name": name})


def _stores(tutor: str | None) -> Iterator[tuple[str, Store]]:
    """Open stores for reading, one after the other, by the names that they are shown under."""
    from tutor_service import paths
    from tutor_service.errors import UserError, unknown_name
    from tutor_service.store import AdviceStore
    from tutor_service.store.opening import open_named
    from tutor_service.yaml_files import is_yaml

    if tutor is not None and (_is_address(tutor) or is_yaml(tutor)):
        yield tutor, open_named(_tutor(tutor), readonly=True)
        return
    folder = paths.advice_dir()
    found = sorted(path.parent for path in folder.glob("*/data.mdb"))
    if not found:
        raise UserError(f"no advice is stored in '{folder}' yet: `tutor ask smollm2 blackjack` stores the first.")
    if tutor is not None and tutor not in [path.name for path in found]:
        raise unknown_name("advice store", tutor, [path.name for path in found])
    for path in found:
        if tutor in (None, path.name):
            yield path.name, AdviceStore(path, readonly=True)


def _writable(name: str) -> Store:
    from tutor_service.store.opening import open_named

    return open_named(_tutor(name), readonly=False)


def _entries(source: str) -> Iterable[Entry]:
    """Return the answers of a file or a database."""
    from tutor_service.store.reading import read_export

    if not _is_address(source):
        return (answer.entry for answer in read_export(Path(source)))
    ((_, store),) = _stores(source)
    with store as opened:
        return list(opened.entries())
