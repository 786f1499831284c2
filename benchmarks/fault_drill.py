"""Strikes a running sweep with one fault after the other, and checks that nothing is lost, doubled or hung.

    .venv/bin/python -m benchmarks.fault_drill [--seed N] [--only FAULT ...] [--quick] [--soak MINUTES]

Five real Ray nodes on this machine, a real LLM on vLLM behind Serve, MLflow, sweeps sent by ``tutor submit``. Victims
are drawn from the seed. After each fault it measures how long until the tutor answers a new state, and until every
trial that was running has made progress or ended. With ``--soak`` faults go on, one a minute, while the memory of every
long-lived process is watched.
"""

from __future__ import annotations

import argparse
import math
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from benchmarks.harness import Benchmark, benchmark_parser
from tests.integration.cluster.drill import APPLICATION, TRIAL_CLASS, Stage, say, stage, strays, wait_for
from tests.integration.cluster.faults import FAULTS, LIMIT_S, QUICK, strike
from tests.integration.cluster.memory import Memory

MEASURES = ("tutor_service", "tune_sweeps", "rllib_plugins/trial.py", "deploy")
BACK_S = 60.0
SEEDS_PER_SWEEP = 2
SOAK_S_PER_SEED = 300.0
"""Long soaks have long sweeps, since no fault strikes while one sweep ends and the next one starts."""

SEED_END_S = 300.0
TRIALS_PER_SEED = 8
LEAST_LEFT = 7
"""A sweep with fewer trials to finish is let end before the next fault: they would be done too soon."""

LONG_LIVED_S = 480.0
"""Faults come in turn, so that what one kills is there for about ten minutes before it is hit again."""

LEAST_WATCHED = 10
"""What the head alone runs for as long as the cluster lives."""

SETTLE_S = 30.0
WHOLE_S = 2400.0
"""The drill ends itself, cleaning up, after so many seconds beside twice those of the soak."""


@dataclass
class Outcome:
    """What came of a fault.

    Attributes:
        fault: Its kind.
        victim: What it hit.
        tutor_s: Seconds from the fault until the tutor answered a new state; NaN where it never did.
        trials_s: Seconds from the fault until every trial that was running had gone on or ended; NaN likewise.
        hung: What did not come back within the limit; empty where all did.
    """

    fault: str
    victim: str
    tutor_s: float
    trials_s: float
    hung: str = ""


class Drill:
    """Keeps a sweep running and strikes it.

    Args:
        scene: Where.
        rng: Draws victims.
        num_seeds: Seeds of each sweep.
    """

    def __init__(self, scene: Stage, rng: random.Random, num_seeds: int = SEEDS_PER_SWEEP) -> None:
        self.scene = scene
        self.rng = rng
        self.seeds = list(range(num_seeds))
        self.num_trials = num_seeds * TRIALS_PER_SEED
        self.current = ""

    def strike(self, name: str) -> Outcome:
        """One fault, from a sweep that runs to one that runs again."""
        scene = self.scene
        outcome = Outcome(name, "nobody", math.nan, math.nan)
        try:
            self._ready()
            hit = strike(name, scene, self.rng)
            before = scene.running(self.current)
            outcome.victim = hit.victim
            say(f"{name}: {hit.victim}")
            if hit.away_s:
                time.sleep(hit.away_s)
            hit.heal()
            if hit.needs_driver:
                wait_for(lambda: scene.job_ended(self.current), LIMIT_S, "the end of the driver's job")
                scene.submit(self.current, self.seeds)
            wait_for(scene.tutor_answers, LIMIT_S, "the tutor")
            outcome.tutor_s = time.monotonic() - hit.at_s
            wait_for(lambda: self._progressed(before), LIMIT_S, "trials")
            outcome.trials_s = time.monotonic() - hit.at_s
        except (TimeoutError, RuntimeError, subprocess.SubprocessError) as error:  # nodes and commands that fail, too
            outcome.hung = str(error)
        waited = "the tutor answers after {:.0f} s, all trials go on after {:.0f} s"
        say(f"{name}: {outcome.hung or waited.format(outcome.tutor_s, outcome.trials_s)}")
        return outcome

    def end(self) -> None:
        """Waits for the end of the sweep that runs, which may have begun just now.

        Raises:
            TimeoutError: It goes on.
        """
        wait_for(lambda: self.scene.job_ended(self.current), SEED_END_S * len(self.seeds), "the sweep's end")

    def _ready(self) -> None:
        """Waits for a tutor that answers and a sweep with enough left to do; submits one where there is none."""
        wait_for(self.scene.tutor_answers, LIMIT_S, "the tutor, before the fault")
        if self.current and self.num_trials - len(self.scene.finished(self.current)) < LEAST_LEFT:
            say(f"letting sweep '{self.current}' end")
            self.end()
        wait_for(self._under_way, LIMIT_S, "a sweep under way")

    def _under_way(self) -> bool:
        scene = self.scene
        if scene.job_ended(self.current):
            self.current = f"drill-{len(scene.sweeps) + 1}"
            say(f"submitting sweep '{self.current}'")
            scene.submit(self.current, self.seeds)
        return any(count >= 1 for count in scene.running(self.current).values()) and bool(scene.actors(TRIAL_CLASS))

    def _progressed(self, before: dict[str, int]) -> bool:
        now, ended = self.scene.running(self.current), self.scene.finished(self.current)
        return all(key in ended or now.get(key, -1) > count for key, count in before.items())


