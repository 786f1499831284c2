"""Sweeps on a real local Ray, Tune and MLflow, with quick students: what is run, kept, repeated and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ray.tune.execution.tune_controller import TuneController

from rllib_plugins import metrics
from rllib_plugins.evaluation import random_return
from tests.integration.sweep_driver import NAME, config, run
from tune_sweeps.definition.resolve import resolve
from tune_sweeps.report.build import make_report
from tune_sweeps.run.sweep import Outcome
from tune_sweeps.run.workspace import JOURNAL
from tune_sweeps.storage.results import Results
from tune_sweeps.tracking.child_runs import WALL_S
from tune_sweeps.tracking.journal import Journal
from tune_sweeps.tracking.mlflow_client import make_client, tracking_uri
from tune_sweeps.tracking.reader import SweepRecord, read_sweep

STEPS = list(range(0, 1_001, 100))


@pytest.fixture(scope="module", autouse=True)
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLM_TUTORS_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("RAY_ADDRESS", raising=False)
        yield


@dataclass
class Ran:
    """A sweep in which one trial fails once, one always until it is mended, and the others never."""

    results: Path
    outcome: Outcome
    sweep: Any
    cure: Path

    @property
    def uri(self) -> str:
        return tracking_uri(Results(self.results))

    def read(self) -> SweepRecord:
        return read_sweep(self.uri, NAME)

    def journal(self) -> Journal:
        return Journal(self.results / NAME / JOURNAL, [trial.key for trial in resolve(self.sweep).trials])


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    results = tmp_path_factory.mktemp("results")
    cure = results / "cure"
    hyperparameters = {
        "ppo": {"trace": str(results / "trace"), "fail_at": 500, "fail_flag": str(results / "failed-once")},
        "a2c": {"trace": str(results / "trace"), "fail_at": 300, "fail_unless": str(cure)},
    }
    sweep = config(
        hyperparameters=hyperparameters,
        overrides=[{"match": {"tutor": "oracle"}, "set": {"hyperparameters": {"trace": str(results / "trace")}}}],
    )
    return Ran(results, run(Results(results), sweep), sweep, cure)


def history(uri: str, run_id: str, name: str) -> list[int]:
    return [entry.step for entry in make_client(uri).get_metric_history(run_id, name)]


def runs_by_name(uri: str) -> dict[str, Any]:
    client = make_client(uri)
    experiment = client.get_experiment_by_name(NAME)
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def test_a_trial_that_keeps_failing_is_recorded_and_the_others_go_on(ran: Ran) -> None:
    assert (ran.outcome.done, ran.outcome.failed, ran.outcome.total) == (3, 1, 4)
    assert ran.outcome.in_mlflow and not ran.outcome.interrupted
    failed = ran.journal()["a2c-none-blackjack-s0"]
    assert failed.status == "failed"
    assert "fails as it was told to" in failed.error


def test_mlflow_has_a_parent_and_a_child_per_trial_that_people_can_tell_apart(ran: Ran) -> None:
    runs = runs_by_name(ran.uri)
    assert set(runs) == {
        NAME,
        "ppo · untutored · blackjack · seed 0",
        "a2c · untutored · blackjack · seed 0",
        "ppo · oracle · blackjack · seed 0",
        "a2c · oracle · blackjack · seed 0",
    }
    child = runs["ppo · oracle · blackjack · seed 0"]
    assert child.data.params == {
        "algorithm": "ppo", "tutor": "oracle", "task": "blackjack", "use": "distil", "reuse": "on", "seed": "0",
    }  # fmt: skip
    assert child.data.tags["mlflow.parentRunId"] == runs[NAME].info.run_id
    assert child.data.tags["versions.ray"]
    assert child.data.tags["host_kind"]
    statuses = {name: run.info.status for name, run in runs.items()}
    assert statuses["a2c · untutored · blackjack · seed 0"] == "FAILED"
    assert statuses["ppo · untutored · blackjack · seed 0"] == "FINISHED"
    assert "told to" in runs["a2c · untutored · blackjack · seed 0"].data.tags["llm_tutors.error"]


def test_only_the_named_metrics_arrive_on_the_env_step_axis(ran: Ran) -> None:
    child = runs_by_name(ran.uri)["ppo · oracle · blackjack · seed 0"]
    assert set(child.data.metrics) == {*metrics.ALL, WALL_S}
    assert history(ran.uri, child.info.run_id, "eval/return_mean") == STEPS


def test_a_trial_that_failed_once_went_on_from_its_checkpoint_without_a_double_or_missing_point(ran: Ran) -> None:
    child = runs_by_name(ran.uri)["ppo · untutored · blackjack · seed 0"]
    for name in ("eval/return_mean", "advice/trust", WALL_S):
        assert history(ran.uri, child.info.run_id, name) == STEPS
    lines = [line for line in (ran.results / "trace").read_text().splitlines() if line.startswith("ppo-none-0")]
    steps = [line.split()[1] for line in lines]
    assert steps.count("setup") == 2
    assert steps.count("0") == 1  # the second attempt did not begin anew
    assert steps.count("1000") == 1


def test_trials_leave_the_cores_to_a_tutor_that_starts_on_them(ran: Ran) -> None:
    lines = (ran.results / "trace").read_text().splitlines()
    assert lines and {line.split()[3] for line in lines} == {"19"}


def test_the_configuration_is_an_artifact(ran: Ran, tmp_path: Path) -> None:
    assert ran.read().config == ran.sweep
    client = make_client(ran.uri)
    child = runs_by_name(ran.uri)["ppo · untutored · blackjack · seed 0"]
    text = Path(client.download_artifacts(child.info.run_id, "student.yaml", str(tmp_path))).read_text()
    assert "algorithm: ppo" in text and "num_env_steps: 1000" in text


def test_the_random_return_is_with_the_parent(ran: Ran) -> None:
    assert ran.read().references["blackjack"]["random"] == pytest.approx(
        random_return(resolve(ran.sweep).tasks["blackjack"])
    )


def test_the_tutor_played_by_itself_before_its_students_began(ran: Ran) -> None:
    played = ran.read().own_play["blackjack"]["oracle"]
    assert played["return_mean"] == pytest.approx(-0.0466, abs=1e-3)
    told = {
        line.split()[0]: line.split()[1].removeprefix("told:")
        for line in (ran.results / "trace").read_text().splitlines()
        if "told:" in line
    }
    assert told["ppo-none-0"] == "None"
    assert float(told["ppo-oracle-0"]) == played["return_mean"]


def test_a_report_is_made_from_mlflow_alone_and_put_there(ran: Ran, tmp_path: Path) -> None:
    analysis, files = make_report(ran.uri, NAME, tmp_path / "report")
    assert {path.name for path in files} >= {
        "report.md", "learning_curves.png", "learning_curves.svg", "speed_up.png", "survival.png",
        "effect_and_trust.png",
    }  # fmt: skip
    assert all(path.stat().st_size > 1_000 for path in files)
    tutored = next(cell for cell in analysis.cells if cell.cell.algorithm == "ppo" and cell.cell.tutored)
    assert tutored.speed_up is not None and tutored.speed_up.value > 1.3
    parent = runs_by_name(ran.uri)[NAME].info.run_id
    names = {item.path for item in make_client(ran.uri).list_artifacts(parent, "report")}
    assert {"report/report.md", "report/report.html", "report/cells.csv", "report/learning_curves.png"} <= names


def test_resuming_runs_the_failed_trial_alone_and_then_nothing(ran: Ran) -> None:
    before = (ran.results / "trace").read_text().splitlines()
    counts = {name: run.info.run_id for name, run in runs_by_name(ran.uri).items()}
    ran.cure.touch()
    outcome = run(Results(ran.results), ran.sweep)
    assert (outcome.done, outcome.failed) == (4, 0)
    new = (ran.results / "trace").read_text().splitlines()[len(before) :]
    assert new and all(line.startswith("a2c-none-0") for line in new)
    runs = runs_by_name(ran.uri)
    assert {name: run.info.run_id for name, run in runs.items()} == counts
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    child = runs["a2c · untutored · blackjack · seed 0"]
    assert history(ran.uri, child.info.run_id, "eval/return_mean") == STEPS
    again = run(Results(ran.results), ran.sweep)
    assert again.done == 4
    assert (ran.results / "trace").read_text().splitlines() == [*before, *new]


def test_a_failure_that_tune_counts_twice_ends_no_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a node goes: the call that trains fails, and the one that saves, each by itself."""
    once = TuneController._process_trial_failure

    def twice(self: TuneController, trial: Any, exception: Any) -> None:
        once(self, trial, exception)
        once(self, trial, exception)

    monkeypatch.setattr(TuneController, "_process_trial_failure", twice)
    flag, trace = str(tmp_path / "failed-once"), str(tmp_path / "trace")
    sweep = config(
        algorithms=["ppo"],
        tutors=["none"],
        seeds=2,
        hyperparameters={"ppo": {"trace": trace, "fail_at": 500, "fail_flag": flag}},
    )
    outcome = run(Results(tmp_path / "results"), sweep)
    assert (outcome.done, outcome.failed, outcome.total) == (2, 0, 2)
    steps = [line.split()[1] for line in Path(trace).read_text().splitlines()]
    assert steps.count("0") == 2, "it went on from its checkpoint"


