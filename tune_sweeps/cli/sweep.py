"""``tutor sweep``: plan a grid of trials, run it, go on with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from tune_sweeps.definition.resolve import ResolvedSweep
    from tune_sweeps.run.workspace import Workspace

EXIT_TRIALS_FAILED = 1
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a field; dotted keys, YAML values. May be repeated."),
]
ResultsOption = Annotated[Path, typer.Option(help="Folder of all sweeps and of MLflow's database.")]
AddressOption = Annotated[
    str | None, typer.Option(help="Address of a running Ray cluster. Default: $RAY_ADDRESS, else a local Ray.")
]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("sweep")(sweep)


def sweep(
    preset: Annotated[
        str | None, typer.Argument(help="A preset (see `tutor presets`) or the path of a YAML file.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="NAME", help="Finish what is missing of a sweep; repeats nothing finished.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run, and run nothing.")] = False,
    set_: SetOption = None,
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK", help="Tasks in place of the preset's: by name, or your own as module:object."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the sweep: its folder and MLflow experiment. Default: the preset's.")
    ] = None,
    address: AddressOption = None,
    results: ResultsOption = Path("runs"),
) -> None:
    """Run a grid of trials: algorithm × tutor × task × reuse, untutored baselines beside them, × seeds.

    Ctrl-C stops cleanly; running it again, or --resume NAME, finishes what is missing, also after a crash.

    Examples:

    - `tutor sweep demo` – minutes on a laptop: an LLM and an oracle tutor three algorithms on Blackjack

    - `tutor sweep laptop54 --dry-run` – cells, trials, env steps, LLM evaluations and time, before you commit to them

    - `tutor sweep demo --set seeds=5 --set 'tutors=[smollm2,my_tutor.yaml]' --name mine`

    - `tutor sweep demo --task examples.frozen_lake:FrozenLakeTask --name lake` – a task of your own

    - `tutor sweep --resume mine`
    """
    from tune_sweeps.console.terminal import make_console
    from tune_sweeps.definition.loading import load_sweep
    from tune_sweeps.definition.resolve import resolve
    from tune_sweeps.run.checks import check_hyperparameters
    from tune_sweeps.run.workspace import choose, existing_workspace
    from tutor_service.errors import UserError

    console = make_console()
    workspace: Workspace | None
    if resume is not None:
        if preset is not None or set_ or task or name is not None:
            raise UserError("--resume takes the sweep as it was begun: leave out the preset, --set, --task and --name.")
        workspace = existing_workspace(results, resume)
        resolved = resolve(workspace.config())
    elif preset is None:
        raise UserError("which sweep? Name a preset, e.g. `tutor sweep demo`, or --resume NAME.")
    else:
        resolved = resolve(load_sweep(preset, [*_only_tasks(task), *(set_ or [])]))
        check_hyperparameters(trial.student for trial in resolved.trials)
        choice = choose(results, resolved.config, name, len(resolved.trials))
        resolved = resolve(choice.config)
        workspace = choice.existing
        if choice.note:
            console.print(choice.note)
    if dry_run:
        _show_plan(console, resolved, results)
        return
    _run(console, resolved, workspace, address, results)


def _only_tasks(tasks: list[str] | None) -> list[str]:
    """The settings by which tasks take the place of a preset's, whose env steps are for its own tasks."""
    return [f"tasks=[{', '.join(map(repr, tasks))}]", "num_env_steps=null"] if tasks else []


def _show_plan(console: Console, resolved: ResolvedSweep, results: Path) -> None:
    from tune_sweeps.cluster.session import local_cpus
    from tune_sweeps.run.estimate import make_plan
    from tune_sweeps.run.estimate_view import plan_lines
    from tune_sweeps.run.speeds import known_speeds

    cpus = local_cpus(resolved.tutor_cpus + resolved.config.resources.num_cpus_per_trial)
    speeds = known_speeds(results)
    for line in plan_lines(resolved, make_plan(resolved, cpus, speeds), cpus):
        console.print(line)