def check_results(scene: Stage, benchmark: Benchmark, num_trials: int) -> None:
    """Every sweep complete, no trial doubled in MLflow, misses counted; over all sweeps of ``num_trials`` each."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(scene.mlflow.uri)
    trials = lost = doubled = gaps = 0
    missed = 0.0
    for sweep in scene.sweeps:
        points = scene.points(sweep)
        ended = scene.finished(sweep)
        trials += len(points)
        lost += num_trials - sum(how == "done" for how in ended.values())
        experiment = client.get_experiment_by_name(sweep)
        runs = client.search_runs([experiment.experiment_id], max_results=1000) if experiment else []
        children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
        lost += max(0, num_trials - sum(run.info.status == "FINISHED" for run in children))
        doubled += max(0, len(children) - len(points)) + max(0, len(runs) - len(children) - 1)
        recorded = {
            (key, event["step"]) for key, events in points.items() for event in events if event["event"] == "result"
        }
        steps = 0
        for run in children:
            history = client.get_metric_history(run.info.run_id, "eval/return_mean")
            distinct = {item.step for item in history}
            doubled += len(history) - len(distinct)
            steps += len(distinct)
            missed += run.data.metrics.get("advice/missed", 0.0)
        gaps += abs(len(recorded) - steps)
    benchmark.record("trials", trials)
    benchmark.record("advice_missed", missed)
    benchmark.check("trials_lost", lost, 0, higher_is_better=False)
    benchmark.check("runs_or_points_doubled", doubled, 0, higher_is_better=False)
    benchmark.check("points_missing_in_mlflow", gaps, 0, higher_is_better=False)


def check_leaks(scene: Stage, benchmark: Benchmark, census: Counter[str]) -> None:
    """No application but the tutor's, no process beyond a ``census`` before the faults, no file that nobody needs."""
    benchmark.check("leaked_applications", len(set(scene.applications()) - {APPLICATION}), 0, higher_is_better=False)

    def leftovers() -> list[str]:
        return scene.leftovers() + sorted((scene.census() - census).elements())

    try:
        wait_for(lambda: not leftovers(), SETTLE_S, "the end of trials, drivers, engines and all else that came")
    except TimeoutError as error:
        say(str(error))
    left = leftovers()
    benchmark.record("leftovers", left)
    benchmark.check("leaked_processes", len(left), 0, higher_is_better=False)
    stray = [str(path) for path in scene.stray_files()]
    benchmark.record("stray_files", stray)
    benchmark.check("leaked_files", len(stray), 0, higher_is_better=False)


def soak(drill: Drill, minutes: float, names: list[str]) -> list[Outcome]:
    """A fault every minute, or as soon as the last one's victims are back where that takes longer."""
    outcomes: list[Outcome] = []
    started = time.monotonic()
    while (passed := time.monotonic() - started) < minutes * 60:
        outcomes.append(drill.strike(names[len(outcomes) % len(names)]))
        time.sleep(max(0.0, 60 - (time.monotonic() - started - passed)))
    return outcomes


