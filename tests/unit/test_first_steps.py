"""The recorded path of a new user is that of the program that records it, and names nothing of the machine."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path

import pytest

from rllib_plugins.tasks import load_task
from tools import first_steps
from tools.first_steps import PAGE, STEPS, Step, answers, record, tidy
from tune_sweeps.run.scaffolds import write_start


def test_the_page_shows_the_steps_in_order() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^\$ (.*)$", page, re.MULTILINE) == [step.command for step in STEPS]
    assert all(step.words in page for step in STEPS)


def test_the_page_names_no_place_and_no_machine() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert not re.search(r"/(tmp|root|home|work|var|opt)/", page)
    assert socket.gethostname() not in page


def test_what_is_shown_loses_places_and_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "box17")
    shown = f"\x1b[1mwrote {tmp_path}/runs/a.md\x1b[0m  \nin {tmp_path} on box17\n\n"
    assert tidy(shown, tmp_path) == "wrote runs/a.md\nin . on HOST"


def test_a_step_that_fails_is_not_written_down(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="status 3"):
        record(Step("Fails.", "python -c 'raise SystemExit(3)'"), tmp_path)
    assert record(Step("Works.", "python -c 'print(7)'"), tmp_path).endswith("$ python -c 'print(7)'\n7\n```\n")


def test_the_recorded_tutor_answers_every_state_of_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    write_start("task", "steps_maze")
    task = load_task("steps_maze:StepsMaze")
    rows = answers(task.rules, task.actions)
    assert len({row["state"] for row in rows}) == len(rows) == first_steps.LENGTH * (first_steps.LENGTH - 1)
    observation, _ = task.make().reset(seed=0)
    assert task.describe(task.raw_observation(observation)) in {row["state"] for row in rows}
