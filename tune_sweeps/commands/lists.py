"""``tutor tutors``, ``tutor tasks`` and ``tutor presets``: what there is to choose from."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("tutors")(tutors)
    app.command("tasks")(tasks)
    app.command("presets")(presets)


def tutors() -> None:
    """List the tutors that ship, and those that are deployed.

    A tutor of your own is a YAML file of a few lines: give its path wherever a tutor's name is asked for.
    """
    from rich.table import Table

    from tune_sweeps.terminal import make_console
    from tutor_service.config import catalog_names, load_tutor

    console = make_console()
    table = Table(box=None, pad_edge=False)
    for column in ("tutor", "backend", "model", "licence", "what it is"):
        table.add_column(column, overflow="fold")
    for name in catalog_names():
        tutor = load_tutor(name)
        table.add_row(name, tutor.backend, tutor.model or "–", tutor.license or "–", tutor.description)
    console.print(table)


def tasks() -> None:
    """List the tasks that ship.

    A task of your own is a class of ~30 lines: give it as module:object wherever a task's name is asked for.
    """
    from rich.table import Table

    from rllib_plugins.tasks import load_task, task_names
    from tune_sweeps.plan import num_observations
    from tune_sweeps.resolve import has_oracle
    from tune_sweeps.terminal import make_console

    table = Table(box=None, pad_edge=False)
    for column in ("task", "environment", "actions", "observations", "oracle", "env steps"):
        table.add_column(column, overflow="fold")
    for name in task_names():
        task = load_task(name)
        observations = num_observations(task)
        table.add_row(
            name,
            task.env_id,
            ", ".join(task.actions),
            f"{observations:,}" if observations and observations < 10**9 else "many",
            "yes" if has_oracle(task) else "no",
            f"{task.num_env_steps:,}",
        )
    make_console().print(table)


def presets() -> None:
    """List the sweeps that ship: `tutor sweep NAME` runs one, with --dry-run it only shows what would run."""
    from rich.table import Table

    from tune_sweeps.loading import load_sweep, preset_names
    from tune_sweeps.terminal import make_console

    table = Table(box=None, pad_edge=False)
    for column in ("preset", "what it is"):
        table.add_column(column, overflow="fold")
    for name in preset_names():
        table.add_row(name, load_sweep(name).description)
    make_console().print(table)
