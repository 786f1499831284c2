"""Implement ``tutor train``: one student, in this process, without a sweep."""

from __future__ import annotations

import math
from typing import Annotated, Any

import typer

from tune_sweeps.cli.options import AddressOption, JsonOption, SetOption, TaskArgument

_ARGUMENTS = {
    "algorithm": "ALGORITHM",
    "task": "TASK",
    "tutor": "--tutor",
    "num_env_steps": "--steps",
}
"""Fields of a student that have an argument or an option of their own."""


def train(
    algorithm: Annotated[str, typer.Argument(help="dqn, ppo or a2c.")],
    task: TaskArgument,
    tutor: Annotated[str, typer.Option(help="A tutor's name, the path of a YAML file, or none.")] = "none",
    steps: Annotated[int | None, typer.Option(min=1, help="Env steps. Default: the task's own.")] = None,
    set_: SetOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train one student and print its evaluations: greedy, with the tutor off. Nothing is stored, unlike in a sweep.

    Examples:

    - `tutor train ppo blackjack --tutor oracle --steps 20000`

    - `tutor train dqn snake --set seed=3 --set num_envs=16 --set hyperparameters.lr=0.0005`
    """
    from rllib_plugins.tasks import load_task
    from rllib_plugins.tutors import check_recorded, check_tutor
    from tune_sweeps.cluster.tutors import tutors_up
    from tune_sweeps.console.rows import print_json
    from tune_sweeps.console.signals import interruptible
    from tune_sweeps.console.terminal import log_path, quiet
    from tune_sweeps.run.checks import check_hyperparameters

    student = _student(algorithm, task, tutor, steps, set_ or [])
    check_hyperparameters([student])
    config = check_tutor(tutor)
    tutors = [config] if config else []
    if config is not None:
        check_recorded(config, load_task(task, **student.task_options))
    from rllib_plugins.trial import train as train_student  # once nothing is wrong: it imports Ray and torch

    rows: list[dict[str, Any]] = []
    with interruptible(), quiet(log_path("train"), as_json) as screen:
        screen.print(f"{'env steps':>9}  {'greedy return':>13}  {'return':>8}  {'consulted':>9}  {'trust':>5}")

        def show(result: dict[str, Any]) -> None:
            row = _row(result)
            rows.append(row)
            screen.print(
                f"{row['env_steps']:>9,}  {row['greedy_return']:>13.4f}  {_number(row['return'], 8, 3)}  "
                f"{row['consulted']:>9,.0f}  {_number(math.nan if tutor == 'none' else row['trust'], 5, 2)}"
            )

        with tutors_up(tutors, screen.print, address, spare_cpus=1):
            train_student(student, on_result=show)
    if as_json:
        print_json(rows)


def _number(value: float, width: int, digits: int) -> str:
    """Write a number, or a dash where there is none."""
    return f"{value:>{width}.{digits}f}" if math.isfinite(value) else f"{'–':>{width}}"


def _row(result: dict[str, Any]) -> dict[str, Any]:
    """Return what is shown of one report of a trial."""
    return {
        "env_steps": result["num_env_steps_sampled_lifetime"],
        "greedy_return": result["eval/return_mean"],
        "return": result["return_mean"],
        "consulted": result.get("advice/consultations", 0),
        "trust": result.get("advice/trust", float("nan")),
    }


def _student(algorithm: str, task: str, tutor: str, steps: int | None, settings: list[str]) -> Any:
    from pydantic import ValidationError

    from rllib_plugins.algorithms.registry import ALGORITHMS
    from rllib_plugins.config import StudentConfig
    from rllib_plugins.tasks import load_task
    from tune_sweeps.definition.loading import apply_setting
    from tutor_service.errors import UserError, field_problems, unknown_name

    if algorithm not in ALGORITHMS:
        raise unknown_name("algorithm", algorithm, ALGORITHMS)
    fields: dict[str, Any] = {"algorithm": algorithm, "task": task, "tutor": tutor, "seed": 0}
    for setting in settings:
        name = setting.partition("=")[0].strip()
        if name in _ARGUMENTS:
            raise UserError(f"--set {setting}: {name} is given by {_ARGUMENTS[name]}.")
        apply_setting(fields, setting, StudentConfig)
    default = load_task(task, **fields.get("task_options", {})).num_env_steps
    fields["num_env_steps"] = steps or default
    try:
        return StudentConfig.model_validate(fields)
    except ValidationError as error:
        raise UserError(field_problems(error, StudentConfig)) from error
