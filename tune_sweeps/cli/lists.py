"""Implement ``tutor tutors``, ``tutor tasks`` and ``tutor presets``: what there is to choose from."""

from __future__ import annotations

from typing import Annotated

import typer


def tutors(
    address: Annotated[
        str | None, typer.Option(help="Address of a running Ray cluster, e.g. auto: shows what is deployed there.")
    ] = None,
) -> None:
    """List the tutors that ship, and with --address those that are deployed.

    A tutor of your own is a YAML file of a few lines: give its path wherever a tutor's name is asked for.
    """
    from rich.table import Table

    from tune_sweeps.console.terminal import make_console
    from tutor_service.config import catalog_names, load_tutor

    console = make_console()
    table = Table(box=None, pad_edge=False)
    for column in ("tutor", "backend", "model", "licence", "what it is"):
        table.add_column(column, overflow="fold")
    for name in catalog_names():
        tutor = load_tutor(name)
        table.add_row(name, tutor.backend, tutor.model or "–", tutor.license or "–", tutor.description)
    console.print(table)
    if address is not None:
        _deployed(address)


def _deployed(address: str) -> None:
    from rich.table import Table

    from tune_sweeps.cluster.session import ray_cluster
    from tune_sweeps.console.terminal import log_path, quiet
    from tutor_service import serving
    from tutor_service.machine import available_cores

    with quiet(log_path("tutors")) as console, ray_cluster(address, available_cores()):
        found = serving.status()
        if not found:
            console.print(f"no tutor is deployed at '{address}'")
            return
        table = Table(box=None, pad_edge=False)
        for column in ("deployed", "status", "replicas", "advice/s", "stored", "message"):
            table.add_column(column, overflow="fold")
        for item in found:
            rate = "–" if item.advice_per_s is None else f"{item.advice_per_s:.1f}"
            stored = "–" if item.stored is None else f"{item.stored:,}"
            table.add_row(item.name, item.status, str(item.replicas), rate, stored, item.message)
        console.print(table)
        holders = serving.lease_holders()
        for item in found:
            held = [f"held by {', '.join(holders[item.name])}"] if item.name in holders else []
            for line in (*held, *item.notes, *item.health()):
                console.print(f"{item.name}: {line}", style="dim", markup=False)


def tasks() -> None:
    """List the tasks that ship.

    A task of your own is a class of ~30 lines: give it as module:object wherever a task's name is asked for.
    """
    from rich.table import Table

    from rllib_plugins.tasks import load_task, task_names
    from tune_sweeps.console.terminal import make_console
    from tune_sweeps.run.estimate import num_observations

    table = Table(box=None, pad_edge=False)
    for column in ("task", "environment", "actions", "states", "oracle", "env steps"):
        table.add_column(column, overflow="fold")
    for name in task_names():
        task = load_task(name)
        observations = num_observations(task)
        table.add_row(
            name,
            task.env_id,
            ", ".join(task.actions),
            f"{observations:,}" if observations and observations < 10**9 else "many",
            "yes" if task.has_oracle else "no",
            f"{task.num_env_steps:,}",
        )
    make_console().print(table)


def presets() -> None:
    """List the sweeps that ship: `tutor sweep NAME` runs one, with --dry-run it only shows what would run."""
    from rich.table import Table

    from tune_sweeps.console.terminal import make_console
    from tune_sweeps.definition.loading import load_sweep, preset_names

    table = Table(box=None, pad_edge=False)
    for column in ("preset", "what it is"):
        table.add_column(column, overflow="fold")
    for name in preset_names():
        table.add_row(name, load_sweep(name).description)
    make_console().print(table)
