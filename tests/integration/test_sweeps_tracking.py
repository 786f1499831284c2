"""Points reach a real MLflow server once each, also when it is away for a while or was cut off in the middle."""

from __future__ import annotations

import json
import math
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from rllib_plugins import metrics
from tests.integration.sweep_driver import NAME, config
from tune_sweeps.definition.resolve import resolve
from tune_sweeps.tracking.child_runs import TAG_TRIAL, ChildRuns
from tune_sweeps.tracking.journal import EVAL, Journal
from tune_sweeps.tracking.mlflow_client import check_uri, make_client, quiet_environment
from tune_sweeps.tracking.tracker import DOUBTS_ARTIFACT, REFERENCES_FOLDER, MlflowTracker, TrackedSweep

KEY = "ppo-oracle-blackjack-reuse-s0"


class Server:
    """An MLflow server that can be ended and started again on the same port and database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        quiet_environment()
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
                    *("--backend-store-uri", f"sqlite:///{self.folder}/server.db", "--workers", "1"),
                    *("--artifacts-destination", str(self.folder / "artifacts")),
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 400
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
                return
            except OSError:
                time.sleep(0.5)
        raise AssertionError((self.folder / "server.log").read_text())

    def stop(self) -> None:
        import os
        import signal

        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture
def server(one_server: Server) -> Server:
    """A server that runs, whatever the test before did to it; each test has an experiment of its own there."""
    if one_server.process is None:
        one_server.start()
    return one_server


def values(value: float) -> dict[str, float]:
    return dict.fromkeys(metrics.ALL, value)


def tracker(
    uri: str, journal: Journal, sweep_id: str = "id", location: str | None = None, name: str = NAME
) -> MlflowTracker:
    sweep = TrackedSweep(
        name=name,
        sweep_id=sweep_id,
        config_yaml="name: fakes\n",
        trials={trial.key: trial for trial in resolve(config()).trials},
        tags={"host_kind": "test"},
        trial_tags={},
        artifact_location=location,
    )
    return MlflowTracker(uri, sweep, journal)


def open_journal(folder: Path) -> Journal:
    return Journal(folder, [trial.key for trial in resolve(config()).trials])


def children(uri: str, experiment_name: str = NAME) -> dict[str, Any]:
    client = make_client(uri)
    experiment = client.get_experiment_by_name(experiment_name)
    runs = client.search_runs([experiment.experiment_id])
    return {run.data.tags[TAG_TRIAL]: run for run in runs if TAG_TRIAL in run.data.tags}


def steps(uri: str, name: str = "eval/return_mean", experiment_name: str = NAME) -> list[int]:
    run = children(uri, experiment_name)[KEY]
    return [e.step for e in make_client(uri).get_metric_history(run.info.run_id, name)]


def until(condition: Callable[[], bool]) -> None:
    """Waits until it holds; a server that is coming up may answer with anything meanwhile."""
    deadline = time.monotonic() + 240
    while True:
        try:
            if condition():
                return
        except (AttributeError, KeyError, MlflowException):
            pass
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_training_goes_on_while_mlflow_is_away_and_the_points_arrive_later(server: Server, tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "journal")
    following = tracker(server.uri, journal, name="away")
    following.start()
    trial = journal[KEY]
    trial.start()
    for step in (0, 100):
        trial.result(step, 1.0, values(step))
        following.wake()
    until(lambda: steps(server.uri, experiment_name="away") == [0, 100])
    server.stop()
    for step in (200, 300):
        started = time.perf_counter()
        trial.result(step, 1.0, values(step))
        following.wake()
        assert time.perf_counter() - started < 20  # the trial does not wait for MLflow, whose client tries for minutes
    until(lambda: following.away_since is not None)
    server.start()
    trial.result(400, 1.0, values(400))
    trial.done()
    assert following.finish("FINISHED", timeout_s=120)
    for name in ("eval/return_mean", "advice/trust", "wall_s"):
        assert steps(server.uri, name, "away") == [0, 100, 200, 300, 400]
    assert children(server.uri, "away")[KEY].info.status == "FINISHED"


def test_what_did_not_arrive_before_the_end_is_sent_by_the_next_run(server: Server, tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "journal")
    first = tracker(server.uri, journal, name="late")
    journal[KEY].start()
    journal[KEY].result(0, 1.0, values(0))
    first.sync()
    server.stop()
    journal[KEY].result(100, 1.0, values(100))
    assert not first.finish("KILLED", timeout_s=1)
    server.start()
    second = tracker(server.uri, open_journal(tmp_path / "journal"), name="late")
    assert second.finish("FINISHED", timeout_s=60)
    assert steps(server.uri, experiment_name="late") == [0, 100]
    assert list(children(server.uri, "late")) == [KEY]
    assert second.parent_id == first.parent_id


def test_an_address_where_nothing_answers_is_refused(server: Server) -> None:
    from tutor_service.errors import UserError

    check_uri(server.uri)
    server.stop()
    with pytest.raises(UserError, match=r"MLflow cannot use .*Start the server"):
        check_uri(server.uri)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("127.0.0.1:5000", "write http://127.0.0.1:5000"),
        ("./mlruns", "maintenance mode.*MLFLOW_TRACKING_URI=sqlite:///mlflow.db"),
        ("databricks://nobody", "Databricks.*Correct MLFLOW_TRACKING_URI"),
        ("azureml://region/x", "unsupported URI.*plugin"),
        ("ftp://x", "unsupported URI.*plugin"),
        ("postgres://user:secret@host/mlflow", "unsupported URI.*plugin"),
        ("http://user:secret@127.0.0.1:9", "Connection refused.*Start the server"),
    ],
)
def test_mlflow_says_what_it_does_not_take(uri: str, said: str) -> None:
    from tutor_service.errors import UserError

    with pytest.raises(UserError, match=said) as caught:
        check_uri(uri)
    assert "secret" not in str(caught.value)


def test_a_plugins_address_reaches_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking._tracking_service.utils import _tracking_store_registry

    asked: list[str] = []

    class Store:
        def search_experiments(self, *_: Any, **__: Any) -> list[Any]:
            return []

    def make(store_uri: str, **_: Any) -> Store:
        asked.append(store_uri)
        return Store()

    monkeypatch.setitem(_tracking_store_registry._registry, "plugged", make)
    check_uri("plugged://somewhere")
    assert asked == ["plugged://somewhere"]


def test_a_database_is_made_once_by_several_processes_that_begin_together(tmp_path: Path) -> None:
    import subprocess
    import sys

    program = (
        "import sys; import mlflow; from tune_sweeps.tracking.mlflow_client import make_client, open_experiment\n"
        "client = make_client(sys.argv[1]); print(open_experiment(client, 'shared', None))"
    )
    command = [sys.executable, "-c", program, f"sqlite:///{tmp_path}/mlflow.db"]
    together = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(3)]
    said = [process.communicate(timeout=120)[0].decode().strip() for process in together]
    assert len(set(said)) == 1 and said[0]


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("empty") / "mlflow.db"
    make_client(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def database(empty_database: Path, tmp_path: Path) -> str:
    """A database of the test's own, whose tables are there: to make them takes seconds."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


