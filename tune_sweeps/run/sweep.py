"""Run a sweep: Ray, the tutors it needs, Tune over what is missing, the journal and MLflow.

These meet here alone, in their order, and none of them outlives the sweep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tune_sweeps.cluster.session import local_cpus, ray_cluster
from tune_sweeps.cluster.tutors import deployed
from tune_sweeps.console.json_logs import bind
from tune_sweeps.console.signals import cleaned_up, cleaning_up
from tune_sweeps.definition.loading import dump_sweep
from tune_sweeps.definition.resolve import ResolvedSweep
from tune_sweeps.run.estimate import concurrency
from tune_sweeps.run.legal_mass import find_doubts
from tune_sweeps.run.own_play import Played, Playing, as_record, play_tutors, with_level
from tune_sweeps.run.progress import Progress
from tune_sweeps.run.progress_view import View
from tune_sweeps.run.references import reference_returns
from tune_sweeps.run.tutor_watch import TutorWatch
from tune_sweeps.run.uses import uses_line
from tune_sweeps.run.workspace import Workspace
from tune_sweeps.tracking.journal import EVAL, Journal
from tune_sweeps.tracking.mlflow_client import artifact_location
from tune_sweeps.tracking.policy_artifact import BestPolicies
from tune_sweeps.tracking.provenance import run_tags, tutor_tags
from tune_sweeps.tracking.tracker import DOUBTS_ARTIFACT, OWN_PLAY_ARTIFACT, MlflowTracker, TrackedSweep
from tutor_service import serving
from tutor_service.client import service_url
from tutor_service.errors import UserError
from tutor_service.recorded import write_answers
from tutor_service.serving import nodes_on_demand
from tutor_service.store import StoreError

if TYPE_CHECKING:
    from tune_sweeps.run.journal_callback import JournalCallback

ADVICE_FOLDER = "advice"
"""Where the advice that a sweep used is kept: in the sweep's folder, and of its parent run's artifacts."""

_MLFLOW_AT_END_S = 60.0
_MLFLOW_AT_INTERRUPT_S = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a sweep ended.

    Attributes:
        done: Trials finished, of all times.
        failed: Trials that failed more often than they may.
        total: Trials of the sweep.
        interrupted: Whether the user ended it.
        in_mlflow: Whether MLflow has everything.
        parent_id: MLflow's parent run; empty where MLflow was never reached.
        unwritten: Why the newest results are not on the disk, and are lost now; empty where all are.
    """

    done: int
    failed: int
    total: int
    interrupted: bool
    in_mlflow: bool
    parent_id: str
    unwritten: str


def run_sweep(
    resolved: ResolvedSweep,
    workspace: Workspace,
    console: Console,
    *,
    uri: str,
    address: str | None = None,
    student_class: Callable[[], Any] | None = None,
    num_cpus: int | None = None,
) -> Outcome:
    """Run what is missing of a sweep, until it is finished or interrupted.

    Args:
        resolved: The sweep.
        workspace: Its folder; the caller holds its lock.
        console: Where the user looks.
        uri: MLflow's tracking URI.
        address: Address of a running Ray; None: start a local one.
        student_class: Returns the trainable, once Ray may be imported; None: ``rllib_plugins.trial.StudentTrial``.
        num_cpus: Ray CPUs of a local Ray; None: as many as there are cores.

    Raises:
        UserError: Ray or a tutor cannot start.
    """
    bind(sweep=workspace.name)
    trials = {trial.key: trial for trial in resolved.trials}
    journal = workspace.journal(list(trials))
    tracked = TrackedSweep(
        name=workspace.name,
        sweep_id=workspace.sweep_id,
        config_yaml=dump_sweep(resolved.config),
        trials=trials,
        tags=run_tags(),
        trial_tags={key: tutor_tags(resolved.tutors.get(trial.cell.asks)) for key, trial in trials.items()},
        artifact_location=artifact_location(workspace.results.folder, uri),
    )
    tracker = MlflowTracker(uri, tracked, journal, BestPolicies(workspace.checkpoints))
    running = _Running(resolved, workspace, console, journal, tracker, student_class or _student_trial)
    interrupted = False
    status, timeout_s = "FAILED", _MLFLOW_AT_INTERRUPT_S
    tracker.start()
    try:
        if journal.missing():
            _run_missing(running, address, num_cpus)
            cleaned_up()  # Ray is put away; what follows may take a while, and Ctrl-C ends it
            _keep_advice(running)
        for name, task in resolved.tasks.items():  # those that nobody has computed beside the trials
            if not tracker.knows_references(name):
                tracker.set_references(name, reference_returns(task, oracle=_wants_oracle(resolved)))
        status, timeout_s = ("FAILED" if journal.count("failed") else "FINISHED"), _MLFLOW_AT_END_S
    except KeyboardInterrupt:
        interrupted, status = True, "KILLED"
    finally:
        cleaning_up()
        unwritten = "" if journal.flush() else journal.blocked
        in_mlflow = tracker.finish("FAILED" if unwritten and not interrupted else status, timeout_s)
        journal.close()
        cleaned_up()
    return Outcome(
        done=journal.count("done"),
        failed=journal.count("failed"),
        total=len(trials),
        interrupted=interrupted,
        in_mlflow=in_mlflow,
        parent_id=tracker.parent_id,
        unwritten=unwritten,
    )


