"""Implement ``tutor train``: one student, in this process, without a sweep."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tune_sweeps.cli.options import AddressOption, SetOption, TaskArgument


def train(
    algorithm: Annotated[str, typer.Argument(help="dqn, ppo or a2c.")],
    task: TaskArgument,
    tutor: Annotated[str, typer.Option(help="A tutor's name, the path of a YAML file, or none.")] = "none",
    steps: Annotated[int | None, typer.Option(min=1, help="Env steps. Default: the task's own.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    set_: SetOption = None,
    address: AddressOption = None,
) -> None:
    """Train one student and print its evaluations: greedy, with the tutor off. Nothing is kept; a sweep keeps.

    Examples:

    - `tutor train ppo blackjack --tutor oracle --steps 20000`

    - `tutor train dqn snake --set num_envs=16 --set hyperparameters.lr=0.0005`
    """
    from rllib_plugins.tasks import load_task
    from rllib_plugins.tutors import check_recorded, check_tutor
    from tune_sweeps.cluster.tutors import tutors_up
    from tune_sweeps.console.signals import interruptible
    from tune_sweeps.console.terminal import log_path, quiet
    from tune_sweeps.run.checks import check_hyperparameters

    student = _student(algorithm, task, tutor, steps, seed, set_ or [])
    check_hyperparameters([student])
    config = check_tutor(tutor)
    tutors = [config] if config else []
    if config is not None:
        check_recorded(config, load_task(task, **student.task_options))
    from rllib_plugins.trial import train as train_student  # once nothing is wrong: it imports Ray and torch

    with interruptible(), quiet(log_path("train")) as screen:
        screen.print(f"{'env steps':>9}  {'greedy return':>13}  {'return':>8}  {'consulted':>9}  {'trust':>5}")

        def show(result: dict[str, Any]) -> None:
            screen.print(
                f"{result['num_env_steps_sampled_lifetime']:>9,}  {result['eval/return_mean']:>13.4f}  "
                f"{result['return_mean']:>8.3f}  {result.get('advice/consultations', 0):>9,.0f}  "
                f"{result.get('advice/trust', float('nan')):>5.2f}"
            )

        with tutors_up(tutors, screen.print, address, spare_cpus=1):
            train_student(student, on_result=show)


def _student(algorithm: str, task: str, tutor: str, steps: int | None, seed: int, settings: list[str]) -> Any:
    from pydantic import ValidationError

    from rllib_plugins.config import ALGORITHMS, StudentConfig
    from rllib_plugins.tasks import load_task
    from tune_sweeps.definition.loading import apply_setting
    from tutor_service.errors import UserError, field_problems, unknown_name

    if algorithm not in ALGORITHMS:
        raise unknown_name("algorithm", algorithm, ALGORITHMS)
    fields: dict[str, Any] = {"algorithm": algorithm, "task": task, "tutor": tutor, "seed": seed}
    for setting in settings:
        apply_setting(fields, setting, StudentConfig)
    default = load_task(task, **fields.get("task_options", {})).num_env_steps
    fields.setdefault("num_env_steps", steps or default)
    try:
        return StudentConfig.model_validate(fields)
    except ValidationError as error:
        raise UserError(field_problems(error, StudentConfig)) from error
