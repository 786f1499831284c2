"""A sweep of fake students in a process of its own, to be interrupted and killed.

Run: python -m … RESULTS SECONDS_PER_EVALUATION FOLDER_OF_THE_TRACE
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.integration.sweep_fakes import fake_student
from tune_sweeps.console.signals import interruptible
from tune_sweeps.console.terminal import quiet
from tune_sweeps.definition.config import SweepConfig
from tune_sweeps.definition.loading import validate_sweep
from tune_sweeps.definition.resolve import resolve
from tune_sweeps.run.sweep import Outcome, run_sweep
from tune_sweeps.run.workspace import create_workspace, open_workspace
from tune_sweeps.storage import lease
from tune_sweeps.storage.results import Results, open_results
from tune_sweeps.tracking.mlflow_client import tracking_uri

NAME = "fakes"


def config(**fields: object) -> SweepConfig:
    base = {
        "name": NAME,
        "algorithms": ["ppo", "a2c"],
        "tutors": ["oracle"],
        "tasks": ["blackjack"],
        "reuse": [True],
        "num_env_steps": 1_000,
        "evaluation": {"interval_steps": 100},
        "failures": {"max_failures": 1, "checkpoint_every": 2, "checkpoint_every_s": 0},
        "resources": {"num_cpus_per_trial": 1},
    }
    return validate_sweep({**base, **fields}, "the test's sweep")


def run(results: Results, sweep: SweepConfig) -> Outcome:
    """Runs or continues the sweep in this process."""
    resolved = resolve(sweep)
    workspace = open_workspace(results, NAME) or create_workspace(results, sweep)
    with workspace.held(print), interruptible(), quiet(workspace.log) as console:
        return run_sweep(
            resolved, workspace, console, uri=tracking_uri(results), student_class=fake_student, num_cpus=2
        )


if __name__ == "__main__":
    lease.RENEWED_EVERY_S, lease.SILENT_S = 3.0, 12.0  # a driver that takes over need not wait a minute
    place = open_results(sys.argv[1])
    trace = {"trace": str(Path(sys.argv[3]) / "trace"), "sleep_s": float(sys.argv[2])}
    outcome = run(place, config(hyperparameters={"ppo": trace, "a2c": trace}))
    print(outcome)
