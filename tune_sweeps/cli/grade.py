"""Implement ``tutor grade``: a tutor's report card, before a sweep is spent on it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from tune_sweeps.cli.options import AddressOption, JsonOption, ResultsOption, TaskArgument, TutorArgument

if TYPE_CHECKING:
    from rllib_plugins.audition import Played

EXPERIMENT = "grades"


def grade(
    tutor: TutorArgument,
    task: TaskArgument,
    num_states: Annotated[int, typer.Option(min=1, max=100_000, help="Visited states to grade.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Seed that draws the states.")] = 0,
    results: ResultsOption = "runs",
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Grade a tutor on states that students visit: against the oracle and against the best constant answer.

    Then the tutor plays by itself, read as its file says, beside random play and the task's trivial players. The report
    card goes to MLflow, experiment 'grades'.

    Example: `tutor grade smollm2 blackjack`
    """
    from rllib_plugins.advising.llm import Reading
    from rllib_plugins.audition import Answers, Asking, Way, play_beside
    from rllib_plugins.audition.view import returns_table
    from rllib_plugins.grading import grade as grade_tutor
    from rllib_plugins.grading import render, write_figure
    from rllib_plugins.tasks import load_task
    from rllib_plugins.tutors import check_recorded, check_tutor, make_advisor
    from tune_sweeps.cluster.tutors import tutors_up
    from tune_sweeps.console.asking import asking
    from tune_sweeps.console.rows import print_json
    from tune_sweeps.console.signals import interruptible
    from tune_sweeps.console.terminal import log_path, make_console, quiet
    from tune_sweeps.run.workspace import check_writable
    from tune_sweeps.storage.results import open_results
    from tune_sweeps.tracking.mlflow_client import check_uri, tracking_uri
    from tune_sweeps.tracking.single_run import SingleRun, log_run
    from tutor_service.client import connect
    from tutor_service.errors import UserError

    config = check_tutor(tutor)
    chosen = load_task(task)
    if config is not None:
        chosen = chosen.with_hint(config.hint)
        check_recorded(config, chosen)
    place = open_results(results)
    uri = tracking_uri(place)
    check_writable(place)
    check_uri(uri)
    played: Played | None
    if config is None:
        advisor = make_advisor(tutor, chosen)
        if advisor is None:
            raise UserError("tutor 'none' is nobody: there is no one to grade. See `tutor tutors`.")
        card = grade_tutor(chosen, advisor, num_states=num_states, seed=seed, name=tutor)
        played = play_beside(chosen, lambda states: advisor.ask(states).probabilities, tutor, seed)
    else:
        way = Way(Asking(config.decoding, "none"), config.calibration, config.advice)
        with interruptible(), quiet(log_path("grade"), as_json) as screen, tutors_up([config], screen.print, address):
            client = connect(config, deadline_s=600.0)
            with asking(screen, client.advise) as ask:
                card = grade_tutor(
                    *(chosen, ask),
                    reading=Reading.of(config),
                    num_states=num_states,
                    seed=seed,
                    name=config.name,
                )
                played = None
                if card.answered:
                    policy = Answers(chosen, ask).policy(way, config.temperature)
                    played = play_beside(chosen, policy, config.name, seed)
                else:
                    card = replace(card, missed_because=client.stats.last_error)
    console = make_console()
    console.quiet = as_json
    console.print(render(card))
    if config is not None and card.legal_mass is not None and (doubt := config.doubt(card.legal_mass)):
        console.print(f"warning: {doubt}", style="yellow", markup=False)
    if played is not None:
        console.print(returns_table(played))
    place.folder.mkdir(parents=True, exist_ok=True)
    figure = write_figure(card, place.folder / f"grade-{card.tutor.replace('/', '_')}-{card.task}.png")
    metrics = card.to_metrics() | (played.to_metrics() if played else {})
    run = SingleRun(
        experiment=EXPERIMENT,
        name=f"{card.tutor} · {card.task}",
        params={"tutor": card.tutor, "task": card.task},
        metrics=metrics,
        texts={"verdict.txt": card.verdict + "\n"},
        files=[figure],
    )
    with quiet(log_path("grade")):  # a new database tells of each of its tables
        log_run(run, uri, place.folder)
    place.publish(figure)
    shown = place.shown(figure)
    console.print(f"wrote {shown}; the card is in MLflow, experiment '{EXPERIMENT}'")
    if as_json:
        print_json({"tutor": card.tutor, "task": card.task, "verdict": card.verdict, **metrics, "figure": shown})
