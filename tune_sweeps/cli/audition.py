"""Implement ``tutor audition``: find the way of asking and reading a tutor that is worth following."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tune_sweeps.cli.options import AddressOption, JsonOption, ResultsOption, TaskArgument, TutorArgument, takes

if TYPE_CHECKING:
    from rllib_plugins.audition import Audition

EXPERIMENT = "auditions"


@dataclass(frozen=True)
class AuditionOptions:
    """The options of ``tutor audition``."""

    tutor: TutorArgument
    task: TaskArgument
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=A,B",
            help="Values to try for calibration, advice, briefing or decoding. May be repeated. Default: all, with the "
            "decoding of the tutor's file.",
        ),
    ] = None
    episodes: Annotated[
        int | None, typer.Option(min=1, help="Episodes that one way in full would take. Default: by their length.")
    ] = None
    seed: Annotated[int, typer.Option(min=0, help="Seed of the episodes.")] = 0
    results: ResultsOption = "runs"
    address: AddressOption = None
    as_json: JsonOption = False


@takes(AuditionOptions)
def audition(options: AuditionOptions) -> None:
    """Find the best way of asking and reading a tutor, by having it play in every way; write that way as a tutor file.

    No oracle is needed: ways are compared by the return of the episodes that the tutor plays, beside random play and
    the task's trivial players. Ways that fall behind are dropped early, so that all together take at most a third of
    the episodes of playing each in full. The result goes to MLflow, experiment 'auditions'.

    Examples:

    - `tutor audition qwen2.5-coder-1.5b snake`

    - `tutor audition advice.jsonl snake --set advice=best`
    """
    from rllib_plugins.audition.view import cost_table, left_out_lines, ways_table, ways_values, write_figure
    from rllib_plugins.tasks import load_task
    from rllib_plugins.tutors import check_recorded, check_tutor
    from tune_sweeps.console.rows import print_json
    from tune_sweeps.console.signals import interruptible
    from tune_sweeps.console.terminal import log_path, make_console, quiet
    from tune_sweeps.run.audition import Wanted, hold_audition, wanted_ways
    from tune_sweeps.run.workspace import check_writable
    from tune_sweeps.storage.results import open_results
    from tune_sweeps.tracking.mlflow_client import check_uri, tracking_uri
    from tutor_service.errors import UserError

    config = check_tutor(options.tutor)
    if config is None:
        raise UserError(
            f"tutor '{options.tutor}' is scripted: there is one way to ask and read it. `tutor grade` grades it."
        )
    chosen = load_task(options.task)
    check_recorded(config, chosen, several_ways=True)
    wanted = Wanted(wanted_ways(options.set_ or []), options.episodes, options.seed)
    place = open_results(options.results)
    uri = tracking_uri(place)
    check_writable(place)
    check_uri(uri)
    with interruptible(), quiet(log_path("audition"), options.as_json) as screen:
        held = hold_audition(config, chosen, wanted, options.address, screen)
    found = held.audition
    console = make_console()
    console.quiet = options.as_json
    console.print(ways_table(found))
    for line in left_out_lines(found):
        console.print(line)
    console.print(cost_table(found))
    console.print(found.verdict, style="bold")
    place.folder.mkdir(parents=True, exist_ok=True)
    path = place.folder / f"audition-{found.tutor}-{found.task}.yaml"
    path.write_text(held.tutor_file, encoding="utf-8")
    figure = write_figure(found, path.with_suffix(".png"))
    with quiet(log_path("audition")):  # a new database tells of each of its tables
        _log(found, uri, place.folder, [path, figure])
    for file in (path, figure):
        place.publish(file)
    console.print(f"wrote {path}: give it in place of the tutor's name, e.g. `tutor ask {path} {options.task}`")
    console.print(f"wrote {place.shown(figure)}; the audition is in MLflow, experiment '{EXPERIMENT}'")
    if options.as_json:
        print_json({**ways_values(found), "tutor_file": path, "figure": figure})


def _log(found: Audition, uri: str, results: Path, files: list[Path]) -> None:
    from tune_sweeps.tracking.single_run import SingleRun, log_run

    asking, calibration, advice = found.best.player
    params = {"tutor": found.tutor, "task": found.task, "calibration": calibration, "advice": advice}
    run = SingleRun(
        experiment=EXPERIMENT,
        name=f"{found.tutor} · {found.task}",
        params=params | asking._asdict(),
        metrics=found.to_metrics(),
        texts={"verdict.txt": found.verdict + "\n"},
        files=files,
    )
    log_run(run, uri, results)