@dataclass(frozen=True)
class _Running:
    """What the steps of a run share."""

    resolved: ResolvedSweep
    workspace: Workspace
    console: Console
    journal: Journal
    tracker: MlflowTracker
    student_class: Callable[[], Any]


def _keep_advice(running: _Running) -> None:
    """Write down the advice that was used, in the sweep's folder and with its parent run: anyone can rerun by it."""
    for tutor in running.resolved.tutors.values():
        rules = [task.with_hint(tutor.hint).rules for task in running.resolved.tasks.values()]
        path = running.workspace.folder / ADVICE_FOLDER / f"{tutor.name}.jsonl"
        try:
            if write_answers(tutor, rules, path):
                running.tracker.keep_file(path, ADVICE_FOLDER)
        except (UserError, StoreError) as error:
            running.console.print(f"the advice of '{tutor.name}' is not kept with the sweep: {error}")


def _run_missing(running: _Running, address: str | None, num_cpus: int | None) -> None:
    resolved, console, journal, tracker = running.resolved, running.console, running.journal, running.tracker
    cpus = num_cpus or local_cpus(resolved.tutor_cpus + resolved.trial_cpus)
    console.print("connecting to Ray" if address else "starting a local Ray")
    tutors = list(resolved.tutors.values())
    with ray_cluster(address, cpus) as cluster, deployed(tutors, cluster, console.print):
        _check_runners_fit(resolved, cluster.cpus)
        _play_references(resolved, tracker)
        missing = journal.missing()
        if missing:
            _doubt_tutors(resolved, tracker, console)
        played = _play_tutors(running) if missing else {}
        concurrent = concurrency(resolved, len(missing), cluster.cpus, nodes_on_demand())
        console.print(uses_line(resolved.trials), markup=False)
        progress = Progress({trial.key: trial for trial in resolved.trials}, journal)
        console.print(f"running {len(missing)} of {len(resolved.trials)} trials, {concurrent} at once")
        watched = [] if service_url() else [tutor.name for tutor in tutors if tutor.is_served]
        watch = TutorWatch(watched, serving.status)
        with watch, View(console, progress, concurrent, lambda: _warning(running), watch.lines) as view:
            _tune(running, progress, view, concurrent, played)
        for line in watch.lines():
            console.print(line, markup=False)


def _check_runners_fit(resolved: ResolvedSweep, cpus: float) -> None:
    """Refuse trials that would wait for their EnvRunners' CPUs for ever.

    Raises:
        UserError: A trial's EnvRunners do not fit into the cluster beside the tutors.
    """
    if resolved.num_env_runners and resolved.trial_cpus + resolved.tutor_cpus > cpus and not nodes_on_demand():
        raise UserError(
            f"num_env_runners = {resolved.num_env_runners}: a trial takes {resolved.trial_cpus:g} CPUs and the tutors "
            f"{resolved.tutor_cpus:g}, and the cluster has {cpus:g}. Lower num_env_runners."
        )


def _tune(running: _Running, progress: Progress, view: View, concurrent: int, played: Played) -> None:
    from tune_sweeps.run.journal_callback import JournalCallback

    journal, max_failures = running.journal, running.resolved.config.failures.max_failures
    callback = JournalCallback(
        journal, progress, running.tracker.wake, view.say, running.workspace.mirror.save, max_failures
    )
    keys = set(journal.missing())
    while keys:
        _fit(running, callback, keys, concurrent, played)
        keys = callback.take_given_up()


