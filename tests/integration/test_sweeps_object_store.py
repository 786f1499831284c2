"""Sweeps whose results lie in an S3 server: kept, continued after a kill here or elsewhere, reported, and refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.object_store import BUCKET, ObjectStore, object_store
from tests.integration.sweep_driver import NAME, config
from tune_sweeps.cluster.job_entry import look, unwritable
from tune_sweeps.run.workspace import JOURNAL, create_workspace, existing_workspace, sweep_names
from tune_sweeps.storage import lease as lease_module
from tune_sweeps.storage import mirror, segments
from tune_sweeps.storage.mirror import RemoteMirror
from tune_sweeps.storage.remote import Remote
from tune_sweeps.storage.results import Results, open_results
from tune_sweeps.tracking.journal import Journal
from tune_sweeps.tracking.mlflow_client import tracking_uri
from tune_sweeps.tracking.reader import read_sweep
from tutor_service.errors import UserError

pytest.importorskip("moto", reason="the S3 server of the extra 'dev' is not installed")
STEPS = list(range(0, 1_001, 100))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("s3") / "s3.log") as running:
        yield running


@pytest.fixture(autouse=True)
def user(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of somebody who uses it."""
    for name, value in store.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LLM_TUTORS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def place(request: pytest.FixtureRequest) -> str:
    """An address of the test's own."""
    return f"s3://{BUCKET}/{request.node.name.split('[')[0]}"


def machine(place: str, folder: Path) -> Results:
    """The place as another machine sees it, with a copy of its own."""
    return Results(folder, Remote(place))


