"""Strikes a running sweep with one fault after the other, and checks that nothing is lost, doubled or hung.

    .venv/bin/python benchmarks/fault_drill.py [--seed N] [--only FAULT ...] [--quick] [--soak MINUTES]

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
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil
from _harness import Benchmark, add_arguments  # first: it puts the repository's root on sys.path

from benchmarks._drill import APPLICATION, TRIAL_CLASS, Stage, kill_all, say, stage, strays, wait_for

LIMIT_S = 180.0
BACK_S = 60.0
SEEDS_PER_SWEEP = 2
SWEEP_END_S = 600.0
TRIALS_PER_SEED = 8
LATEST_FRAC = 0.6
"""A sweep that is further than this is let end before the next fault: its last trials would be done too soon."""

SETTLE_S = 30.0
WHOLE_S = 2400.0
"""The drill ends itself, cleaning up, after so many seconds beside those of the soak."""
_SAMPLE_S = 10.0
_WARM_UP_FRAC = 0.25


@dataclass
class Struck:
    """What a fault hit.

    Attributes:
        victim: In words.
        needs_driver: Whether the sweep must be submitted again.
        away_s: Seconds that the fault itself goes on for, after which ``heal`` is called.
        heal: Ends the fault, where it does not end by itself.
    """

    victim: str
    needs_driver: bool = False
    away_s: float = 0.0
    heal: Callable[[], object] = lambda: None


def kill_pid(pid: int) -> None:
    """SIGKILL to one process."""
    kill_all([psutil.Process(pid)])


def trial(scene: Stage, rng: random.Random) -> Struck:
    """kill -9 of a trial, which is its EnvRunner's process too."""
    actor = rng.choice(scene.some(TRIAL_CLASS))
    kill_pid(actor["pid"])
    return Struck(f"trial, pid {actor['pid']} on {scene.node_of(actor)}")


def replica(scene: Stage, rng: random.Random) -> Struck:
    """kill -9 of a tutor's replica."""
    actor = rng.choice(scene.some("TutorReplica"))
    kill_pid(actor["pid"])
    return Struck(f"replica, pid {actor['pid']} on {scene.node_of(actor)}")


def engine(scene: Stage, rng: random.Random) -> Struck:
    """kill -9 of the vLLM process below a replica."""
    actor = rng.choice(scene.some("TutorReplica"))
    children = psutil.Process(actor["pid"]).children(recursive=True)
    largest = max(children, key=lambda process: process.memory_info().rss)
    kill_all([largest])
    return Struck(f"engine process, pid {largest.pid} of replica {actor['pid']}")


def gateway(scene: Stage, rng: random.Random) -> Struck:
    """kill -9 of the gateway."""
    actor = rng.choice(scene.some("TutorGateway"))
    kill_pid(actor["pid"])
    return Struck(f"gateway, pid {actor['pid']}")


def controller(scene: Stage, rng: random.Random) -> Struck:
    """kill -9 of Serve's controller."""
    actor = rng.choice(scene.some("SERVE_CONTROLLER"))
    kill_pid(actor["pid"])

    def heal() -> None:
        """The tutor answers meanwhile; what counts is that the next controller takes it over."""
        wait_for(lambda: scene.serve_runs(without=actor["pid"]), LIMIT_S, "the next controller")

    return Struck(f"Serve controller, pid {actor['pid']}", heal=heal)


def tutor_node(scene: Stage, rng: random.Random) -> Struck:
    """Power loss of the node that holds the tutor; another one joins."""
    name = scene.node_of(rng.choice(scene.some("TutorReplica")))
    scene.nodes.kill(name)
    return Struck(f"node {name}", heal=scene.add_tutor_node)


def student_node(scene: Stage, rng: random.Random) -> Struck:
    """Power loss of a node with trials; another one joins."""
    name = scene.node_of(rng.choice(scene.some(TRIAL_CLASS)))
    scene.nodes.kill(name)
    return Struck(f"node {name}", heal=scene.add_student_node)


def mlflow(scene: Stage, rng: random.Random) -> Struck:
    """kill -9 of the MLflow server, which is away for a while."""
    scene.mlflow.kill()
    return Struck("MLflow server", away_s=20.0, heal=scene.mlflow.start)