def _fit(running: _Running, callback: JournalCallback, keys: set[str], concurrent: int, played: Played) -> None:
    from ray import tune

    from tune_sweeps.run.journal_callback import trial_key
    from tune_sweeps.run.trial import TRIAL, Pace, resumable

    config, journal, workspace = running.resolved.config, running.journal, running.workspace
    checkpoints = workspace.checkpoints
    specs = [
        {
            "sweep": workspace.name,
            "key": trial.key,
            "student": with_level(trial, played).model_dump(),
            "restore": journal[trial.key].last_checkpoint(checkpoints.has),
        }
        for trial in running.resolved.trials
        if trial.key in keys
    ]
    trainable = tune.with_resources(
        resumable(
            running.student_class(),
            checkpoints,
            Pace(config.failures.checkpoint_every, config.failures.checkpoint_every_s),
        ),
        lambda spec: tune.PlacementGroupFactory(
            [{"CPU": config.resources.num_cpus_per_trial}] + [{"CPU": 1.0}] * spec[TRIAL]["student"]["num_env_runners"]
        ),
    )
    tuner = tune.Tuner(
        trainable,
        param_space={TRIAL: tune.grid_search(specs)},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=concurrent,
            reuse_actors=True,
            trial_name_creator=trial_key,
            trial_dirname_creator=trial_key,
        ),
        run_config=tune.RunConfig(
            name=checkpoints.next_attempt(),
            storage_path=checkpoints.root,
            storage_filesystem=checkpoints.filesystem,
            failure_config=tune.FailureConfig(max_failures=config.failures.max_failures),
            checkpoint_config=tune.CheckpointConfig(
                num_to_keep=1,
                checkpoint_score_attribute=EVAL,
                checkpoint_at_end=True,
            ),
            callbacks=[callback],
            verbose=0,
        ),
    )
    tuner.fit()


def _student_trial() -> Any:
    from rllib_plugins.trial import StudentTrial

    return StudentTrial


def _play_references(resolved: ResolvedSweep, tracker: MlflowTracker) -> None:
    """Have references play beside the trials, since that may take a game's length times thousands."""
    import ray

    compute = ray.remote(num_cpus=0)(_references)
    students = {trial.cell.task: trial.student for trial in resolved.trials}
    for name, student in students.items():
        if not tracker.knows_references(name):
            future = compute.remote(student.task, student.task_options, _wants_oracle(resolved)).future()
            future.add_done_callback(lambda done: _keep_references(done, tracker))


def _doubt_tutors(resolved: ResolvedSweep, tracker: MlflowTracker, console: Console) -> None:
    """Say, here and in the report, which tutors put little probability on the legal actions."""
    from rllib_plugins.tasks import load_task

    students = {trial.cell.task: trial.student for trial in resolved.trials}
    tasks = [load_task(student.task, **student.task_options) for student in students.values()]
    doubts = find_doubts(resolved.tutors.values(), tasks)
    for doubt in doubts.values():
        console.print(f"warning: {doubt}", style="yellow", markup=False)
    tracker.keep_json(DOUBTS_ARTIFACT, doubts)


def _play_tutors(running: _Running) -> Played:
    """Have tutors play by themselves, and keep what they reached with the parent run."""

    def say(line: str) -> None:
        running.console.print(line, markup=False)

    config = running.resolved.config
    begun = {key for key, trial in running.journal.trials.items() if trial.attempts}
    playing = Playing(config.evaluation.tutor_episodes, config.resources.num_cpus_per_trial)
    played = play_tutors(running.resolved.trials, begun, running.workspace.own_play, playing, say)
    if played:
        running.tracker.keep_json(OWN_PLAY_ARTIFACT, as_record(played))
    return played


def _references(entry: str, options: dict[str, Any], oracle: bool) -> tuple[str, dict[str, float]]:
    from rllib_plugins.tasks import load_task

    task = load_task(entry, **options)
    return task.name, reference_returns(task, oracle=oracle)


def _keep_references(done: Any, tracker: MlflowTracker) -> None:
    if not done.cancelled() and done.exception() is None:
        tracker.set_references(*done.result())


def _wants_oracle(resolved: ResolvedSweep) -> bool:
    return resolved.config.convergence.scale == "oracle"


def _warning(running: _Running) -> str:
    if reason := running.journal.blocked:
        return f"results cannot be written ({reason}): they are kept in memory and tried again"
    if running.tracker.away_since is not None:
        return "MLflow does not answer: training goes on, its points are kept and sent later"
    return running.workspace.mirror.warning()
