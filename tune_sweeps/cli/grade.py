"""Implement ``tutor grade``: a tutor's report card, before a sweep is spent on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tune_sweeps.cli.options import AddressOption, ResultsOption, TaskArgument, TutorArgument

if TYPE_CHECKING:
    from rllib_plugins.grading import ReportCard

EXPERIMENT = "grades"


def grade(
    tutor: TutorArgument,
    task: TaskArgument,
    num_states: Annotated[int, typer.Option(min=1, help="Visits of states to grade.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Draws the states.")] = 0,
    results: ResultsOption = Path("runs"),
    address: AddressOption = None,
) -> None:
    """Grade a tutor on states that students visit: against the oracle and against the best constant answer.

    The card goes to MLflow, experiment 'grades'.

    Example: `tutor grade smollm2 blackjack`
    """
    from rllib_plugins.grading import grade as grade_tutor
    from rllib_plugins.grading import render, write_figure
    from rllib_plugins.tasks import load_task
    from rllib_plugins.tutors import check_recorded, check_tutor, make_advisor
    from tune_sweeps.cluster.tutors import tutors_up
    from tune_sweeps.console.signals import interruptible
    from tune_sweeps.console.terminal import log_path, make_console, quiet
    from tune_sweeps.run.workspace import check_writable
    from tune_sweeps.tracking.mlflow_client import check_uri, tracking_uri
    from tutor_service.client import connect
    from tutor_service.errors import UserError

    config = check_tutor(tutor)
    chosen = load_task(task)
    if config is not None:
        check_recorded(config, chosen)
    uri = tracking_uri(results)
    check_writable(results)
    check_uri(uri)
    if config is None:
        advisor = make_advisor(tutor, chosen)
        if advisor is None:
            raise UserError("tutor 'none' is nobody: there is no one to grade. See `tutor tutors`.")
        card = grade_tutor(chosen, advisor, num_states=num_states, seed=seed, name=tutor)
    else:
        with interruptible(), quiet(log_path("grade")) as screen, tutors_up([config], screen.print, address):
            screen.print(f"asking '{config.name}' about {num_states} visits, twice")
            advise = connect(config, deadline_s=600.0).advise
            card = grade_tutor(chosen, advise, num_states=num_states, seed=seed, name=config.name)
    console = make_console()
    console.print(render(card))
    results.mkdir(parents=True, exist_ok=True)
    figure = write_figure(card, results / f"grade-{card.tutor.replace('/', '_')}-{card.task}.png")
    with quiet(log_path("grade")):  # a new database tells of each of its tables
        _log(card, uri, results, figure)
    console.print(f"wrote {figure}; the card is in MLflow, experiment '{EXPERIMENT}'")


def _log(card: ReportCard, uri: str, results: Path, figure: Path) -> None:
    from mlflow.entities import Metric, Param

    from tune_sweeps.tracking.mlflow_client import artifact_location, make_client
    from tune_sweeps.tracking.provenance import run_tags

    client = make_client(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    location = artifact_location(results, uri)
    experiment_id = (
        experiment.experiment_id
        if experiment is not None
        else client.create_experiment(EXPERIMENT, artifact_location=location and f"{location}/{EXPERIMENT}")
    )
    run = client.create_run(experiment_id, run_name=f"{card.tutor} · {card.task}", tags=run_tags())
    started = run.info.start_time
    client.log_batch(
        run.info.run_id,
        metrics=[Metric(name, value, started, 0) for name, value in card.to_metrics().items()],
        params=[Param("tutor", card.tutor), Param("task", card.task)],
    )
    client.log_text(run.info.run_id, card.verdict + "\n", "verdict.txt")
    client.log_artifact(run.info.run_id, str(figure))
    client.set_terminated(run.info.run_id)