class Driver:
    """A sweep in another process, in a process group of its own."""

    def __init__(self, results: Path, name: str, sleep_s: float) -> None:
        self.results = results
        self.mark = f"{MARK}={results}/{name}"
        self.output = results / f"{name}.txt"
        self.results.mkdir(exist_ok=True)
        variable, _, value = self.mark.partition("=")
        with self.output.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.sweep_driver", str(results), str(sleep_s), str(results)],
                stdout=file,
                stderr=file,
                start_new_session=True,
                env={**os.environ, variable: value},
            )

    def events(self, event: str) -> int:
        """How many there are in the journals, those of earlier drivers included."""
        return sum(path.read_text().count(f'"event": "{event}"') for path in self.results.glob("*/journal/*.jsonl"))

    def wait_for(self, event: str, count: int) -> None:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and self.process.poll() is None:
            if self.events(event) >= count:
                return
            time.sleep(0.1)
        raise AssertionError(f"no {count} × {event}: {self.output.read_text()}")

    def end(self, number: signal.Signals) -> None:
        """Sends the signal, and waits for the end of the driver, not of what it started."""
        if number == signal.SIGINT:
            os.killpg(self.process.pid, number)  # as a terminal does: the whole group
        else:
            os.kill(self.process.pid, number)
        self.process.wait(timeout=60)

    def left_behind(self) -> list[str]:
        """Processes that were started by this driver: they carry its mark in their environment."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                environment = (entry / "environ").read_bytes()
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if self.mark.encode() + b"\0" in environment + b"\0" and command:
                found.append(command.replace(b"\0", b" ").decode())
        return found


MARK = "LLM_TUTORS_TEST_SWEEP"


def gone(driver: Driver) -> None:
    """Waits until nothing of it is left: Ray's agents take a minute to give up on a driver that was killed."""
    deadline = time.monotonic() + 240
    while (left := driver.left_behind()) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left


