"""Implement ``tutor sweep``: plan a grid of trials, run it, go on with it, add seeds to it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

import typer

from tune_sweeps.cli.options import AddressOption, ResultsOption, SetOption, takes
from tune_sweeps.cli.ui import where_to_look

if TYPE_CHECKING:
    from rich.console import Console

    from tune_sweeps.definition.config import SweepConfig
    from tune_sweeps.definition.resolve import ResolvedSweep
    from tune_sweeps.report.results import Analysis
    from tune_sweeps.run.workspace import Choice, Workspace
    from tune_sweeps.storage.results import Results

EXIT_TRIALS_FAILED = EXIT_UNWRITTEN = 1
PRESET_FOR_TASKS = "small"
"""Whose algorithms, tutors and seeds a sweep has that names tasks alone."""


@dataclass(frozen=True)
class SweepOptions:
    """The options of ``tutor sweep``."""

    preset: Annotated[
        str | None,
        typer.Argument(help="A preset (see `tutor presets`) or the path of a YAML file; with --more-seeds, a sweep."),
    ] = None
    resume: Annotated[
        str | None, typer.Option(metavar="NAME", help="Finish what a sweep lacks; nothing finished is repeated.")
    ] = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run, and run nothing.")] = False
    set_: SetOption = None
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="NAME", help="Fork a sweep: run it with other settings, under another name."),
    ] = None
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK", help="Tasks in place of the preset's: by name, or your own as module:object."),
    ] = None
    more_seeds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Add N seeds to a sweep; p-values are corrected for that.")
    ] = None
    until_decided: Annotated[
        bool,
        typer.Option("--until-decided", help="Add seeds to undecided cells, up to statistics.max_seeds (default 20)."),
    ] = False
    name: Annotated[
        str | None, typer.Option(help="Name of the sweep: its folder and MLflow experiment. Default: the preset's.")
    ] = None
    address: AddressOption = None
    results: ResultsOption = "runs"
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: print JSON in place of tables.")] = False

    @cached_property
    def place(self) -> Results:
        """What ``results`` names."""
        from tune_sweeps.storage.results import open_results

        return open_results(self.results)


@takes(SweepOptions)
def sweep(options: SweepOptions) -> None:
    """Run a grid of trials: algorithm × tutor × task × reuse, untutored baselines beside them, × seeds.

    Ctrl-C stops cleanly. Running the sweep again, or --resume NAME, finishes what is missing, also after a crash.

    Examples:

    - `tutor sweep demo` – minutes on a laptop: an LLM and an oracle tutor three algorithms on CartPole

    - `tutor sweep laptop54 --dry-run` – cells, trials, env steps, LLM evaluations and time, before you commit to them

    - `tutor sweep demo --set seeds=5 --set 'tutors=[smollm2,my_tutor.yaml]' --name mine`

    - `tutor sweep --task examples.frozen_lake:FrozenLakeTask` – a task of your own, students and tutors as in `small`

    - `tutor sweep mine --more-seeds 5`

    - `tutor sweep demo --set seeds=5 --until-decided --name sure`

    - `tutor sweep --resume mine`

    - `tutor sweep --from mine --set advice.theta_frac=0.5` – as mine, except for that; `tutor compare` shows both
    """
    from tune_sweeps.console.terminal import make_console
    from tune_sweeps.definition.resolve import resolve
    from tutor_service.errors import UserError

    console = make_console()
    if options.as_json and not options.dry_run:
        raise UserError("--json goes with --dry-run; `tutor report NAME --json` prints the results of a sweep.")
    choice = _choose(options)
    resolved = resolve(choice.config)
    if choice.note and not options.as_json:
        console.print(choice.note)
    if options.dry_run:
        _show_estimate(console, resolved, options)
        return
    _run(console, resolved, choice.existing, options)


def _choose(options: SweepOptions) -> Choice:
    """Find the sweep that is meant, and check it."""
    from tune_sweeps.definition.loading import with_more_seeds
    from tune_sweeps.definition.resolve import resolve
    from tune_sweeps.run.checks import check_hyperparameters
    from tune_sweeps.run.workspace import Choice, choose, existing_workspace, open_workspace
    from tutor_service.errors import UserError

    others = [options.set_, options.task, options.name, options.from_]
    if options.resume is not None:
        if options.preset is not None or options.more_seeds or any(others):
            raise UserError(
                "--resume takes the sweep as it was begun: leave out the preset, --set, --task, --name, "
                "--from and --more-seeds."
            )
        workspace = existing_workspace(options.place, options.resume)
        return Choice(workspace.config(), workspace)
    if options.more_seeds is not None:
        if options.preset is None or any(others):
            raise UserError("--more-seeds takes the name of a sweep, and no --set, --task, --name or --from.")
        workspace = existing_workspace(options.place, options.preset)
        config = with_more_seeds(workspace.config(), options.more_seeds)
        added = ", ".join(map(str, config.extensions[-1].seeds))
        return Choice(config, workspace, f"'{workspace.name}' gets the seeds {added} more")
    existing = open_workspace(options.place, options.preset or "")
    if options.until_decided and existing is not None and not any(others):
        return Choice(existing.config(), existing)
    config = _new(options) if options.from_ is None else _fork(options.from_, options)
    if options.until_decided and config.statistics.max_seeds is None:
        config = _planned(config)
    resolved = resolve(config)
    check_hyperparameters(trial.student for trial in resolved.trials)
    return choose(options.place, config, options.name, len(resolved.trials))


def _new(options: SweepOptions) -> SweepConfig:
    """Take a preset's settings, or those for tasks of the user's."""
    from tune_sweeps.definition.loading import load_sweep
    from tutor_service.errors import UserError

    if options.preset is None and not options.task:
        raise UserError("which sweep? Name a preset, e.g. `tutor sweep demo`, a --task, or --resume NAME.")
    settings = [*_only_tasks(options.task), *(options.set_ or [])]
    config = load_sweep(PRESET_FOR_TASKS if options.preset is None else options.preset, settings)
    return _named_by_tasks(config) if options.preset is None and config.name == PRESET_FOR_TASKS else config


def _fork(name: str, options: SweepOptions) -> SweepConfig:
    """Take another sweep's settings, except for some, under the next free number of its name where no name is given."""
    from tune_sweeps.definition.loading import continued, forked
    from tune_sweeps.run.workspace import existing_workspace
    from tutor_service.errors import UserError

    if options.preset is not None:
        raise UserError(f"--from '{name}' and '{options.preset}': a sweep is forked from one. Leave one of them out.")
    old = existing_workspace(options.place, name).config()
    config = forked(old, [*_only_tasks(options.task), *(options.set_ or [])])
    config = config.model_copy(update={"name": name, "numbered": True})
    if options.name is None and continued(old, config) is not None:
        raise UserError(
            f"--from '{name}': that is the same sweep, seeds apart. Change something with --set, add seeds to it by "
            f"`tutor sweep {name} --more-seeds N`, or give the fork a --name."
        )
    return config


