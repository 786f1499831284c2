"""The journal, the folder of a sweep, and which name a sweep gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from io import FileIO
from os.path import isdir as is_dir
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tune_sweeps.definition.config import SweepConfig
from tune_sweeps.definition.loading import load_sweep
from tune_sweeps.definition.resolve import resolve
from tune_sweeps.run.checks import check_machine
from tune_sweeps.run.progress import Progress
from tune_sweeps.run.progress_view import View
from tune_sweeps.run.speeds import known_speeds
from tune_sweeps.run.workspace import check_writable, choose, create_workspace, existing_workspace, open_workspace
from tune_sweeps.storage import segments
from tune_sweeps.storage.results import Results
from tune_sweeps.storage.segments import Segments
from tune_sweeps.tracking.journal import Journal
from tune_sweeps.tracking.mlflow_client import check_database, check_uri
from tutor_service.errors import UserError


def sweep(name: str = "s", *settings: str) -> SweepConfig:
    return load_sweep("small", ["tutors=[oracle]", "algorithms=[ppo]", "seeds=1", f"name={name}", *settings])


KEYS = ["a", "b", "c", "d"]


def on_disk(folder: Path) -> list[dict[str, Any]]:
    """All whole lines, in order."""
    return [json.loads(line) for _, line in Segments(folder).read()]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    first = Journal(tmp_path, KEYS)["a"]
    first.start()
    assert first.result(0, 1.5, {"eval/return_mean": 0.25, "return_mean": float("nan")})
    assert first.result(10, 2.0, {"eval/return_mean": 0.5})
    first.checkpoint(10, str(tmp_path))
    first.done()
    again = Journal(tmp_path, KEYS)["a"]
    assert (again.status, again.attempts) == ("done", 1)
    assert [(p.step, p.wall_s, p.metrics) for p in again.points_from(0)] == [
        (0, 1.5, {"eval/return_mean": 0.25}),
        (10, 3.5, {"eval/return_mean": 0.5}),
    ]
    assert len(again.points) == 1 and again.points_from(0) == first.points
    assert again.last_checkpoint(is_dir) == str(tmp_path)


def test_a_restored_trial_repeats_no_point(tmp_path: Path) -> None:
    trial = Journal(tmp_path, KEYS)["a"]
    for step in (0, 10, 20):
        trial.result(step, 1, {"m": step})
    assert not trial.result(10, 1, {"m": 99})
    assert not trial.result(20, 1, {"m": 99})
    assert trial.result(30, 1, {"m": 30})
    assert [p.metrics["m"] for p in Journal(tmp_path, KEYS)["a"].points] == [0, 10, 20, 30]


def test_trials_abreast_in_a_few_files_are_told_apart_and_read_again_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 1_000)
    journal = Journal(tmp_path, KEYS)
    for step in range(0, 500, 10):
        for key in KEYS:
            journal[key].result(step, 1, {"m": float(ord(key) + step)})
            journal[key].let_go(step // 10 - 1)
    journal.close()
    assert 5 < len(list(tmp_path.iterdir())) < 40
    for opened in (journal, Journal(tmp_path, KEYS), Journal(tmp_path)):
        for key in KEYS:
            points = opened[key].points_from(7)
            assert [point.step for point in points] == list(range(70, 500, 10))
            assert all(point.metrics["m"] == ord(key) + point.step for point in points)
    assert [len(journal[key].points) for key in KEYS] == [2] * 4
    assert Journal(tmp_path, ["b"]).trials.keys() == {"b"}


def test_a_kill_at_any_byte_leaves_all_whole_lines_and_is_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 150)
    whole = Journal(tmp_path / "whole", KEYS)
    for step in (0, 10, 20):
        for key in "ab":
            whole[key].result(step, 1, {"m": 1.0})
    files = sorted((tmp_path / "whole").iterdir())
    lines = [line for file in files for line in file.read_bytes().splitlines()]
    assert len(files) == 3 and len(lines) == 6
    content = [file.read_bytes() for file in files]
    for index in range(len(files)):
        for cut in range(len(content[index]) + 1):
            folder = tmp_path / f"{index}-{cut}"
            folder.mkdir()
            for name, text in zip(files[:index], content, strict=False):
                (folder / name.name).write_bytes(text)
            (folder / files[index].name).write_bytes(content[index][:cut])
            left = sum(text.count(b"\n") for text in content[:index]) + content[index][:cut].count(b"\n")
            assert [line for _, line in Segments(folder).read()] == lines[:left]
            again = Journal(folder, KEYS)
            assert again.count("running") == 0
            again["c"].start()
            again.close()
            assert [line for _, line in Segments(folder).read()][:left] == lines[:left]
            assert [event["trial"] for event in on_disk(folder)][left:] == ["c"]


def test_a_damaged_line_costs_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(tmp_path, KEYS)
    for step in (0, 10, 20):
        journal["a"].result(step, 1, {"m": 1.0})
    lines = journal.newest.read_bytes().splitlines(keepends=True)
    nonsense = [b"\0" * 20 + b"\n", b'{"trial": "a", "event": "result"}\n', b"[1]\n", b"\xff\n"]
    journal.newest.write_bytes(lines[0] + b"".join(nonsense) + lines[2])
    again = Journal(tmp_path, KEYS)
    assert [point.step for point in again["a"].points_from(0)] == [0, 20]
    assert "4 lines of the journal" in caplog.text


class Disk:
    """Stands in the way of writing: after so many bytes the disk is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: int) -> None:
        disk = self
        self.free = free

        class Full(FileIO):
            def write(self, data: Any) -> int:
                if not disk.free:
                    raise OSError(28, "No space left on device")
                written = super().write(bytes(data)[: disk.free])
                disk.free -= written
                return written

        monkeypatch.setattr(segments, "FileIO", Full)