def _run(
    console: Console, resolved: ResolvedSweep, workspace: Workspace | None, address: str | None, results: Path
) -> None:
    from filelock import Timeout

    from tune_sweeps.cluster.probe import check_ray_address
    from tune_sweeps.cluster.session import local_cores, wanted_address
    from tune_sweeps.run.checks import check_machine
    from tune_sweeps.run.estimate import concurrency
    from tune_sweeps.run.workspace import create_workspace, results_option
    from tune_sweeps.tracking.mlflow_client import tracking_uri
    from tutor_service.errors import UserError

    keys = [trial.key for trial in resolved.trials]
    if workspace is not None and workspace.is_sent() and not workspace.journal(keys).missing():
        console.print(
            f"sweep '{workspace.name}' is finished: {len(keys)} of {len(keys)} trials, nothing to run. "
            f"`tutor report {workspace.name}{results_option(results)}` shows it; another --name runs it anew."
        )
        return
    uri = tracking_uri(results)
    address = wanted_address(address)
    if address is not None:
        check_ray_address(address)
    concurrent = concurrency(resolved.config.resources, len(keys), local_cores(), resolved.tutor_cpus)
    check_machine(results, uri, concurrent, resolved.config.resources.memory_mib_per_trial, local=address is None)
    workspace = workspace or create_workspace(results, resolved.config)
    try:
        lock = workspace.lock()
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"sweep '{workspace.name}' is running in another process. Wait for it, or give this one another --name."
        ) from None
    with lock:
        _run_locked(resolved, workspace, uri, address)


def _run_locked(resolved: ResolvedSweep, workspace: Workspace, uri: str, address: str | None) -> None:
    import traceback

    from tune_sweeps.console.signals import EXIT_INTERRUPTED, interruptible
    from tune_sweeps.console.terminal import quiet
    from tune_sweeps.run.sweep import run_sweep
    from tune_sweeps.run.workspace import results_option
    from tutor_service.errors import UserError

    with interruptible(), quiet(workspace.log) as console:
        console.print(f"sweep '{workspace.name}' in {workspace.folder}")
        again = f"tutor sweep --resume {workspace.name}{results_option(workspace.results)}"
        try:
            outcome = run_sweep(resolved, workspace, console, uri=uri, address=address)
        except UserError:
            raise
        except Exception as error:  # Ray has as many ways to die as versions
            traceback.print_exc()
            raise UserError(
                f"the sweep broke off ({type(error).__name__}); details are in {workspace.log}. Finished trials are "
                f"kept: go on with: {again}"
            ) from error
        workspace.set_sent(outcome.in_mlflow and outcome.done == outcome.total)
        if not outcome.in_mlflow:
            console.print(f"MLflow does not have everything yet; what it misses is kept, and is sent by: {again}")
        if outcome.interrupted:
            console.print(f"stopped: {outcome.done} of {outcome.total} trials are finished. Go on with: {again}")
            raise typer.Exit(EXIT_INTERRUPTED)
        if outcome.failed:
            console.print(
                f"{outcome.failed} of {outcome.total} trials failed; why is in {workspace.log}. "
                f"Try them again with: {again}"
            )
            raise typer.Exit(EXIT_TRIALS_FAILED)
        console.print(f"finished: {outcome.done} of {outcome.total} trials")
        if outcome.in_mlflow:
            _report(workspace, uri, console)


def _report(workspace: Workspace, uri: str, console: Console) -> None:
    """The report of a sweep that has just finished, and what to do next."""
    from tune_sweeps.report.build import make_report, show
    from tune_sweeps.run.workspace import results_option
    from tune_sweeps.tracking.mlflow_client import PAGE

    analysis, files = make_report(uri, workspace.name, workspace.report)
    show(analysis, console)
    curves = next((path for path in files if path.name == "learning_curves.png"), None)
    console.print(f"report: {files[0]}" + (f" · learning curves: {curves}" if curves else ""))
    if uri.startswith("sqlite:"):
        console.print(
            f"all runs in MLflow: tutor ui{results_option(workspace.results)}   (then open http://127.0.0.1:5000{PAGE})"
        )