def _planned(config: SweepConfig) -> SweepConfig:
    """Fix the largest number of seeds before the first look, which decides what each look may spend."""
    from tune_sweeps.report.growth import MAX_SEEDS

    most = max(MAX_SEEDS, len(config.first_seeds))
    return config.model_copy(update={"statistics": config.statistics.model_copy(update={"max_seeds": most})})


def _only_tasks(tasks: list[str] | None) -> list[str]:
    """Write the settings by which tasks take the place of a preset's, whose env steps are for its own tasks."""
    return [f"tasks=[{', '.join(map(repr, tasks))}]", "num_env_steps=null"] if tasks else []


def _named_by_tasks(config: SweepConfig) -> SweepConfig:
    """Name a sweep after its tasks, and leave oracles out where a task has none."""
    from rllib_plugins.tasks import load_task
    from tune_sweeps.definition.config import Match
    from tune_sweeps.definition.resolve import ORACLES

    tasks = [load_task(entry) for entry in config.tasks]
    without = [task.name for task in tasks if not task.has_oracle]
    left_out = [Match(tutor=[t for t in ORACLES if t in config.tutors], task=without)] if without else []
    name = "-".join(task.name for task in tasks)
    return config.model_copy(update={"name": name, "description": "", "exclude": [*config.exclude, *left_out]})


def _show_estimate(console: Console, resolved: ResolvedSweep, options: SweepOptions) -> None:
    from tune_sweeps.cluster.session import local_cpus
    from tune_sweeps.console.rows import print_json
    from tune_sweeps.run.estimate import estimate
    from tune_sweeps.run.estimate_view import estimate_lines, estimate_values
    from tune_sweeps.run.speeds import known_speeds

    cpus = local_cpus(resolved.tutor_cpus + resolved.trial_cpus)
    needed = estimate(resolved, cpus, known_speeds(options.place.folder))
    if options.as_json:
        print_json(estimate_values(resolved, needed))
        return
    for line in estimate_lines(resolved, needed, cpus):
        console.print(line)