@pytest.mark.parametrize("free", [0, 1, 50, 100, 130, 200])
def test_a_full_disk_loses_nothing_and_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 150)
    journal = Journal(tmp_path, KEYS)
    journal["a"].result(0, 1, {"m": 1.0})
    journal.close()
    disk = Disk(monkeypatch, free)
    journal["a"].result(10, 1, {"m": 2.0})
    journal["b"].result(10, 1, {"m": 3.0})
    journal["a"].done()
    assert not journal.flush() and journal.blocked == "No space left on device"
    journal["a"].let_go(2)
    assert [point.step for point in journal["a"].points_from(0)] == [0, 10]
    disk.free = 10_000
    assert journal.flush() and not journal.blocked
    again = Journal(tmp_path, KEYS)
    assert (again["a"].status, [p.step for p in again["a"].points_from(0)]) == ("done", [0, 10])
    assert [p.step for p in again["b"].points_from(0)] == [10]
    assert [event["event"] for event in on_disk(tmp_path)] == ["result"] * 3 + ["done"]
    assert [p.metrics for p in journal["a"].points_from(0)] == [p.metrics for p in again["a"].points_from(0)]


def test_a_slow_disk_is_not_called_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, KEYS)
    seen: list[str] = []
    monkeypatch.setattr(segments.os, "fsync", lambda file: seen.append(journal.blocked))
    journal["a"].done()
    assert seen == [""]


def test_results_reach_the_disk_in_groups_and_with_a_checkpoint_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, KEYS)
    synced: list[int] = []
    opened: list[object] = []
    real = os.open
    monkeypatch.setattr(segments.os, "fsync", synced.append)
    monkeypatch.setattr(segments.os, "open", lambda *args: opened.append(args) or real(*args))
    for step in range(100):
        for key in KEYS:
            journal[key].result(step, 1, {"m": 1.0})
    assert len(opened) == 1 and len(synced) <= 2
    before = len(synced)
    journal["a"].checkpoint(99, "somewhere")
    assert len(synced) == before + 1
    monkeypatch.setattr(segments, "SYNC_EVERY_S", 0.0)
    journal["a"].result(100, 1, {"m": 1.0})
    assert len(synced) == before + 2


def test_a_reader_changes_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, KEYS)
    journal["a"].result(0, 1, {"m": 1.0})
    torn = journal.newest.read_bytes() + b'{"trial": "a", "event": "resu'
    journal.newest.write_bytes(torn)
    assert Journal(tmp_path).count("pending") == 1
    assert journal.newest.read_bytes() == torn
    assert Journal(tmp_path / "nowhere").trials == {} and not (tmp_path / "nowhere").exists()


