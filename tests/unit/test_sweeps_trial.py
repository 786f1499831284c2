"""A trial goes on where it was cut short, begins anew where its checkpoint is of no use, and waits where it is away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tune_sweeps.run import trial as trial_module
from tune_sweeps.run.trial import TRIAL, Pace, resumable
from tune_sweeps.storage.checkpoints import Checkpoints


class Student:
    """A trainable that notes what is done to it."""

    def setup(self, config: dict[str, Any]) -> None:
        self.history = [*getattr(self, "history", []), "begun"]

    def load_checkpoint(self, folder: str) -> None:
        self.history.append(folder)

    def cleanup(self) -> None:
        self.history.append("put away")


def restored(error: Exception | None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    class Checkpoint:
        def __init__(self, path: str, filesystem: object) -> None:
            self.path = path

        @contextmanager
        def as_directory(self) -> Iterator[str]:
            if error is not None:
                raise error
            yield self.path

    monkeypatch.setattr(os, "setpriority", lambda *arguments: None)
    monkeypatch.setattr(trial_module, "Checkpoint", Checkpoint)
    student = resumable(Student, Checkpoints.of_folder(Path()), Pace(1, 0.0))()  # type: ignore[arg-type]
    student.setup({TRIAL: {"sweep": "s", "key": "k", "student": {"tutor": "none"}, "restore": "there"}})
    history: list[str] = student.history
    return history


def test_a_trial_goes_on_from_its_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    assert restored(None, monkeypatch) == ["begun", "there"]


@pytest.mark.parametrize("error", [FileNotFoundError("there"), EOFError("damaged")])
def test_a_trial_whose_checkpoint_is_of_no_use_begins_anew(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    assert restored(error, monkeypatch) == ["begun", "put away", "begun"]


def test_a_trial_whose_checkpoint_is_out_of_reach_is_tried_again_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        restored(OSError("AWS Error NETWORK_CONNECTION during GetObject operation"), monkeypatch)
