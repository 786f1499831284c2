"""Asks a real LLM about every state of a task, in every way that an audition asks, beside what is recorded of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_VISITS = 50_000


def ask_again(tutor: str, task: str, path: Path, write: bool) -> float:
    """Return the largest distance between a probability of now and of the file, which is written first if asked for.

    The tutor starts with no stored answers. What is recorded and not asked now, or the other way round, counts as 1.
    """
    from rich.console import Console

    from rllib_plugins.audition import Answers
    from rllib_plugins.tasks import load_task
    from tune_sweeps.run.audition import Wanted, askings
    from tutor_service import paths
    from tutor_service.config import load_tutor
    from tutor_service.store import AdviceStore
    from tutor_service.store.export import write_export
    from tutor_service.store.reading import read_export

    chosen, config = load_task(task), load_tutor(tutor)
    with _no_stored_answers(), askings(config, chosen, Wanted(), None, Console()) as asks:
        for asking, entry in asks.items():
            print(f"asking {' · '.join(asking)} about {task}", flush=True)
            answers = Answers(chosen, entry.ask, entry.rules)
            answers.prior("empty")
            answers.prior("batch")
            answers.rows(_all_states(task))
        with AdviceStore(paths.advice_dir() / config.name, readonly=True) as store:
            entries = [entry for entry in store.entries() if entry.context is not None]
    if write:
        write_export(entries, path)
    now = {entry.context: entry.advice.probabilities for entry in entries}
    then = {answer.context: answer.advice.probabilities for answer in read_export(path)}
    return max(
        float(np.abs(np.subtract(now[asked], then[asked])).max()) if asked in now and asked in then else 1.0
        for asked in {*now, *then}
    )


def _all_states(task: str) -> NDArray[np.float32]:
    """Return a state for every text that a task's states have; of Snake the rare ones too."""
    from rllib_plugins.envs.snake_rules import FEATURE_TABLE
    from rllib_plugins.grading.states import visited_states
    from rllib_plugins.tasks import load_task

    chosen = load_task(task)
    states = visited_states(chosen, _VISITS, seed=0).states
    if task == "snake":
        states = np.array([row for row in FEATURE_TABLE if row[3] or row[4]], dtype=np.float32)
    by_words = {chosen.describe(chosen.raw_observation(state)): state for state in states}
    return np.stack(list(by_words.values()))


@contextmanager
def _no_stored_answers() -> Iterator[None]:
    """A folder for advice of its own, with the models that are prepared already."""
    from tutor_service import paths

    before = os.environ.get(paths.HOME_VARIABLE)
    with tempfile.TemporaryDirectory() as home:
        paths.models_dir().mkdir(parents=True, exist_ok=True)
        (Path(home) / "models").symlink_to(paths.models_dir())
        os.environ[paths.HOME_VARIABLE] = home
        try:
            yield
        finally:
            if before is None:
                del os.environ[paths.HOME_VARIABLE]
            else:
                os.environ[paths.HOME_VARIABLE] = before
