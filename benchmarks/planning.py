"""How long a sweep of 1,000 trials takes to plan, its report to write, and a trial's evaluation to track.

The runs are made up and reach an SQLite MLflow through the sweep's own journal and tracker; the report reads them back
from there, as `tutor report` does. Students, tutors and Ray have no part in it.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import Benchmark, benchmark_parser, median, sized

MEASURES = ("tune_sweeps",)
NAME = "planning"
FIELDS = {
    "name": NAME,
    "algorithms": ["dqn", "ppo", "a2c"],
    "tutors": ["oracle", "random", "worst"],
    "tasks": ["blackjack", "snake", "connect_four"],
    "reuse": ["on", "off"],
    "num_env_steps": 40_000,
    "evaluation": {"interval_steps": 1_000},
}
CELLS = 63


def sweep(num_trials: int) -> Any:
    """A grid of 63 cells, with as many seeds as it takes for ``num_trials``."""
    from tune_sweeps.definition.loading import validate_sweep

    return validate_sweep({**FIELDS, "seeds": -(-num_trials // CELLS)}, "the benchmark's sweep")


def plan_s(num_trials: int) -> float:
    """Seconds from a sweep's fields to its plan."""
    from tune_sweeps.definition.resolve import resolve
    from tune_sweeps.run.estimate import estimate

    started = time.perf_counter()
    plan = estimate(resolve(sweep(num_trials)), cpus=64, speeds={"dqn": 500.0, "ppo": 500.0, "a2c": 500.0})
    elapsed = time.perf_counter() - started
    assert plan.num_trials >= num_trials
    return elapsed


def fill(folder: Path, uri: str, num_runs: int) -> tuple[float, float]:
    """Makes up runs and sends them to MLflow: milliseconds per evaluation in the driver and in the tracker."""
    import numpy as np

    from rllib_plugins import metrics
    from tune_sweeps.definition.loading import dump_sweep
    from tune_sweeps.definition.resolve import resolve
    from tune_sweeps.tracking.journal import Journal
    from tune_sweeps.tracking.tracker import MlflowTracker, TrackedSweep

    config = sweep(num_runs)
    trials = {trial.key: trial for trial in resolve(config).trials[:num_runs]}
    journal = Journal(folder / "journal", trials)
    tracked = TrackedSweep(
        name=NAME,
        sweep_id="benchmark",
        config_yaml=dump_sweep(config),
        trials=trials,
        tags={},
        trial_tags={},
        artifact_location=(folder / "artifacts").as_uri(),
    )
    tracker = MlflowTracker(uri, tracked, journal)
    for task in config.tasks:
        tracker.set_references(task, {"random": 0.0})
    rng = np.random.default_rng(0)
    steps = range(0, 40_001, 1_000)
    driver_s = 0.0
    for key, trial in trials.items():
        full_at = (16_000 if trial.cell.tutored else 24_000) * np.exp(0.3 * rng.standard_normal())
        journal[key].start()
        for step in steps:
            values = dict.fromkeys(metrics.ALL, float(step)) | dict.fromkeys(metrics.GAUGES, float(rng.random()))
            values["eval/return_mean"] = min(1.0, step / full_at) + 0.03 * rng.standard_normal()
            started = time.perf_counter()
            journal[key].result(step, 1.0, values)
            driver_s += time.perf_counter() - started
        journal[key].done()
    started = time.perf_counter()
    assert tracker.finish("FINISHED", timeout_s=0)
    points = len(trials) * len(steps)
    return 1e3 * driver_s / points, 1e3 * (time.perf_counter() - started) / points


def report_s(folder: Path, uri: str) -> float:
    """Seconds to read all runs, compute, draw and write."""
    from tune_sweeps.report.build import make_report

    started = time.perf_counter()
    make_report(uri, NAME, folder / "report")
    return time.perf_counter() - started


def main() -> int:
    args = benchmark_parser(__doc__).parse_args()
    logging.disable(logging.INFO)
    benchmark = Benchmark(NAME)
    num_runs = sized(args, full=1_000, quick=100, smoke=6)
    plans = [plan_s(1_000) for _ in range(1 if args.quick else 5)]
    benchmark.record("num_runs", num_runs)
    benchmark.record("plan_s", plans)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        uri = f"sqlite:///{folder}/mlflow.db"
        driver_ms, tracker_ms = fill(folder, uri, num_runs)
        report = report_s(folder, uri)
    benchmark.record("driver_ms_per_evaluation", driver_ms)
    benchmark.record("tracker_ms_per_evaluation", tracker_ms)
    benchmark.check("plan_1000_trials_s", median(plans), bar=2.0, higher_is_better=False)
    benchmark.check("report_s", report, bar=60.0, higher_is_better=False)
    benchmark.check("tracking_ms_per_trial_iteration", driver_ms + tracker_ms, bar=50.0, higher_is_better=False)
    return benchmark.finish(args)


if __name__ == "__main__":
    sys.exit(main())