def test_a_batch_of_which_half_arrived_is_completed_and_not_doubled(database: str, tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "journal")
    journal[KEY].start()
    journal[KEY].result(0, 1.0, values(0))
    location = (tmp_path / "artifacts").as_uri()
    tracker(database, journal, location=location).sync()
    journal[KEY].result(100, 1.0, values(100))
    point = journal[KEY].points[-1]
    client = make_client(database)
    run_id = children(database)[KEY].info.run_id
    for name in ("wall_s", "eval/return_mean"):
        value = point.wall_s if name == "wall_s" else point.metrics[name]
        client.log_metric(run_id, name, value, timestamp=point.time_ms, step=point.step)
    journal[KEY].done()
    assert tracker(database, open_journal(tmp_path / "journal"), location=location).finish("FINISHED", timeout_s=60)
    for name in (*metrics.ALL, "wall_s"):
        assert steps(database, name) == [0, 100]


def test_a_run_that_was_made_but_not_described_is_described_and_not_made_twice(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal(tmp_path / "journal")
    journal[KEY].start()
    journal[KEY].result(0, 1.0, values(0))
    following = tracker(database, journal, location=(tmp_path / "artifacts").as_uri())

    def cut(*_: object) -> None:
        raise ConnectionError("gone in the middle")

    with monkeypatch.context() as patch:
        patch.setattr(ChildRuns, "_log_student", cut)
        with pytest.raises(ConnectionError):
            following.sync()
    following.sync()
    run = children(database)[KEY]
    assert run.data.params["algorithm"] == "ppo"
    assert steps(database) == [0]


def test_another_sweep_of_the_same_name_has_runs_of_its_own(database: str, tmp_path: Path) -> None:
    location = (tmp_path / "artifacts").as_uri()
    parents = set()
    for sweep_id in ("one", "two"):
        journal = open_journal(tmp_path / sweep_id)
        journal[KEY].start()
        journal[KEY].result(0, 1.0, values(0))
        following = tracker(database, journal, sweep_id, location)
        following.sync()
        parents.add(following.parent_id)
    assert len(parents) == 2
    client = make_client(database)
    runs = client.search_runs([client.get_experiment_by_name(NAME).experiment_id])
    assert len([run for run in runs if run.data.tags.get(TAG_TRIAL) == KEY]) == 2


def test_a_sweep_has_a_prepared_view_and_its_trials_their_results(database: str, tmp_path: Path) -> None:
    from tune_sweeps.tracking.prepared_view import VIEW_TAG
    from tune_sweeps.tracking.reader import RunRecord, Series
    from tune_sweeps.tracking.summary import put_trial_results

    journal = open_journal(tmp_path / "journal")
    journal[KEY].start()
    journal[KEY].result(0, 1.0, values(0))
    following = tracker(database, journal, location=(tmp_path / "artifacts").as_uri())
    following.sync()
    run = children(database)[KEY]
    assert run.info.start_time == journal[KEY].started_ms  # however late MLflow hears of it
    client = make_client(database)
    view = json.loads(client.get_experiment(run.info.experiment_id).tags[VIEW_TAG + following.parent_id])
    assert f"'{following.parent_id}'" in json.loads(view["state"])["searchFilter"]
    record = RunRecord(
        KEY, resolve(config()).trials[0].cell, 0, "FINISHED", {EVAL: Series(np.array([0.0, 90.0]), np.zeros(2))}
    )
    results = {"final_return": 0.5, "speed_up": math.nan}
    for _ in range(2):  # what is there already is not logged again
        known = dict(children(database)[KEY].data.metrics)
        put_trial_results(database, [(replace(record, run_id=run.info.run_id, last=known), results)])
    logged = client.get_metric_history(run.info.run_id, "final_return")
    assert [(entry.step, entry.value) for entry in logged] == [(90, 0.5)]
    assert "speed_up" not in children(database)[KEY].data.metrics


def test_after_a_hiccup_only_what_was_being_sent_is_looked_up(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    journal = open_journal(tmp_path / "journal")
    following = tracker(database, journal, location=(tmp_path / "artifacts").as_uri())

    def evaluate(step: int) -> None:
        for trial in journal.trials.values():
            trial.result(step, 1.0, values(step))

    for trial in journal.trials.values():
        trial.start()
    evaluate(0)
    following.sync()
    evaluate(100)

    def cut(*_: object) -> None:
        raise ConnectionError("gone in the middle")

    with monkeypatch.context() as patch:
        patch.setattr(ChildRuns, "_log", cut)
        with pytest.raises(ConnectionError):
            following.sync()
    assert following.behind_s() > 0
    asked: list[str] = []

    def counting(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(client: Any, run_id: Any, *rest: Any, **named: Any) -> Any:
            asked.append(str(run_id))
            return call(client, run_id, *rest, **named)

        return counted

    for name in ("get_run", "get_metric_history", "search_runs"):
        monkeypatch.setattr(MlflowClient, name, counting(getattr(MlflowClient, name)))
    following.sync()
    assert len(set(asked)) == 1
    monkeypatch.undo()
    assert following.behind_s() == 0
    runs = children(database)
    client = make_client(database)
    for key in journal.trials:
        history = client.get_metric_history(runs[key].info.run_id, EVAL)
        assert [entry.step for entry in history] == [0, 100]


def test_a_trial_whose_run_was_deleted_gets_another_and_holds_up_nobody(database: str, tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "journal")
    following = tracker(database, journal, location=(tmp_path / "artifacts").as_uri())
    for trial in journal.trials.values():
        trial.start()
        trial.result(0, 1.0, values(0))
    following.sync()
    first, *others = journal.trials
    client = make_client(database)
    client.delete_run(children(database)[first].info.run_id)
    for trial in journal.trials.values():
        trial.result(100, 1.0, values(100))
    with pytest.raises(MlflowException, match="active"):
        following.sync()
    assert {children(database)[key].data.metrics[EVAL] for key in others} == {100}
    following.sync()
    run_id = children(database)[first].info.run_id
    assert [entry.step for entry in client.get_metric_history(run_id, EVAL)] == [0, 100]


@pytest.mark.parametrize("what", ["experiment", "parent"])
def test_what_somebody_deletes_under_a_sweep_is_there_at_its_end(what: str, database: str, tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "journal")
    following = tracker(database, journal, location=(tmp_path / "artifacts").as_uri())
    journal[KEY].start()
    journal[KEY].result(0, 1.0, values(0))
    following.sync()
    client = make_client(database)
    if what == "experiment":
        client.delete_experiment(children(database)[KEY].info.experiment_id)
    else:
        client.delete_run(following.parent_id)
    journal[KEY].result(100, 1.0, values(100))
    journal[KEY].done()
    assert following.finish("FINISHED", timeout_s=20)
    assert client.get_run(following.parent_id).info.lifecycle_stage == "active"
    assert steps(database) == [0, 100] and children(database)[KEY].info.status == "FINISHED"


def test_what_belongs_to_the_sweep_is_sent_again_where_mlflows_database_was_emptied(
    database: str, tmp_path: Path
) -> None:
    journal = open_journal(tmp_path / "journal")
    following = tracker(database, journal, location=(tmp_path / "artifacts").as_uri())
    (tmp_path / "oracle.jsonl").write_text("{}")
    following.set_references("blackjack", {"random": -0.4})
    following.keep_json(DOUBTS_ARTIFACT, {"smollm2 on blackjack": "little"})
    following.keep_file(tmp_path / "oracle.jsonl", "advice")
    following.sync()
    before = following.parent_id
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name != 'alembic_version'")
        for (table,) in tables.fetchall():
            connection.execute(f"DELETE FROM {table}")
    connection.close()
    assert following.finish("FINISHED", timeout_s=60) and following.parent_id != before
    client = make_client(database)
    found = [client.list_artifacts(following.parent_id, folder) for folder in (None, REFERENCES_FOLDER, "advice")]
    assert {item.path for items in found for item in items} >= {
        DOUBTS_ARTIFACT,
        f"{REFERENCES_FOLDER}/blackjack.json",
        "advice/oracle.jsonl",
    }


def test_what_mlflow_has_is_let_go_and_sent_again_where_its_database_was_lost(
    database: str, empty_database: Path, tmp_path: Path
) -> None:
    journal = open_journal(tmp_path / "journal")
    location = (tmp_path / "artifacts").as_uri()
    following = tracker(database, journal, location=location)
    journal[KEY].start()
    for step in (0, 100, 200):
        journal[KEY].result(step, 1.0, values(step))
    following.sync()
    assert [point.step for point in journal[KEY].points] == [200]
    assert [point.step for point in journal[KEY].points_from(0)] == [0, 100, 200]
    shutil.copy(empty_database, tmp_path / "new.db")
    other = f"sqlite:///{tmp_path}/new.db"
    tracker(other, journal, location=location).sync()
    assert steps(other) == [0, 100, 200]
