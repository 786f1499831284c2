"""What thousands of trials ask of a sweep's driver: memory over time, MLflow's lag, what a restart of MLflow costs.

    .venv/bin/python -m benchmarks.driver_scale [--trials 10000] [--quick | --smoke]

Stand-in students report what students report, through the driver's own path: Tune's callback, the journal, checkpoints
on disk, the live view's lines, MLflow by a real server, and the report. Tune's own processes are left out. 200 trials
run at once, and one ends every 0.1 s, whatever MLflow takes. In the middle the server is killed and started again.

So 4,000 trials, the default, take 7 minutes by that rate alone, and 10,000 take 17.

Checks: the driver's memory after the last trial by that after the first fifth of them; the most seconds by which MLflow
lagged, the time of its restart left out; the requests by which the driver found out what a killed MLflow had kept, per
running trial. The latter two are counted and timed at MLflow's side.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from benchmarks.harness import Benchmark, benchmark_parser, sized
from tune_sweeps.console.signals import cleaned_up, cleaning_up, interruptible

NAME = "driver_scale"
MEASURES = ("tune_sweeps/run", "tune_sweeps/tracking", "tune_sweeps/storage")
EVALUATIONS = 5
READING = re.compile(r'"(GET|POST) \S*(runs/get\?|runs/search|metrics/get-history)')
"""Requests by which the driver learns what MLflow holds."""

POLICY_BYTES = 20_000
MOST_GROWTH, MOST_LAG_S, MOST_REQUESTS = 1.1, 60.0, 2.0


class Size(NamedTuple):
    """How much is run: trials in all and at once, and the seconds between two that end."""

    trials: int
    at_once: int
    every_s: float


class Server:
    """An MLflow server with a database file, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        from tests.integration.cluster.nodes import free_ports

        self.folder = folder
        self.log = folder / "server.log"
        (self.port,) = free_ports(1)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/server.db", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        while True:
            assert self.process.poll() is None, self.log.read_text()
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
                return
            except OSError:
                time.sleep(0.2)

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def reads(self) -> int:
        """How often the driver asked what is held so far."""
        with self.log.open(errors="replace") as lines:
            return sum(bool(READING.search(line)) for line in lines)


