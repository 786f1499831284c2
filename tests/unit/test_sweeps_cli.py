"""The command line: help, lists, dry runs and mistakes, in one line and with status 2."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from io import FileIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner

from tune_sweeps.cli import app as cli
from tune_sweeps.cli import sweep
from tune_sweeps.cluster import session
from tune_sweeps.cluster.session import RayCluster
from tune_sweeps.console.signals import cleaning_up
from tune_sweeps.console.terminal import quiet
from tune_sweeps.definition.loading import load_sweep
from tune_sweeps.report.growth import MAX_SEEDS
from tune_sweeps.run import sweep as run_module
from tune_sweeps.run.workspace import create_workspace, existing_workspace
from tune_sweeps.storage import segments
from tune_sweeps.storage.results import Results
from tutor_service import serving
from tutor_service.errors import UserError

COMMANDS = ["sweep", "serve", "ask", "grade", "train", "play", "report", "ui", "store", "tutors", "tasks", "presets"]
COMMANDS += ["compare", "doctor", "init"]


def tutor(*arguments: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["tutor", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLM_TUTORS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return tmp_path


def test_help_names_every_command() -> None:
    shown = CliRunner().invoke(cli.app, ["--help"])
    assert shown.exit_code == 0
    assert all(f" {name} " in shown.output for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    shown = CliRunner().invoke(cli.app, [name, "--help"], terminal_width=200)
    assert shown.exit_code == 0
    assert len(shown.output.splitlines()) > 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["swep"], "sweep"),
        (["sweep"], "which sweep?"),
        (["sweep", "dmeo"], "Did you mean 'demo'"),
        (["sweep", ""], "unknown preset ''"),
        (["sweep", "demo", "--bogus"], "--bogus"),
        (["sweep", "demo", "--set", "tutors=[smolm2]"], "Did you mean 'smollm2'"),
        (["sweep", "demo", "--set", "tasks=[blakjack]"], "Did you mean 'blackjack'"),
        (["sweep", "demo", "--set", "seed=3"], "Did you mean 'seeds'"),
        (["sweep", "demo", "--set", "algorithms=[pppo]"], "algorithms.0 = 'pppo'"),
        (["sweep", "demo", "--set", "algorithms=[pppo]"], "Did you mean 'ppo'"),
        (["sweep", "demo", "--set", "seeds=20000"], "10,000"),
        (["sweep", "demo", "--set", "hyperparameters.ppo.lrr=1"], "unknown hyperparameter 'lrr'. Did you mean 'lr'"),
        (["sweep", "demo", "--dry-run", "--set", "hyperparameters.dqn.lr=fast"], "hyperparameter lr = 'fast'"),
        (["sweep", "demo", "--resume", "demo"], "leave out the preset"),
        (["sweep", "--more-seeds", "5"], "name of a sweep"),
        (["sweep", "demo", "--more-seeds", "5"], "no sweep 'demo'"),
        (["sweep", "--resume", "demo"], "Run `tutor sweep demo`"),
        (["sweep", "--resume", "demo", "--results", "my runs"], "Run `tutor sweep demo --results 'my runs'`"),
        (["sweep", "--from", "demo"], "no sweep 'demo'"),
        (["sweep", "demo", "--from", "demo"], "Leave one of them out"),
        (["sweep", "--resume", "demo", "--from", "demo"], "--from"),
        (["sweep", "demo", "--json"], "--json goes with --dry-run"),
        (["report", "demo"], "no sweep has run here"),
        (["compare", "demo", "demo-2"], "no sweep has run here"),
        (["compare", "demo", "demo"], "are one sweep: name two"),
        (["ui"], "no sweep has run here"),
        (["ui", "--results", "mine"], "Run `tutor sweep demo --results mine`"),
        (["play", "demo"], "no sweep has run here"),
        (["store", "stats"], "no advice is stored"),
        (["ask", "smolm2", "blackjack"], "Did you mean 'smollm2'"),
        (["ask", "none", "blackjack"], "no one to ask"),
        (["grade", "none", "blackjack"], "no one to grade"),
        (["ask", "oracle", "blakjack"], "Did you mean 'blackjack'"),
        (["ask", "oracle", "blackjack", "--state", "You hold 20."], "leave out --state"),
        (["ask", "oracle", "blackjack", "--notes", "notes.md"], "leave out --notes"),
        (["ask", "smollm2", "blackjack", "--notes", "notes.pdf"], "must end in .txt or .md"),
        (["ask", "smollm2", "blackjack", "--notes", "nowhere/notes.md"], "a folder that exists"),
        (["grade", "oracle", "blackjack", "--num-states", "1000000000000"], "--num-states"),
        (["train", "pppo", "blackjack"], "Did you mean 'ppo'"),
        (["train", "ppo", "blackjack", "--set", "hyperparameters.lrr=1"], "Did you mean 'lr'"),
        (["train", "ppo", "blackjack", "--set", "task=snake"], "task is given by TASK"),
        (["train", "ppo", "blackjack", "--set", "num_env_steps=9"], "num_env_steps is given by --steps"),
        (["train", "ppo", "blackjack", "--set", "num_env=3"], "Did you mean 'num_envs'"),
        (["train", "ppo", "blackjack", "--set", "seed=-1"], "seed"),
        (["train", "ppo", "blackjack", "--set", "advice.thet=3"], "advice.thet"),
        (["serve", "oracle"], "nothing to serve"),
        (["serve", "smollm2", "--replicas", "smollm2=0"], "at least 1"),
        (["serve", "smollm2", "--stop"], "--address"),
    ],
)
def test_a_mistake_is_one_line_with_status_2(
    arguments: list[str],
    words: str,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    status, out, err = tutor(*arguments, capsys=capsys, monkeypatch=monkeypatch)
    assert status == 2
    assert err.startswith("error: ") and len(err.strip().splitlines()) == 1
    assert words in err
    assert "Traceback" not in out + err
    assert not (here / "runs").exists()


def test_a_dry_run_shows_everything_and_starts_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, out, _ = tutor("sweep", "laptop54", "--dry-run", capsys=capsys, monkeypatch=monkeypatch)
    assert status == 0
    for words in ("63 cells, 63 trials", "env steps: ", "LLM evaluations of smollm2: at most", "time: ", "resources: "):
        assert words in out
    own_play = "each tutor plays 32 episodes"
    assert own_play not in out, "its students do not ask for their tutor's level"
    for setting, is_played in (
        ("seeds=1", True),
        ("evaluation.tutor_episodes=0", False),
        ("tutors=[oracle]", False),
    ):
        command = ("sweep", "demo", "--dry-run", "--set", setting)
        assert (own_play in tutor(*command, capsys=capsys, monkeypatch=monkeypatch)[1]) == is_played
    assert sorted(path.name for path in here.iterdir()) == []


def test_a_fork_gets_a_name_of_its_own_and_leaves_the_sweep_as_it_is(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_sweep("demo", ["tutors=[oracle]", "seeds=1"])
    create_workspace(Results(here / "runs"), config)
    fork = ["sweep", "--from", "demo", "--dry-run", "--set", "seeds=2", "--set", "num_envs=4"]
    status, out, _ = tutor(*fork, capsys=capsys, monkeypatch=monkeypatch)
    assert status == 0 and "this is 'demo-2'" in out and "6 cells, 12 trials" in out
    for same in (fork[:4], fork[:6]):
        status, _, err = tutor(*same, capsys=capsys, monkeypatch=monkeypatch)
        assert status == 2 and "that is the same sweep, seeds apart" in " ".join(err.split())
    assert existing_workspace(Results(here / "runs"), "demo").config() == config


def test_a_fork_that_runs_until_it_is_decided_plans_its_seeds_first(here: Path) -> None:
    create_workspace(Results(here / "runs"), load_sweep("demo", ["tutors=[oracle]", "seeds=3"]))
    options = sweep.SweepOptions(from_="demo", set_=["num_envs=4"], until_decided=True)
    assert sweep._choose(options).config.statistics.max_seeds == MAX_SEEDS


def test_a_cluster_that_is_away_is_refused_before_anything_is_made(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _, err = tutor("sweep", "demo", "--address", "127.0.0.1:9", capsys=capsys, monkeypatch=monkeypatch)
    assert status == 2 and "no Ray answers at '127.0.0.1:9'" in " ".join(err.split())
    assert not (here / "runs").exists()


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "postgresql+psycopg://me:secret@127.0.0.1:9/mlflow"])
def test_a_tracking_server_that_is_away_is_refused_before_anything_is_made(
    uri: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    status, _, err = tutor("sweep", "demo", capsys=capsys, monkeypatch=monkeypatch)
    said = " ".join(err.split())
    assert status == 2 and "MLflow cannot use" in said and "refused" in said and "secret" not in said
    assert not (here / "runs").exists()


def test_a_results_folder_that_cannot_be_made_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "file").write_text("")
    status, _, err = tutor("sweep", "demo", "--results", "file/runs", capsys=capsys, monkeypatch=monkeypatch)
    assert status == 2 and "cannot be written" in err


def test_lists_show_what_there_is(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for command, words in (("tutors", "smollm2"), ("tasks", "connect_four"), ("presets", "laptop54")):
        status, out, _ = tutor(command, capsys=capsys, monkeypatch=monkeypatch)
        assert status == 0 and words in out


def test_a_student_without_a_tutor_shows_dashes_for_what_it_does_not_have(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(student: Any, on_result: Any) -> None:
        on_result(
            {
                "num_env_steps_sampled_lifetime": 0,
                "eval/return_mean": 0.5,
                "return_mean": float("nan"),
                "advice/trust": 0.84,
            }
        )

    monkeypatch.setattr("rllib_plugins.trial.train", train)
    _, out, _ = tutor("train", "ppo", "blackjack", capsys=capfd, monkeypatch=monkeypatch)
    assert out.splitlines()[-1].split() == ["0", "0.5000", "–", "0", "–"]
    _, out, _ = tutor("train", "ppo", "blackjack", "--tutor", "oracle", capsys=capfd, monkeypatch=monkeypatch)
    assert out.splitlines()[-1].split() == ["0", "0.5000", "–", "0", "0.84"]


def test_an_oracle_is_asked_without_a_service(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, out, _ = tutor("ask", "oracle", "blackjack", capsys=capsys, monkeypatch=monkeypatch)
    assert status == 0
    assert re.search(r"(stick|hit)\s+1\.000", out)


def test_a_recorded_answer_is_shown_raw_and_as_it_is_read(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rllib_plugins.tasks import load_task

    task = load_task("blackjack")
    rows = [
        {
            "state": task.describe((total, dealer, ace)),
            "actions": task.actions,
            "probabilities": [0.5 + total / 100, 0.5 - total / 100],
            "legal_mass": 1.0,
        }
        for total in range(4, 22)
        for dealer in range(1, 11)
        for ace in (0, 1)
        if total >= 12 or not ace
    ]
    (here / "answers.jsonl").write_text("".join(json.dumps({"rules": task.rules, **row}) + "\n" for row in rows))
    (here / "mine.yaml").write_text("backend: recorded\nfile: answers.jsonl\ncalibration: batch\nadvice: best\n")
    status, out, _ = tutor("ask", "mine.yaml", "blackjack", capsys=capsys, monkeypatch=monkeypatch)
    assert status == 0 and "calibration: batch" in out
    total = int(re.search(r"\b(\d+)\b", out)[1])
    found = {name: re.search(rf"{name}((?:\s+[01]\.\d+){{3}})", out)[1].split() for name in task.actions}
    (raw, read, followed), (_, other, _) = (list(map(float, found[name])) for name in task.actions)
    assert raw == pytest.approx(0.5 + total / 100) and read < raw
    assert followed == float(read > other)


def test_a_prompts_padding_is_counted_and_its_words_are_shown_as_they_are() -> None:
    from tune_sweeps.cli.ask import compact

    assert compact("Rules.\n\nState.\n\n\nEnd.") == "Rules.\n\nState.\n\n\nEnd."
    assert compact("Rules." + "\n" * 20 + "State.") == (
        "Rules.\n[18 more line feeds, to fill a block of the prefix cache]\nState."
    )


def test_help_starts_nothing_heavy() -> None:
    code = (
        "import sys; from tune_sweeps.cli.app import app; from typer.testing import CliRunner; "
        "CliRunner().invoke(app, ['sweep', '--help']); print(*sys.modules)"
    )
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & {"ray", "torch", "mlflow", "gymnasium", "numpy", "scipy", "matplotlib", "pandas", "vllm"}


def test_what_libraries_print_goes_to_the_log_and_our_words_do_not(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import os

    from tune_sweeps.console.terminal import quiet

    with quiet(tmp_path / "log.txt") as console:
        os.write(1, b"noise out\n")
        os.write(2, b"noise err\n")
        subprocess.run([sys.executable, "-c", "print('noise of a child')"], check=True)
        console.print("our words [llama]")
    os.write(1, b"after\n")
    out, err = capfd.readouterr()
    assert out == "our words [llama]\nafter\n" and not err
    log = (tmp_path / "log.txt").read_text()
    assert all(words in log for words in ("noise out", "noise err", "noise of a child"))


def test_a_task_of_ones_own_takes_the_place_of_a_presets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ("--task", "examples.frozen_lake:FrozenLakeTask", "--set", "num_env_steps=1234")
    status, out, _ = tutor("sweep", "demo", *own, "--dry-run", capsys=capsys, monkeypatch=monkeypatch)
    assert status == 0
    assert "frozen_lake" in out and "blackjack" not in out
    assert "1,234" in out


def test_a_task_needs_no_preset(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    own = ("sweep", "--task", "examples.frozen_lake:FrozenLakeTask", "--dry-run")
    status, out, _ = tutor(*own, capsys=capsys, monkeypatch=monkeypatch)
    assert status == 0
    assert "sweep 'frozen_lake': 9 cells, 27 trials" in out
    monkeypatch.setattr("rllib_plugins.tasks.base.Task.has_oracle", False)
    status, out, _ = tutor(*own, capsys=capsys, monkeypatch=monkeypatch)
    assert status == 0 and "6 cells, 18 trials" in out and "oracle" not in out


def test_the_ui_is_opened_on_the_page_that_lists_sweeps(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    status, out, _ = tutor("ui", capsys=capsys, monkeypatch=monkeypatch)
    assert status == 0 and "http://127.0.0.1:9/#/experiments?workflowType=machine_learning" in out
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9/")
    _, out, _ = tutor("ui", capsys=capsys, monkeypatch=monkeypatch)
    assert "http://127.0.0.1:9/#/" in out and "secret" not in out


@pytest.mark.parametrize("command", [["ui"], ["report", "s"]])
def test_an_option_in_a_databases_address_is_no_part_of_its_name(
    command: list[str], here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db?timeout=30")
    monkeypatch.setattr("tune_sweeps.tracking.reader.make_client", lambda uri: NoSweep())
    monkeypatch.setattr("os.execv", lambda *command: sys.exit(0))
    status, _, err = tutor(*command, capsys=capsys, monkeypatch=monkeypatch)
    assert status == 2 and "no sweep has run here: 'mlflow.db' does not exist" in " ".join(err.split())
    (here / "mlflow.db").touch()
    _, _, err = tutor(*command, capsys=capsys, monkeypatch=monkeypatch)
    assert "does not exist" not in " ".join(err.split())


def test_a_finished_sweep_that_gets_more_seeds_is_unfinished_until_mlflow_has_them(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = create_workspace(Results(here / "runs"), load_sweep("small", ["tutors=[oracle]", "name=s"]))
    workspace.set_sent(True)

    def run_sweep(*_: object, **__: object) -> None:
        assert not workspace.is_sent(), "a kill now would leave MLflow without the new seeds for good"
        raise UserError("seen")

    monkeypatch.setattr(run_module, "run_sweep", run_sweep)
    status, _, err = tutor("sweep", "s", "--more-seeds", "1", capsys=capfd, monkeypatch=monkeypatch)
    assert status == 2 and "seen" in err


class NoSweep:
    """MLflow, in which there is nothing."""

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def search_experiments(self, max_results: int) -> list[None]:
        return []


class DeafTracker:
    """MLflow's, which has everything at once."""

    parent_id, away_since = "", None
    has_references = True
    ended_as: ClassVar[list[str]] = []

    def __init__(self, *_: object) -> None:
        pass

    def start(self) -> None:
        pass

    def knows_references(self, task: str) -> bool:
        return self.has_references

    def set_references(self, task: str, returns: dict[str, float]) -> None:
        raise AssertionError("they were interrupted")

    def finish(self, status: str, timeout_s: float) -> bool:
        self.ended_as.append(status)
        return True