def driver(scene: Stage, rng: random.Random) -> Struck:
    """kill -9 of the sweep's driver; the sweep is submitted again."""
    processes = scene.drivers()
    kill_all(processes)
    return Struck(f"driver, pid {', '.join(str(process.pid) for process in processes)}", needs_driver=True)


def partition(scene: Stage, rng: random.Random) -> Struck:
    """A node with trials is off the network for as long as Ray needs to give it up; then it is back."""
    name = scene.node_of(rng.choice(scene.some(TRIAL_CLASS)))
    stack = ExitStack()
    how = stack.enter_context(scene.nodes.cut_off(name))

    def heal() -> None:
        stack.close()
        # A raylet that finds itself given up ends; what stands for the machine starts it again.
        scene.nodes.kill(name)
        scene.add_student_node()

    return Struck(f"node {name}, {how}", away_s=45.0, heal=heal)


FAULTS: dict[str, Callable[[Stage, random.Random], Struck]] = {
    "trial": trial,
    "replica": replica,
    "engine": engine,
    "gateway": gateway,
    "controller": controller,
    "student_node": student_node,
    "mlflow": mlflow,
    "driver": driver,
    "tutor_node": tutor_node,
    "partition": partition,
}
"""Every kind of fault, in the order in which they strike."""

QUICK = ("trial", "gateway", "driver")


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
    """

    def __init__(self, scene: Stage, rng: random.Random) -> None:
        self.scene = scene
        self.rng = rng
        self.current = ""

    def strike(self, name: str) -> Outcome:
        """One fault, from a sweep that runs to one that runs again."""
        scene = self.scene
        outcome = Outcome(name, "nobody", math.nan, math.nan)
        try:
            self._ready()
            struck_at = time.monotonic()
            hit = FAULTS[name](scene, self.rng)
            before = scene.running(self.current)
            outcome.victim = hit.victim
            say(f"{name}: {hit.victim}")
            if hit.away_s:
                time.sleep(hit.away_s)
            hit.heal()
            if hit.needs_driver:
                wait_for(lambda: scene.job_ended(self.current), LIMIT_S, "the end of the driver's job")
                scene.submit(self.current, list(range(SEEDS_PER_SWEEP)))
            wait_for(scene.tutor_answers, LIMIT_S, "the tutor")
            outcome.tutor_s = time.monotonic() - struck_at
            wait_for(lambda: self._progressed(before), LIMIT_S, "trials")
            outcome.trials_s = time.monotonic() - struck_at
        except (TimeoutError, RuntimeError) as error:  # the latter from a node that does not come up again
            outcome.hung = str(error)
        waited = "the tutor answers after {:.0f} s, all trials go on after {:.0f} s"
        say(f"{name}: {outcome.hung or waited.format(outcome.tutor_s, outcome.trials_s)}")
        return outcome

    def _ready(self) -> None:
        """Waits for a tutor that answers and a sweep with enough left to do; submits one where there is none."""
        wait_for(self.scene.tutor_answers, LIMIT_S, "the tutor, before the fault")
        wait_for(self._under_way, LIMIT_S, "a sweep under way")

    def _under_way(self) -> bool:
        scene = self.scene
        if not self.current or scene.job_ended(self.current):
            self.current = f"drill-{len(scene.sweeps) + 1}"
            say(f"submitting sweep '{self.current}'")
            scene.submit(self.current, list(range(SEEDS_PER_SWEEP)))
        if len(scene.finished(self.current)) > LATEST_FRAC * SEEDS_PER_SWEEP * TRIALS_PER_SEED:
            say(f"letting sweep '{self.current}' end")
            wait_for(lambda: scene.job_ended(self.current), SWEEP_END_S, "the sweep's end")
            return False
        return any(count >= 1 for count in scene.running(self.current).values()) and bool(scene.actors(TRIAL_CLASS))

    def _progressed(self, before: dict[str, int]) -> bool:
        now, ended = self.scene.running(self.current), self.scene.finished(self.current)
        return all(key in ended or now.get(key, -1) > count for key, count in before.items())


def check_results(scene: Stage, benchmark: Benchmark) -> None:
    """No finished trial lost, none doubled in MLflow, misses counted; over all sweeps of the drill."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(scene.mlflow.uri)
    trials = lost = doubled = gaps = 0
    missed = 0.0
    for sweep in scene.sweeps:
        points = scene.points(sweep)
        ended = scene.finished(sweep)
        trials += len(points)
        lost += sum(ended.get(key) != "done" for key in points)
        experiment = client.get_experiment_by_name(sweep)
        runs = client.search_runs([experiment.experiment_id], max_results=1000) if experiment else []
        children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
        lost += max(0, len(points) - sum(run.info.status == "FINISHED" for run in children))
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


