"""Implement ``tutor tutors``, ``tutor tasks`` and ``tutor presets``: what there is to choose from."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tune_sweeps.cli.options import JsonOption

_MANY = 10**9


def tutors(
    address: Annotated[
        str | None, typer.Option(help="Address of a running Ray cluster, e.g. auto: list what is deployed there.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the tutors that ship, or with --address those that are deployed.

    A tutor of your own is a YAML file of a few lines: give its path wherever a tutor's name is asked for. `none` stands
    for no tutor, `oracle+random:0.25` for the oracle that plays at random with probability 0.25.
    """
    from tune_sweeps.console.rows import print_rows
    from tune_sweeps.console.terminal import make_console
    from tutor_service.tutor_files import catalog_names, load_tutor

    if address is not None:
        _deployed(address, as_json)
        return
    rows = [
        {
            "tutor": name,
            "backend": tutor.backend,
            "model": tutor.model,
            "licence": tutor.license,
            "what it is": tutor.description,
        }
        for name, tutor in ((name, load_tutor(name)) for name in catalog_names())
    ]
    print_rows(make_console(), rows, as_json=as_json)


def _deployed(address: str, as_json: bool) -> None:
    from tune_sweeps.cluster.session import ray_cluster
    from tune_sweeps.console.rows import print_rows
    from tune_sweeps.console.terminal import log_path, make_console, quiet
    from tutor_service import serving
    from tutor_service.machine import available_cores

    with quiet(log_path("tutors")), ray_cluster(address, available_cores()):
        found = serving.status()
        holders = serving.lease_holders() if found else {}
    console = make_console()
    if not found and not as_json:
        console.print(f"no tutor is deployed at '{address}'")
        return
    rows: list[dict[str, Any]] = [
        {
            "deployed": item.name,
            "status": item.status,
            "replicas": item.replicas,
            "advice/s": item.advice_per_s,
            "stored": item.stored,
            "held by": holders.get(item.name, []),
            "message": item.message,
        }
        for item in found
    ]
    print_rows(console, rows, as_json=as_json)
    for item in [] if as_json else found:
        for line in (*item.notes, *item.health()):
            console.print(f"{item.name}: {line}", style="dim", markup=False)


def tasks(as_json: JsonOption = False) -> None:
    """List the tasks that ship.

    A task of your own is a class of about 30 lines: give it as module:object wherever a task's name is asked for.
    """
    from rllib_plugins.tasks import load_task, task_names
    from tune_sweeps.console.rows import print_rows
    from tune_sweeps.console.terminal import make_console
    from tune_sweeps.run.estimate import num_observations

    rows = []
    for name in task_names():
        task = load_task(name)
        states = num_observations(task)
        rows.append(
            {
                "task": name,
                "environment": task.env_id,
                "actions": list(task.actions),
                "states": states if states and states < _MANY else None if as_json else "many",
                "oracle": task.has_oracle,
                "env steps": task.num_env_steps,
            }
        )
    print_rows(make_console(), rows, as_json=as_json)


def presets(as_json: JsonOption = False) -> None:
    """List the sweeps that ship. `tutor sweep NAME` runs one; with --dry-run it only shows what would run."""
    from tune_sweeps.console.rows import print_rows
    from tune_sweeps.console.terminal import make_console
    from tune_sweeps.definition.loading import load_sweep, preset_names

    rows = [{"preset": name, "what it is": load_sweep(name).description} for name in preset_names()]
    print_rows(make_console(), rows, as_json=as_json)