def test_results_that_did_not_reach_the_disk_are_no_success(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullDisk(FileIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    def run_missing(running: Any, address: str | None, num_cpus: int | None) -> None:
        monkeypatch.setattr(segments, "FileIO", FullDisk)
        for trial in running.journal.trials.values():
            trial.done()

    monkeypatch.setattr(run_module, "MlflowTracker", DeafTracker)
    monkeypatch.setattr(run_module, "_run_missing", run_missing)
    command = ["sweep", "small", "--set", "tutors=[oracle]", "--name", "s"]
    status, out, _ = tutor(*command, capsys=capfd, monkeypatch=monkeypatch)
    assert status == 1 and "finished" not in out
    assert "results could not be written (No space left on device)" in out and "--resume s" in out
    assert not existing_workspace(Results(here / "runs"), "s").is_sent() and DeafTracker.ended_as.pop() == "FAILED"


def disk_full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_sweep_whose_log_finds_the_disk_full_says_how_to_go_on(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("traceback.print_exc", disk_full)
    monkeypatch.setattr(run_module, "run_sweep", lambda *_, **__: disk_full())
    command = ["sweep", "small", "--set", "tutors=[oracle]", "--name", "s"]
    status, _, err = tutor(*command, capsys=capfd, monkeypatch=monkeypatch)
    assert status == 2 and "the sweep broke off (OSError)" in err and "--resume s" in " ".join(err.split())


def test_what_a_full_disk_keeps_from_the_log_ends_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as during, quiet(tmp_path / "log.txt"):
        during.setattr(sys, "stdout", SimpleNamespace(flush=disk_full))


def test_a_tutor_that_sweeps_take_down_at_their_end_is_not_served(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = RayCluster(local=False, cpus=32, gpus=1, nodes=1)
    monkeypatch.setattr(session, "ray_cluster", lambda address, cpus: nullcontext(cluster))
    monkeypatch.setattr(serving, "lease_holders", lambda: {"llama": ["tutor sweep paper"]})
    monkeypatch.setattr(serving, "deploy", lambda *_, **__: pytest.fail("it was deployed over the sweep's"))
    command = ["serve", "llama", "--address", "auto"]
    status, _, err = tutor(*command, capsys=capfd, monkeypatch=monkeypatch)
    assert status == 2 and "held by tutor sweep paper" in " ".join(err.split())


def test_ctrl_c_ends_what_a_sweep_does_after_its_trials(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def play_references(task: object, oracle: bool) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
        raise AssertionError("it went on")

    monkeypatch.setattr(DeafTracker, "has_references", False)
    monkeypatch.setattr(run_module, "MlflowTracker", DeafTracker)
    monkeypatch.setattr(run_module, "_run_missing", lambda *_: cleaning_up())
    monkeypatch.setattr(run_module, "reference_returns", play_references)
    command = ["sweep", "small", "--set", "tutors=[oracle]", "--name", "s"]
    status, out, _ = tutor(*command, capsys=capfd, monkeypatch=monkeypatch)
    assert status == 130 and "stopped: 0 of" in out and DeafTracker.ended_as.pop() == "KILLED"