def check_leaks(scene: Stage, benchmark: Benchmark) -> None:
    """No application but the tutor's, no driver, no half-written file."""
    benchmark.check("leaked_applications", len(set(scene.applications()) - {APPLICATION}), 0, higher_is_better=False)
    try:
        wait_for(lambda: not scene.leftovers(), SETTLE_S, "the end of trials, drivers and engines")
    except TimeoutError as error:
        say(str(error))
    benchmark.record("leftovers", scene.leftovers())
    benchmark.check("leaked_processes", len(scene.leftovers()), 0, higher_is_better=False)
    stray = [path for pattern in (".nodes-*", ".writable-*", "*.part") for path in scene.results.rglob(pattern)]
    benchmark.check("leaked_files", len(stray), 0, higher_is_better=False)


class Memory:
    """Resident memory of the processes that live as long as the cluster, over time.

    Args:
        scene: Where to look.
    """

    def __init__(self, scene: Stage) -> None:
        self.scene = scene
        self.samples: dict[str, list[tuple[float, float]]] = {}

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Takes samples for the time of the block, faults and recoveries included."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(_SAMPLE_S):
                self._sample()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _sample(self) -> None:
        head = self.scene.nodes.nodes["head"].processes()
        server = self.scene.mlflow.process
        if server is not None:
            head += psutil.Process(server.pid).children(recursive=True)
        for process in head:
            try:
                name = f"{process.name()} {process.pid}"
                self.samples.setdefault(name, []).append((time.monotonic(), process.memory_info().rss / 2**20))
            except psutil.NoSuchProcess:
                continue

    def growth_mib(self, least_s: float) -> dict[str, dict[str, float]]:
        """By process that lived for at least ``least_s``: growth over that time by least squares, and its noise.

        The first quarter is warm-up. The noise is three standard errors of the slope over the same time, and at least
        5 % of the mean: an allocator's own steps.
        """
        import numpy as np
        from scipy import stats

        found = {}
        for name, series in self.samples.items():
            times, sizes = np.array(series).T
            if times[-1] - times[0] < least_s:
                continue
            kept = times >= times[0] + _WARM_UP_FRAC * (times[-1] - times[0])
            fit = stats.linregress(times[kept], sizes[kept])
            span = times[kept][-1] - times[kept][0]
            noise = max(3 * fit.stderr * span, 0.05 * float(sizes[kept].mean()))
            found[name] = {"growth_mib": fit.slope * span, "noise_mib": noise, "mean_mib": float(sizes[kept].mean())}
        return found


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--seed", type=int, default=0, help="draws the victims")
    parser.add_argument("--only", nargs="+", choices=list(FAULTS), help="these faults alone")
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES", help="go on with a fault every minute")
    parser.add_argument("--folder", type=Path, help="keep results and logs there (default: a temporary folder)")
    args = parser.parse_args()
    names = args.only or list(QUICK if args.quick else FAULTS)
    signal.signal(signal.SIGALRM, _too_long)
    signal.signal(signal.SIGTERM, _too_long)
    signal.alarm(math.ceil(WHOLE_S + 60 * args.soak))
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
    drill = Drill(scene, random.Random(args.seed))
    memory = Memory(scene)
    if args.soak:
        with memory.watched():
            outcomes = soak(drill, args.soak, names)
    else:
        outcomes = [drill.strike(name) for name in names]
    say("waiting for the sweep's end")
    hung = sum(bool(outcome.hung) for outcome in outcomes)
    try:
        wait_for(lambda: scene.job_ended(drill.current), SWEEP_END_S, "the last sweep")
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
    check_results(scene, benchmark)
    check_leaks(scene, benchmark)
    if args.soak:
        growth = memory.growth_mib(0.5 * args.soak * 60)
        benchmark.record("memory", growth)
        grown = [name for name, item in growth.items() if item["growth_mib"] > item["noise_mib"]]
        say(f"processes that grew: {', '.join(grown) or 'none'}")
        benchmark.check("processes_watched", len(growth), 1)
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
