"""What is logged during a sweep says where it belongs, in a form that machines read."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tune_sweeps.console import json_logs as logs
from tune_sweeps.run import trial as trial_module
from tune_sweeps.run.trial import TRIAL, Pace, resumable
from tune_sweeps.storage.checkpoints import Checkpoints


@pytest.fixture(autouse=True)
def only_here() -> Iterator[None]:
    yield
    logging.getLogger().removeHandler(logs._handler)


class Student:
    """Stands for a trainable whose checkpoint is of no use."""

    def setup(self, config: dict) -> None:
        logging.getLogger("rllib_plugins.somewhere").warning("the tutor is left alone")

    def step(self) -> dict:
        return {}

    def cleanup(self) -> None:
        pass


def written(capsys: pytest.CaptureFixture[str]) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_trials_records_carry_sweep_trial_and_tutor(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "setpriority", lambda *arguments: None)
    student = resumable(Student, Checkpoints.of_folder(Path()), Pace(1, 0.0))()  # type: ignore[arg-type]
    for key in ("first", "second"):  # Tune uses an actor for one trial after the other
        student.setup({TRIAL: {"sweep": "demo", "key": key, "student": {"tutor": "smollm2"}}})
    first, second = written(capsys)
    assert (first["sweep"], first["trial"], first["tutor"]) == ("demo", "first", "smollm2")
    assert second["trial"] == "second"
    assert (first["level"], first["logger"]) == ("WARNING", "rllib_plugins.somewhere")
    assert first["message"] == "the tutor is left alone"


def test_a_record_is_one_line_whatever_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    logs.bind(sweep="demo")
    try:
        raise ValueError("no\nway")
    except ValueError:
        logging.getLogger("anything").exception("two\nlines of %d", 2)
    (record,) = written(capsys)
    assert record["sweep"] == "demo" and "trial" not in record
    assert record["message"] == "two\nlines of 2"
    assert "ValueError: no\nway" in record["error"]


def test_a_trial_writes_checkpoints_by_evaluations_and_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "setpriority", lambda *arguments: None)
    now = 0.0
    monkeypatch.setattr(trial_module, "time", SimpleNamespace(monotonic=lambda: now))
    student = resumable(Student, Checkpoints.of_folder(Path()), Pace(2, 60.0))()  # type: ignore[arg-type]
    student.setup({TRIAL: {"sweep": "demo", "key": "first", "student": {"tutor": "none"}}})
    saves = []
    for second in (10, 20, 59, 60, 70, 119, 120):
        now = float(second)
        saves.append(second if student.step().get("should_checkpoint") else None)
    assert [second for second in saves if second] == [60, 120]
    student.setup({TRIAL: {"sweep": "demo", "key": "second", "student": {"tutor": "none"}}})
    now = 179.0
    assert not any(student.step().get("should_checkpoint") for _ in range(3)), "the next trial's clock begins anew"