def test_the_newest_checkpoint_that_is_there_counts(tmp_path: Path) -> None:
    trial = Journal(tmp_path / "journal", KEYS)["a"]
    for step, name, value in ((0, "a", 0.1), (10, "b", 0.9), (20, "c", 0.5)):
        (tmp_path / name).mkdir()
        trial.result(step, 1, {"eval/return_mean": value})
        trial.checkpoint(step, str(tmp_path / name))
    assert trial.last_checkpoint(is_dir) == str(tmp_path / "c")
    assert trial.best_checkpoint(is_dir) == str(tmp_path / "b")
    (tmp_path / "c").rmdir()
    (tmp_path / "b").rmdir()
    assert trial.last_checkpoint(is_dir) == str(tmp_path / "a")
    assert trial.best_checkpoint(is_dir) == str(tmp_path / "a")


def test_failed_and_interrupted_trials_are_missing_and_finished_ones_are_not(tmp_path: Path) -> None:
    journal = Journal(tmp_path, KEYS)
    for key in "abc":
        journal[key].start()
    journal["a"].done()
    journal["b"].failed("boom")
    again = Journal(tmp_path, KEYS)
    assert again.missing() == ["b", "c", "d"]
    assert (again.count("done"), again.count("failed"), again.count("running"), again.count("pending")) == (1, 1, 1, 1)
    assert again["b"].error == "boom"


def finish(results: Path, config: SweepConfig, trials: int) -> None:
    workspace = open_workspace(Results(results), config.name)
    assert workspace is not None
    for trial in resolve(config).trials[:trials]:
        workspace.journal([trial.key])[trial.key].done()


def test_a_sweep_of_a_name_is_one_sweep(tmp_path: Path) -> None:
    config = sweep("s", "numbered=false")
    assert choose(Results(tmp_path), config, None, 2).existing is None
    made = create_workspace(Results(tmp_path), config)
    found = choose(Results(tmp_path), config, None, 2)
    assert found.existing == made
    assert existing_workspace(Results(tmp_path), "s").config() == config
    with pytest.raises(UserError, match=r"advice\.theta_frac: 0\.5 → 0\.3"):
        choose(Results(tmp_path), sweep("s", "numbered=false", "advice.theta_frac=0.3"), None, 2)
    with pytest.raises(UserError, match=r"in use with another configuration"):
        choose(Results(tmp_path), sweep("t", "advice.theta_frac=0.3"), "s", 2)


def test_a_numbered_sweep_goes_on_where_it_was_interrupted_and_else_takes_the_next_number(tmp_path: Path) -> None:
    config = sweep()
    create_workspace(Results(tmp_path), config)
    going_on = choose(Results(tmp_path), config, None, 2)
    assert going_on.existing is not None and "interrupted with 0 of 2" in going_on.note
    finish(tmp_path, config, 1)
    assert "interrupted with 1 of 2" in choose(Results(tmp_path), config, None, 2).note
    finish(tmp_path, config, 2)
    second = choose(Results(tmp_path), config, None, 2)
    assert (second.existing, second.config.name) == (None, "s-2")
    create_workspace(Results(tmp_path), second.config)
    assert choose(Results(tmp_path), config, None, 2).config.name == "s-2"
    finish(tmp_path, second.config, 2)
    assert choose(Results(tmp_path), config, None, 2).config.name == "s-3"
    changed = sweep("s", "advice.theta_frac=0.3")
    assert choose(Results(tmp_path), changed, None, 2).config.name == "s-3"


def test_a_numbered_sweep_with_a_name_is_that_sweep(tmp_path: Path) -> None:
    config = sweep()
    create_workspace(Results(tmp_path), config)
    finish(tmp_path, config, 2)
    assert choose(Results(tmp_path), config, "s", 2).existing is not None