class Driver:
    """A sweep of fake students in another process."""

    def __init__(self, place: str, folder: Path, sleep_s: float, **environ: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.output = folder / f"{time.monotonic_ns()}.txt"
        self.folder = folder
        with self.output.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.sweep_driver", place, str(sleep_s), str(folder)],
                stdout=file,
                stderr=file,
                start_new_session=True,
                env={**os.environ, **environ},
            )

    def trace(self) -> list[list[str]]:
        path = self.folder / "trace"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def kill_after(self, evaluations: int) -> None:
        """End the driver and its trials as a machine that loses power would, once so many evaluations are new."""
        before = len(self.trace())
        deadline = time.monotonic() + 240
        while len(self.trace()) < before + evaluations:
            assert self.process.poll() is None and time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.1)
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.mark.timeout(900)
def test_a_sweep_goes_on_after_kills_here_and_on_another_machine(
    store: ObjectStore, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces = tmp_path / "traces"
    Driver(place, traces, 0.4).kill_after(24)
    Driver(place, traces, 0.4).kill_after(10)  # the same machine: its copy is the newest
    shutil.rmtree(tmp_path / "home")
    monkeypatch.setenv("LLM_TUTORS_HOME", str(tmp_path / "elsewhere"))
    last = Driver(place, traces, 0.0)
    assert last.process.wait(timeout=400) == 0, last.output.read_text()
    assert "waiting up to" in last.output.read_text() and "done=4" in last.output.read_text()

    record = read_sweep(tracking_uri(open_results(place)), NAME)
    assert [run.status for run in record.runs] == ["FINISHED"] * 4
    assert all(list(run.curve.steps) == STEPS for run in record.runs)
    root = place.removeprefix(f"s3://{BUCKET}/")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "000001.jsonl").write_text(store.text(f"{root}/{NAME}/journal/000001.jsonl"))
    trials = Journal(tmp_path / "there").trials
    assert {key: trial.status for key, trial in trials.items()} == {run.key: "done" for run in record.runs}
    attempts = [trial.attempts for trial in trials.values()]
    assert max(attempts) > 1, "none was cut short"
    begun_anew = [line for line in last.trace() if line[1] == "0"]
    assert len(begun_anew) < sum(attempts), "no checkpoint was used"
    files = store.files(f"{root}/{NAME}")
    assert {"sweep.json", "sweep.yaml", "log.txt"} <= files
    assert ".lease" not in files, "the sweep is not given back"

    report = subprocess.run(
        [sys.executable, "-c", "from tune_sweeps.cli.app import main; main()", "report", NAME, "--results", place],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert report.returncode == 0, report.stderr
    assert f"wrote {place}/{NAME}/report/report.md" in report.stdout
    assert {"report/report.md", "report/report.html"} <= store.files(f"{root}/{NAME}")


def test_one_driver_at_a_time(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "RENEWED_EVERY_S", 1.0)
    here, there = machine(place, tmp_path / "here"), machine(place, tmp_path / "there")
    first = create_workspace(here, config())
    with first.held(print):
        with pytest.raises(UserError, match="running in another process"), existing_workspace(here, NAME).held(print):
            pass
        second = existing_workspace(there, NAME)
        assert second.is_running()
        said: list[str] = []
        with pytest.raises(UserError, match="is running in another process, on "), second.held(said.append):
            pass
        assert "waiting up to" in said[0]
    assert not existing_workspace(there, NAME).is_running()
    with existing_workspace(there, NAME).held(print):
        pass


def test_of_two_drivers_that_begin_at_once_one_gives_way(place: str, tmp_path: Path) -> None:
    outcomes: list[str] = []
    both = threading.Barrier(2)

    def begin(name: str) -> None:
        workspace = create_workspace(machine(place, tmp_path / name), config())
        both.wait()
        try:
            with workspace.held(print):
                outcomes.append("runs")
                time.sleep(5)
        except UserError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=begin, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 2
    assert outcomes.count("runs") == 1
    assert any("another" in said for said in outcomes)


def test_a_driver_that_was_overtaken_writes_no_more_and_ends(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted = threading.Event()
    monkeypatch.setattr(os, "kill", lambda pid, number: interrupted.set())
    here, there = machine(place, tmp_path / "here"), machine(place, tmp_path / "there")
    slow = create_workspace(here, config())
    said: list[str] = []
    with slow.held(said.append):
        monkeypatch.setattr(lease_module, "SILENT_S", 0.0)  # as if it had been cut off for a minute
        taker = existing_workspace(there, NAME)
        with taker.held(print):
            (taker.folder / "own_play.json").write_text("{}")
            assert interrupted.wait(10)
            (slow.folder / "own_play.json").write_text('{"late": {}}')
            assert "was taken over by a driver on" in slow.mirror.warning()
    assert "taken over" in said[-1]
    assert existing_workspace(machine(place, tmp_path / "third"), NAME).own_play.read_text() == "{}"


def test_what_is_deleted_here_is_deleted_there_and_another_machine_sees_it_all(place: str, tmp_path: Path) -> None:
    here, there = machine(place, tmp_path / "here"), machine(place, tmp_path / "there")
    workspace = create_workspace(here, config())
    keys = ["a", "b"]
    with workspace.held(print):
        journal = workspace.journal(keys)
        journal["a"].start()
        journal["a"].done()
        workspace.set_sent(True)
    copy = existing_workspace(there, NAME)
    assert copy.is_sent() and copy.finished_trials() == 1
    with copy.held(print):
        copy.set_sent(False)
        copy.journal(keys)["b"].done()
    back = existing_workspace(here, NAME)
    assert not back.is_sent() and back.finished_trials() == 2
    assert back.config() == config() and sweep_names(here) == [NAME]


def test_a_checkpoint_is_known_there_before_the_one_before_it_may_go(
    store: ObjectStore, place: str, tmp_path: Path
) -> None:
    workspace = create_workspace(machine(place, tmp_path / "here"), config())
    with workspace.held(print):
        journal = workspace.journal(["a"])
        journal["a"].checkpoint(100, "somewhere")
        workspace.mirror.save(journal.newest)
        line = store.text(f"{place.removeprefix(f's3://{BUCKET}/')}/{NAME}/journal/000001.jsonl")
        assert json.loads(line)["path"] == "somewhere"


def test_the_store_never_lacks_what_comes_before_something_that_it_has(
    store: ObjectStore, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 2_000)
    monkeypatch.setattr(mirror, "EVERY_S", 3600.0)  # nothing is sent but by `save`
    workspace = create_workspace(machine(place, tmp_path / "here"), config())
    with workspace.held(print):
        journal = workspace.journal(["a", "b"])
        for step in range(0, 10_000, 100):
            journal["a"].result(step, 1.0, {"return_mean": 1.0})
        journal["b"].checkpoint(100, "somewhere")
        workspace.mirror.save(journal.newest)
        assert journal.newest.name > "000003.jsonl"
        there = RemoteMirror(Remote(place), tmp_path / "there" / NAME)
        there.fetch()
        copy = Journal(tmp_path / "there" / NAME / JOURNAL)
        assert [point.step for point in copy["a"].points_from(0)] == list(range(0, 10_000, 100))
        assert copy["b"].checkpoints[0].path == "somewhere"


@pytest.mark.parametrize(
    ("url", "environ", "said"),
    [
        ("s3://no-such-bucket/x", {}, "NO_SUCH_BUCKET"),
        (f"s3://{BUCKET}/x", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "Could not connect"),
        (f"s3://{BUCKET}/x?endpoint_override=127.0.0.1:9&scheme=http", {}, "Could not connect"),
        (f"s3://{BUCKET}/x?nonsense=1", {}, "nonsense"),
        ("s3://", {}, "names no bucket"),
        ("ftp://host/x", {}, "s3://, gs://"),
        ("s3://key:secret@bucket/x", {}, "holds a key"),
    ],
)
def test_a_place_that_cannot_be_used_is_refused_in_one_line(
    url: str, environ: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as refused:
        open_results(url).remote.check_writable()
    assert said in str(refused.value) and "secret" not in str(refused.value)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 600


def test_a_database_has_no_place_in_an_object_store(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(UserError, match="set MLFLOW_TRACKING_URI"):
        tracking_uri(open_results(place))


def test_a_clusters_node_says_whether_it_reaches_the_place(place: str) -> None:
    assert unwritable(place) == ""
    open_results(place).remote.write(b"", "marker")
    assert look(place, "marker").sees_marker and not look(place, "other").sees_marker
    assert "NO_SUCH_BUCKET" in look("s3://no-such-bucket/x", "marker").problem