def main() -> int:
    """Entry point; returns the exit status."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--seed", type=int, default=0, help="draws the victims")
    parser.add_argument("--only", nargs="+", choices=list(FAULTS), help="these faults alone")
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES", help="go on with a fault every minute")
    parser.add_argument("--folder", type=Path, help="keep results and logs there (default: a temporary folder)")
    args = parser.parse_args()
    names = args.only or list(QUICK if args.quick else FAULTS)
    signal.signal(signal.SIGALRM, _too_long)
    signal.signal(signal.SIGTERM, _too_long)
    signal.alarm(math.ceil(WHOLE_S + 2 * 60 * args.soak))
    benchmark = Benchmark("fault_drill_soak" if args.soak else "fault_drill")
    with ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="drill-")))
        with stage(folder.resolve()) as scene:
            run(scene, benchmark, args, names)
            token = scene.nodes.token
        benchmark.check("processes_left_by_the_cluster", len(strays(token)), 0, higher_is_better=False)
    return benchmark.finish(args)


def run(scene: Stage, benchmark: Benchmark, args: argparse.Namespace, names: list[str]) -> None:
    """All faults, or the soak; then what must hold."""
    num_seeds = max(SEEDS_PER_SWEEP, math.ceil(60 * args.soak / SOAK_S_PER_SEED))
    drill = Drill(scene, random.Random(args.seed), num_seeds)
    memory = Memory(scene.processes)
    census = scene.census()
    started = time.monotonic()
    if args.soak:
        with memory.watched():
            outcomes = soak(drill, args.soak, names)
        benchmark.record("s_per_fault", (time.monotonic() - started) / len(outcomes))
    else:
        outcomes = [drill.strike(name) for name in names]
    say("waiting for the sweep's end")
    hung = sum(bool(outcome.hung) for outcome in outcomes)
    try:
        drill.end()
    except TimeoutError as error:
        say(str(error))
        hung += 1
    benchmark.record("seed", args.seed)
    benchmark.record("partition", "of network namespaces" if scene.nodes.namespaces else "left out: processes stopped")
    benchmark.record("faults", [vars(outcome) for outcome in outcomes])
    kinds = len({outcome.fault for outcome in outcomes})
    benchmark.check("kinds_of_fault", kinds, min(len(names), int(args.soak) or len(names)))
    benchmark.check("hung", hung, 0, higher_is_better=False)
    benchmark.check("tutor_back_s", _worst(outcomes, "tutor_s"), BACK_S, higher_is_better=False)
    benchmark.check("trials_back_s", _worst(outcomes, "trials_s"), BACK_S, higher_is_better=False)
    check_results(scene, benchmark, drill.num_trials)
    check_leaks(scene, benchmark, census)
    if args.soak:
        least_s = min(LONG_LIVED_S, 0.5 * args.soak * 60)
        growth = memory.growth_mib(least_s)
        benchmark.record("memory", growth)
        benchmark.record("memory_by_minute", memory.curves_mib(least_s))
        grown = [name for name, item in growth.items() if item["growth_mib"] > item["noise_mib"]]
        say(f"processes that grew: {', '.join(grown) or 'none'}")
        benchmark.check("processes_watched", len(growth), LEAST_WATCHED)
        benchmark.check("processes_that_grew", len(grown), 0, higher_is_better=False)


def _too_long(number: int, frame: FrameType | None) -> None:
    """Ends the drill by an exception, so that everything is put away."""
    raise SystemExit(f"[drill] ended by signal {signal.Signals(number).name}")


def _worst(outcomes: list[Outcome], name: str) -> float:
    """The longest recovery of all; an outage that the drill itself prolongs does not count."""
    times = [getattr(outcome, name) for outcome in outcomes if outcome.fault not in {"mlflow", "partition"}]
    return math.inf if any(math.isnan(item) for item in times) else max(times, default=0.0)


if __name__ == "__main__":
    sys.exit(main())