@pytest.mark.parametrize("numbered", ["true", "false"])
def test_more_seeds_extend_the_sweep_that_exists(tmp_path: Path, numbered: str) -> None:
    create_workspace(Results(tmp_path), sweep("s", f"numbered={numbered}"))
    finish(tmp_path, sweep("s", f"numbered={numbered}"), 2)
    longer = choose(Results(tmp_path), sweep("s", f"numbered={numbered}", "seeds=3"), None, 6)
    assert longer.existing is not None and longer.config.all_seeds == [0, 1, 2]
    assert "'s' gets the seeds 1, 2 more" in longer.note
    longer.existing.set_config(longer.config)
    assert existing_workspace(Results(tmp_path), "s").config() == longer.config


def test_a_sweep_knows_whether_mlflow_has_all_of_it(tmp_path: Path) -> None:
    workspace = create_workspace(Results(tmp_path), sweep())
    assert not workspace.is_sent()
    workspace.set_sent(True)
    assert existing_workspace(Results(tmp_path), "s").is_sent()
    workspace.set_sent(False)
    assert not workspace.is_sent()


def test_a_running_sweep_is_left_alone(tmp_path: Path) -> None:
    config = sweep()
    workspace = create_workspace(Results(tmp_path), config)
    with workspace.held(print):
        assert workspace.is_running()
        assert choose(Results(tmp_path), config, None, 2).config.name == "s-2"
    assert not workspace.is_running()


def test_of_two_commands_that_begin_a_sweep_at_once_one_gives_way(tmp_path: Path) -> None:
    first = create_workspace(Results(tmp_path), sweep())
    with pytest.raises(UserError, match="another driver has just begun a sweep 's'"):
        create_workspace(Results(tmp_path), sweep("s", "seeds=2"))
    with first.held(print), pytest.raises(UserError, match="another driver has just begun a sweep 's'"):
        create_workspace(Results(tmp_path), sweep())
    assert existing_workspace(Results(tmp_path), "s") == first and first.config() == sweep()


def test_a_command_that_only_looks_keeps_no_driver_away(tmp_path: Path) -> None:
    workspace = create_workspace(Results(tmp_path), sweep())
    has_lock = threading.Event()

    def look() -> None:
        with workspace._lock().acquire(timeout=0):
            has_lock.set()
            time.sleep(0.1)

    looking = threading.Thread(target=look)
    looking.start()
    assert has_lock.wait(10)
    with workspace.held(print):
        looking.join()


@pytest.mark.parametrize("name", ["a/b", "..", ""])
def test_a_name_that_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="--name"):
        choose(Results(tmp_path), sweep(), name, 2)


def test_resuming_what_is_not_there_shows_what_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none yet"):
        existing_workspace(Results(tmp_path), "demo")
    create_workspace(Results(tmp_path), sweep("mine"))
    with pytest.raises(UserError, match="Did you mean 'mine'"):
        existing_workspace(Results(tmp_path), "mien")


def test_a_results_folder_that_cannot_be_written_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        check_writable(Results(tmp_path / "file" / "runs"))
    check_writable(Results(tmp_path / "new" / "runs"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_database_file_that_is_not_there_yet_is_accepted_where_it_can_be_made(tmp_path: Path) -> None:
    check_uri(f"sqlite:///{tmp_path}/new/mlflow.db")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="no folder that can be written to"):
        check_uri(f"sqlite:///{tmp_path}/file/mlflow.db")


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_a_database_is_knocked_at_before_mlflow_tries_it_for_hours(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    knocked: list[tuple[str, int]] = []

    def nobody(address: tuple[str, int], timeout: float) -> None:
        knocked.append(address)
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr("tune_sweeps.tracking.mlflow_client.socket.create_connection", nobody)
    with pytest.raises(UserError, match="refused") as caught:
        check_database(f"{scheme}://user:secret@127.0.0.1/mlflow")
    assert knocked == [("127.0.0.1", 5432)]
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("postgresql+a+b://user:secret@host/mlflow", r"no address of a database .* postgresql\+a\+b:"),
        ("sqlite+nosuch:///mlflow.db?key=secret", r"no address of a database .* sqlite\+nosuch:"),
        ("postgresql+nosuch://user:secret@host/mlflow", r"no address of a database .* postgresql\+nosuch:"),
        ("postgresql+pg8000://user:secret@host/mlflow", r"not installed \(package 'pg8000'\)"),
        ("postgresql:secret:mlflow", "no address of a database"),
    ],
)
def test_a_database_that_mlflow_could_not_open_is_refused_without_its_password(uri: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        check_database(uri)
    assert "secret" not in str(caught.value)


def test_too_little_memory_is_said_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="max_concurrent=1"):
        check_machine(Results(tmp_path), "sqlite:///x", concurrent=2, memory_mib_per_trial=10**9, local=True)
    check_machine(Results(tmp_path), "sqlite:///x", concurrent=2, memory_mib_per_trial=10**9, local=False)


