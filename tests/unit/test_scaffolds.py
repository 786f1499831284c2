"""What `tutor init` writes works as it is and passes its own test."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rllib_plugins.evaluation import evaluate
from rllib_plugins.tasks import load_task
from rllib_plugins.tasks.registry import task_names
from rllib_plugins.yardsticks import trivial_players, untrained_returns
from tune_sweeps.cli import app as cli
from tune_sweeps.definition.loading import load_sweep
from tune_sweeps.definition.resolve import resolve
from tune_sweeps.run.scaffolds import KINDS, write_start
from tutor_service.errors import UserError
from tutor_service.tutor_files import load_tutor


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    importlib.invalidate_caches()
    return tmp_path


@pytest.mark.parametrize(("kind", "name"), [*((kind, f"begun_{kind}") for kind in KINDS), ("task", "corridor")])
def test_a_start_is_written_and_loaded(kind: str, name: str, here: Path) -> None:
    shown = CliRunner().invoke(cli.app, ["init", kind, name])
    assert shown.exit_code == 0, shown.exception
    written = sorted(path.name for path in here.iterdir() if path.is_file())
    assert written and all(f"wrote {name}" in shown.output for name in written)
    assert all("$" not in path.read_text() for path in here.iterdir() if path.is_file())
    assert shown.output.splitlines()[-1].startswith("next: tutor ")


def test_a_tutor_that_is_written_is_one_that_a_sweep_takes(here: Path) -> None:
    written = write_start("tutor", "own_tutor")
    assert load_tutor(str(written.files[0])).name == "own_tutor"
    sweep = resolve(load_sweep("demo", [f"tutors=[{written.files[0]}]", "seeds=1"]))
    assert "own_tutor" in sweep.tutors


@pytest.mark.parametrize(("kind", "trials"), [("sweep", 30), ("rule", 27)])
def test_what_is_written_runs_dry_by_the_command_that_it_names(kind: str, trials: int, here: Path) -> None:
    command = write_start(kind, f"dry_{kind}").next
    shown = CliRunner().invoke(cli.app, [*shlex.split(command)[1:], "--json"])
    assert shown.exit_code == 0, shown.exception
    assert json.loads(shown.output)["num_trials"] == trials


def uncommented(text: str) -> list[str]:
    """Return a scaffold several times, each time with one more block of its commented fields."""
    lines, blocks = text.splitlines(), []
    for number, line in enumerate(lines):
        if re.match(r"# ([a-z_]+:|  +(- \{|- [a-z_]+:|[a-z_]+: \{))", line):
            if (
                blocks
                and blocks[-1][-1] == number - 1
                and not re.match("# (overrides|exclude|advice|statistics)", line)
            ):
                blocks[-1].append(number)
            else:
                blocks.append([number])
    assert blocks
    return ["\n".join(line[2:] if number in block else line for number, line in enumerate(lines)) for block in blocks]


def test_every_line_of_a_tutor_that_may_be_uncommented_is_taken(here: Path) -> None:
    (path,) = write_start("tutor", "whole_tutor").files
    texts = uncommented(path.read_text())
    assert len(texts) == 5
    for text in texts:
        if "\nbackend: openai" in text:
            text = re.sub(r"^(engine|model):.*\n", "", text, flags=re.MULTILINE) + "\nmodel: some/model\n"
        path.write_text(text)
        assert load_tutor(str(path)).name == "whole_tutor"


def test_every_line_of_a_sweep_that_may_be_uncommented_is_taken(here: Path) -> None:
    (path,) = write_start("sweep", "whole_sweep").files
    texts = uncommented(path.read_text())
    assert len(texts) == 4
    for text in texts:
        path.write_text(text)
        assert resolve(load_sweep(str(path))).trials


def test_the_tasks_oracle_beats_who_learns_nothing(here: Path) -> None:
    write_start("task", "worth_learning")
    task = load_task("worth_learning:WorthLearning")
    best = evaluate(task, task.oracle_batch, episodes=50, seed=0).return_mean
    trivial = [player.evaluation.return_mean for player in trivial_players(task, episodes=50)]
    untrained = untrained_returns(task, num_policies=3, episodes=50)
    assert best > 0.6 and best > max(*trivial, *untrained) + 0.3
    assert min(trivial) < 0.5


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("tsak", "maze", "Did you mean 'task'"),
        ("task", "My-Task", "no name for a task"),
        ("rule", "class", "no name for a rule"),
        ("task", "json", "installed already"),
        ("sweep", "../up", "no name for a sweep"),
        ("tutor", "there", "already: there.yaml"),
    ],
)
def test_what_cannot_be_written_is_refused_and_nothing_is_left(kind: str, name: str, said: str, here: Path) -> None:
    (here / "there.yaml").write_text("")
    with pytest.raises(UserError, match=said):
        write_start(kind, name)
    assert [path.name for path in here.iterdir()] == ["there.yaml"]
    assert name not in task_names()