def ends(results: Path) -> list[str]:
    """Names in the trace of the trials that came to their last step, each as often as it did."""
    return [line.split()[0] for line in (results / "trace").read_text().splitlines() if line.split()[1] == "1000"]


def finished(results: Path) -> dict[str, int]:
    """Trials that the sweep knows to be finished, and how often they came to their end.

    One that was struck between its end and the journal's word of it comes to its end again.
    """
    journal = Journal(results / NAME / JOURNAL)
    parts = [key.split("-") for key, trial in journal.trials.items() if trial.status == "done"]
    names = [f"{algorithm}-{tutor}-{rest[-1].removeprefix('s')}" for algorithm, tutor, *rest in parts]
    return {name: ends(results).count(name) for name in names}


def check_whole(results: Path, finished_before: list[dict[str, int]]) -> None:
    """All trials done, none repeated after it was finished, no double and no missing point."""
    uri = tracking_uri(Results(results))
    record = read_sweep(uri, NAME)
    assert [run.status for run in record.runs] == ["FINISHED"] * 4
    assert len({run.key for run in record.runs}) == 4
    for child in runs_by_name(uri).values():
        if "algorithm" in child.data.params:
            assert history(uri, child.info.run_id, "eval/return_mean") == STEPS
            assert history(uri, child.info.run_id, WALL_S) == STEPS
    in_the_end = finished(results)
    assert len(in_the_end) == 4
    assert finished_before[0]
    for before in finished_before:
        assert before.items() <= in_the_end.items()


@pytest.mark.timeout(1200)
def test_a_driver_that_ends_at_any_moment_leaves_nothing_behind_and_can_be_continued(tmp_path: Path) -> None:
    """One sweep is killed, then interrupted, then terminated; the next driver begins as soon as one has ended."""
    results = tmp_path / "results"
    killed = Driver(results, "killed", sleep_s=0.4)
    killed.wait_for("done", 1)
    killed.end(signal.SIGKILL)
    finished_before = [finished(results)]
    for number in (signal.SIGINT, signal.SIGTERM):
        driver = Driver(results, number.name, sleep_s=0.4)
        driver.wait_for("result", driver.events("result") + 3)
        driver.end(number)
        assert "interrupted=True" in driver.output.read_text()
        gone(driver)
        finished_before.append(finished(results))
    last = Driver(results, "last", sleep_s=0.0)
    assert last.process.wait(timeout=400) == 0
    assert "done=4" in last.output.read_text()
    check_whole(results, finished_before)
    gone(last)
    gone(killed)
