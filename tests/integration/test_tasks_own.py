"""A user's own task, from a file outside the packages, through a whole sweep."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tune_sweeps.run.scaffolds import write_start

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "frozen_lake.py"


def test_the_example_is_at_most_thirty_lines() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 30


def test_the_tests_that_a_start_comes_with_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_start("task", "own_maze")
    write_start("rule", "own_rule")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_own_maze.py", "test_own_rule.py"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout


def test_a_sweep_picks_up_a_task_by_module_and_object_and_its_best_student_can_be_watched(tmp_path: Path) -> None:
    def tutor(*arguments: str) -> str:
        done = subprocess.run(
            [str(Path(sys.executable).parent / "tutor"), *arguments, "--results", str(tmp_path / "runs")],
            cwd=tmp_path,
            env={**os.environ, "LLM_TUTORS_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    shutil.copy(EXAMPLE, tmp_path / "mylake.py")
    sweep = {
        "version": 1,
        "name": "own",
        "algorithms": ["ppo"],
        "tutors": ["oracle"],
        "tasks": ["mylake:FrozenLakeTask"],
        "reuse": [True],
        "seeds": 1,
        "num_env_steps": {"mylake:FrozenLakeTask": 600},
        "evaluation": {"interval_steps": 300},
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(sweep), encoding="utf-8")
    said = tutor("sweep", "own.yaml")
    assert "finished: 2 of 2 trials" in said and "frozen_lake" in said
    watched = tutor("play", "own", "--episodes", "1")
    assert "greedy, no tutor" in watched and "→" in watched and "mean return over 1 episode:" in watched


def test_the_tutorial_ends_with_a_tutored_student_that_has_learnt() -> None:
    command = [sys.executable, "-m", "examples.tutored_student", "--num-env-steps", "3000"]
    done = subprocess.run(command, cwd=EXAMPLE.parents[1], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    first, *_, last = [line.split() for line in done.stdout.splitlines() if line.strip()[:1].isdigit()]
    assert float(last[2]) > float(first[2]) + 0.1