@contextmanager
def running_server(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    try:
        server.start()
        yield server
    finally:
        cleaning_up()  # a second signal must not keep it alive
        server.kill()
        cleaned_up()


def resident_mib() -> float:
    """Memory of this process that is in use now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Students:
    """Stand-ins for trials, driven one evaluation at a time through Tune's callback."""

    def __init__(self, callback: Any, folder: Path) -> None:
        self.callback = callback
        self.folder = folder

    def trial(self, key: str) -> Any:
        return SimpleNamespace(config={"trial": {"key": key}}, last_result={}, error_file=None)

    def start(self, trial: Any) -> None:
        self.callback.on_trial_start(0, [], trial)

    def evaluate(self, trial: Any, step: int) -> None:
        from rllib_plugins import metrics

        values = dict.fromkeys(metrics.ALL, float(step % 97))
        trial.last_result = {**values, metrics.STEP_AXIS: step, "time_this_iter_s": 1.0}
        self.callback.on_trial_result(0, [], trial, trial.last_result)

    def end(self, trial: Any) -> None:
        from tune_sweeps.tracking.policy_artifact import MODULE

        checkpoint = self.folder / trial.config["trial"]["key"]
        policy = checkpoint / "algorithm" / MODULE
        policy.mkdir(parents=True)
        (policy / "module_state.pkl").write_bytes(b"\0" * POLICY_BYTES)
        self.callback.on_checkpoint(0, [], trial, SimpleNamespace(path=str(checkpoint)))
        self.callback.on_trial_complete(0, [], trial)


class Seen(NamedTuple):
    """What was measured while the trials ran."""

    memory_mib: list[float]
    lags_s: list[float]
    restart_reads: int
    running: int
    reported: bool


def drive(size: Size, folder: Path, server: Server, settle_s: float) -> Seen:
    """Run all trials, restart MLflow in the middle, and report."""
    from rich.console import Console

    from tune_sweeps.definition.loading import dump_sweep, validate_sweep
    from tune_sweeps.definition.resolve import resolve
    from tune_sweeps.report.build import make_report
    from tune_sweeps.run.journal_callback import JournalCallback
    from tune_sweeps.run.progress import Progress
    from tune_sweeps.run.progress_view import View
    from tune_sweeps.storage.checkpoints import Checkpoints
    from tune_sweeps.tracking.journal import Journal
    from tune_sweeps.tracking.policy_artifact import BestPolicies
    from tune_sweeps.tracking.tracker import MlflowTracker, TrackedSweep

    fields = {
        **{"name": NAME, "algorithms": ["ppo", "a2c"], "tutors": ["oracle"], "tasks": ["blackjack"], "reuse": [True]},
        **{"num_env_steps": 1_000, "evaluation": {"interval_steps": 1_000 // (EVALUATIONS - 1)}},
    }
    resolved = resolve(validate_sweep({**fields, "seeds": max(2, size.trials // 4)}, NAME))
    trials = {trial.key: trial for trial in resolved.trials}
    journal = Journal(folder / "journal", trials)
    tracked = TrackedSweep(NAME, NAME, dump_sweep(resolved.config), trials, {}, {}, None)
    tracker = MlflowTracker(server.uri, tracked, journal, BestPolicies(Checkpoints.of_folder(folder)))
    tracker.set_references("blackjack", {"random": 0.0})
    progress = Progress(trials, journal)
    with (folder / "screen.txt").open("w") as screen:
        view = View(Console(file=screen, force_terminal=True, width=160), progress, size.at_once)
        callback = JournalCallback(journal, progress, tracker.wake, view.say, lambda path: None, max_failures=0)
        students = Students(callback, folder / "checkpoints")
        memory, lags, reads, at_restart = [], [], 0, 0
        tracker.start()
        with view:
            for number, (trial, step) in enumerate(timeline(students, list(trials), size)):
                students.evaluate(trial, step)
                if step == 1_000:
                    students.end(trial)
                if number % max(1, len(trials) * EVALUATIONS // 100) == 0:
                    memory.append(resident_mib())
                    lags.append(tracker.behind_s())
                if number == len(trials) * EVALUATIONS // 2:
                    at_restart = len(progress.running)
                    reads = restart(server, tracker, settle_s)
    assert tracker.finish("FINISHED", timeout_s=600)
    memory.append(resident_mib())
    try:
        make_report(server.uri, NAME, folder / "report")
        reported = (folder / "report" / "report.md").stat().st_size > 0
    except Exception:  # what was measured before it counts all the same
        traceback.print_exc()
        reported = False
    return Seen(memory, lags, reads, at_restart, reported)


def timeline(students: Students, keys: list[str], size: Size) -> Iterator[tuple[Any, int]]:
    """Give each evaluation of each trial at its time, ``at_once`` trials abreast."""
    waiting = iter(keys)
    running: list[tuple[Any, int]] = []
    started = time.monotonic()
    given = 0
    while True:
        while len(running) < size.at_once and (key := next(waiting, None)) is not None:
            trial = students.trial(key)
            students.start(trial)
            running.append((trial, 0))
        if not running:
            return
        trial, index = running.pop(0)
        time.sleep(max(0.0, started + given * size.every_s / EVALUATIONS - time.monotonic()))
        given += 1
        if index + 1 < EVALUATIONS:
            running.append((trial, index + 1))
        yield trial, index * 1_000 // (EVALUATIONS - 1)


def restart(server: Server, tracker: Any, settle_s: float) -> int:
    """Kill MLflow and start it again; count what the driver asks it until it has all of the points."""
    server.kill()
    deadline = time.monotonic() + settle_s
    while tracker.away_since is None and time.monotonic() < deadline:
        tracker.wake()
        time.sleep(0.1)
    before = server.reads()
    server.start()
    deadline = time.monotonic() + 600
    while (tracker.away_since is not None or tracker.behind_s()) and time.monotonic() < deadline:
        tracker.wake()
        time.sleep(0.2)
    return server.reads() - before


def main() -> int:
    """Entry point; returns the exit status."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--trials", type=int, default=4_000, help="of the full form (default: %(default)s)")
    args = parser.parse_args()
    if args.trials < 400:
        parser.error(f"--trials {args.trials}: at least 400, twice as many as run at once")
    logging.disable(logging.WARNING)
    from tune_sweeps.tracking.mlflow_client import quiet_environment

    quiet_environment()
    size = sized(args, full=Size(args.trials, 200, 0.1), quick=Size(200, 40, 0.1), smoke=Size(8, 4, 0.05))
    benchmark = Benchmark(NAME)
    with tempfile.TemporaryDirectory() as name, interruptible(), running_server(Path(name)) as server:
        seen = drive(size, Path(name), server, settle_s=60.0)
    fifth = seen.memory_mib[len(seen.memory_mib) // 5]
    benchmark.record("size", size._asdict())
    benchmark.record("memory_mib", seen.memory_mib)
    benchmark.record("lags_s", seen.lags_s)
    benchmark.record("restart_requests", seen.restart_reads)
    benchmark.check("memory_growth", seen.memory_mib[-1] / fifth, MOST_GROWTH, higher_is_better=False)
    benchmark.check("most_lag_s", max(seen.lags_s), MOST_LAG_S, higher_is_better=False)
    benchmark.check(
        "restart_requests_per_trial", seen.restart_reads / seen.running, MOST_REQUESTS, higher_is_better=False
    )
    benchmark.check("reported", float(seen.reported), 1.0)
    return benchmark.finish(args)


if __name__ == "__main__":
    sys.exit(main())