def _run(console: Console, resolved: ResolvedSweep, workspace: Workspace | None, options: SweepOptions) -> None:
    from tune_sweeps.cluster.session import wanted_address
    from tune_sweeps.definition.resolve import resolve
    from tune_sweeps.run.checks import check_machine
    from tune_sweeps.run.estimate import concurrency
    from tune_sweeps.run.workspace import create_workspace
    from tune_sweeps.tracking.mlflow_client import tracking_uri
    from tutor_service.machine import available_cores
    from tutor_service.ray_probe import check_ray_address

    results = options.place
    keys = [trial.key for trial in resolved.trials]
    done = workspace is not None and workspace.is_sent() and not workspace.journal(keys).missing()
    if workspace is not None and done and not options.until_decided:
        console.print(
            f"sweep '{workspace.name}' is finished: {len(keys)} of {len(keys)} trials, nothing to run. "
            f"`tutor report {workspace.name}{results.option}` shows it; another --name runs it anew."
        )
        return
    uri = tracking_uri(results)
    address = wanted_address(options.address)
    if address is not None:
        check_ray_address(address)
    concurrent = concurrency(resolved, len(keys), available_cores())
    memory_mib = resolved.config.resources.memory_mib_per_trial * (1 + resolved.num_env_runners)
    check_machine(results, uri, concurrent, memory_mib, local=address is None)
    workspace = workspace or create_workspace(results, resolved.config)
    with workspace.held(console.print):
        while True:
            if resolved.config != workspace.config():
                workspace.set_config(resolved.config)
            analysis = _run_locked(resolved, workspace, uri, address)
            longer = _longer(console, analysis) if options.until_decided and analysis is not None else None
            if longer is None:
                return
            resolved = resolve(longer)


def _longer(console: Console, analysis: Analysis) -> SweepConfig | None:
    """Add seeds to the cells that are not decided yet; None where all are, or no seeds are left."""
    from tune_sweeps.report.growth import grown

    undecided, longer = analysis.undecided(), grown(analysis)
    if longer is not None:
        added = ", ".join(map(str, longer.extensions[-1].seeds))
        console.print(f"{len(undecided)} cells are undecided: they get the seeds {added} more")
    elif undecided:
        console.print(f"{len(undecided)} cells are undecided, and no seeds are left: raise statistics.max_seeds")
    else:
        console.print("all cells are decided")
    return longer


def _run_locked(resolved: ResolvedSweep, workspace: Workspace, uri: str, address: str | None) -> Analysis | None:
    import traceback

    from tune_sweeps.console.signals import EXIT_INTERRUPTED, interruptible
    from tune_sweeps.console.terminal import quiet
    from tune_sweeps.run.sweep import run_sweep
    from tutor_service.errors import UserError

    with interruptible(), quiet(workspace.log) as console:
        console.print(f"sweep '{workspace.name}' in {workspace.shown(workspace.folder)}")
        again = f"tutor sweep --resume {workspace.name}{workspace.results.option}"
        workspace.set_sent(False)  # it may have been finished before it got more seeds, and this run may be killed
        try:
            outcome = run_sweep(resolved, workspace, console, uri=uri, address=address)
        except UserError:
            raise
        except Exception as error:  # Ray has as many ways to die as versions
            with suppress(OSError):  # the log's disk may be full
                traceback.print_exc()
            raise UserError(
                f"the sweep broke off ({type(error).__name__}); details are in {workspace.shown(workspace.log)}. "
                f"Finished trials are kept: go on with: {again}"
            ) from error
        workspace.set_sent(outcome.in_mlflow and outcome.done == outcome.total and not outcome.unwritten)
        if outcome.unwritten:
            console.print(
                f"results could not be written ({outcome.unwritten}), and the newest are lost. Free space, then go on "
                f"with: {again}"
            )
        if not outcome.in_mlflow:
            console.print(f"MLflow does not have everything yet; what it misses is kept, and is sent by: {again}")
        if outcome.interrupted:
            console.print(f"stopped: {outcome.done} of {outcome.total} trials are finished. Go on with: {again}")
            raise typer.Exit(EXIT_INTERRUPTED)
        if outcome.failed:
            console.print(
                f"{outcome.failed} of {outcome.total} trials failed; why is in {workspace.shown(workspace.log)}. "
                f"Try them again with: {again}"
            )
            raise typer.Exit(EXIT_TRIALS_FAILED)
        if outcome.unwritten:
            raise typer.Exit(EXIT_UNWRITTEN)
        console.print(f"finished: {outcome.done} of {outcome.total} trials")
        return _report(workspace, uri, console) if outcome.in_mlflow else None


def _report(workspace: Workspace, uri: str, console: Console) -> Analysis:
    """Report on a sweep that has just finished, and say what to do next."""
    from tune_sweeps.report.build import make_report, show

    analysis, files = make_report(uri, workspace.name, workspace.report)
    show(analysis, console)
    curves = next((path for path in files if path.name == "learning_curves.png"), None)
    shown = workspace.shown
    console.print(
        f"report: {shown(files[0])} · page: {shown(files[1])}"
        + (f" · learning curves: {shown(curves)}" if curves else "")
    )
    if page := where_to_look(analysis.sweep, uri, workspace.results):
        console.print(page)
    return analysis