def test_progress_counts_guesses_the_end_and_knows_the_best(tmp_path: Path) -> None:
    trials = {t.key: t for t in resolve(sweep("s", "num_env_steps=1000", "tutors=[oracle]")).trials}
    journal = Journal(tmp_path, trials)
    progress = Progress(trials, journal)
    assert progress.eta_s(1) is None
    untutored, tutored = trials
    for key, value in ((untutored, 0.1), (tutored, 0.7)):
        journal[key].start()
        progress.begin(key)
        journal[key].result(500, 2.0, {"eval/return_mean": value, "advice/consultations": 30, "advice/missed": 1})
        progress.advance(key, 2.0)
    assert progress.eta_s(1) == pytest.approx(2 * 2.0)
    assert progress.eta_s(2) == pytest.approx(2.0)
    assert progress.fraction(untutored) == 0.5
    assert progress.best() == {"blackjack": (0.7, "ppo · oracle · blackjack · seed 0")}
    assert progress.advice()["consultations"] == 60
    journal[untutored].done()
    progress.end(untutored)
    assert progress.eta_s(1) == pytest.approx(2.0)
    assert list(progress.running) == [tutored]


def test_trials_that_start_are_not_called_none_running(tmp_path: Path) -> None:
    trials = {t.key: t for t in resolve(sweep("s")).trials}
    journal = Journal(tmp_path, trials)
    progress = Progress(trials, journal)
    view = View(Console(), progress, concurrent=1)
    assert "0/2 done · starting · 0 failed" in view.summary() and "ETA" not in view.summary()
    first, second = trials
    journal[first].start()
    progress.begin(first)
    assert "1 running" in view.summary() and "ETA –" in view.summary()
    progress.end(first)
    journal[first].done()
    journal[second].done()
    assert "2/2 done · 0 running" in view.summary()


def test_speeds_come_from_finished_trials(tmp_path: Path) -> None:
    folder = tmp_path / "s" / "journal"
    journal = Journal(folder, ["ppo-none-blackjack-s0", "dqn-none-blackjack-s0"])
    journal["ppo-none-blackjack-s0"].result(1_000, 4.0, {})
    journal["ppo-none-blackjack-s0"].done()
    journal["dqn-none-blackjack-s0"].result(1_000, 4.0, {})
    assert known_speeds(tmp_path) == {"ppo": 250.0}


DRIVER = """
import sys
from pathlib import Path
from tune_sweeps.tracking.journal import Journal

journal = Journal(Path(sys.argv[1]), list("abcd"))
while True:
    for key, trial in journal.trials.items():
        step = trial.points[-1].step + 1 if trial.points else 0
        trial.result(step, 1.0, {"m": step / 7})
        print(key, step, flush=True)
        if step % 50 == 49:
            trial.checkpoint(step, f"somewhere/{step}")
"""


def test_a_killed_driver_has_lost_nothing_that_it_wrote(tmp_path: Path) -> None:
    """Three drivers, one after the other, each killed in the midst of it."""
    written: dict[str, int] = {}
    for lines in (300, 777, 1_001):
        command = [sys.executable, "-c", DRIVER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as driver:
            assert driver.stdout is not None
            for _ in range(lines):
                key, step = driver.stdout.readline().split()
                assert int(step) == written.get(key, -1) + 1, "the journal had a hole"
                written[key] = int(step)
            driver.kill()
            for line in driver.stdout.read().splitlines(keepends=True):
                if line.endswith("\\n"):
                    key, step = line.split()
                    written[key] = int(step)
        found = Journal(tmp_path, KEYS)
        for key in KEYS:
            steps = [point.step for point in found[key].points_from(0)]
            assert steps == list(range(len(steps))) and steps[-1] >= written[key]
            written[key] = steps[-1]
