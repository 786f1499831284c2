"""Asks a real LLM about every state of a task, in every way that an audition asks, beside what is recorded of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rllib_plugins.tasks.base import Task
    from tune_sweeps.run.audition import Wanted
    from tutor_service.config import TutorConfig
    from tutor_service.store import Entry

_VISITS = 50_000

Distributions = dict[str, NDArray[np.float64]]
"""``(num_states, num_actions)`` by what the tutor reads before a state."""


class Agreement(NamedTuple):
    """Says how far two askings of one tutor agree.

    Attributes:
        largest: Largest distance between two probabilities; 1 where a way of asking is in one of them alone.
        median: Median over the states of a state's largest distance.
        same_best: Share of the states with the same best guess.
    """

    largest: float
    median: float
    same_best: float


class AskedAgain(NamedTuple):
    """Says what came of asking a recorded tutor again.

    Attributes:
        recorded: Its answers of now beside those of the file.
        replayed: Its answers of now beside the same ones exported, and given by a recorded tutor.
    """

    recorded: Agreement
    replayed: Agreement


def ask_again(tutor: str, task: str, path: Path, write: bool) -> AskedAgain:
    """Ask a tutor that starts with no stored answers about all states, in every way that a file holds answers to.

    Args:
        tutor: Its name in the catalog.
        task: What it is asked about.
        path: The file.
        write: Whether to write the file anew first.
    """
    from rllib_plugins.tasks import load_task
    from tune_sweeps.run.audition import Wanted
    from tutor_service.store.export import write_export
    from tutor_service.tutor_files import load_tutor

    chosen, states = load_task(task), _all_states(task)
    now, entries = _ask_live(load_tutor(tutor), chosen, states, Wanted(), with_priors=True)
    with tempfile.TemporaryDirectory() as folder:
        export = Path(folder) / path.name
        write_export(entries, export)
        if write:
            write_export(entries, path)
        return AskedAgain(
            recorded=agreement(now, _ask_recorded(path, chosen, states)),
            replayed=agreement(now, _ask_recorded(export, chosen, states)),
        )


def ask_twice(tutor: str, task: str, dtype: str) -> Agreement:
    """Ask a tutor about all states of a task twice, each time from nothing and in another order.

    Other orders put other questions into one batch, and rounding depends on the batch.

    Args:
        tutor: Its name in the catalog.
        task: What it is asked about, behind its rules alone.
        dtype: Number format of weights and activations, by vLLM's name for it.
    """
    from rllib_plugins.tasks import load_task
    from tune_sweeps.run.audition import Wanted
    from tutor_service.tutor_files import load_tutor

    chosen, states, config = load_task(task), _all_states(task), load_tutor(tutor)
    config = config.model_copy(update={"engine": {**config.engine, "dtype": dtype}})
    wanted = Wanted({"briefing": ("none",)})
    answers = []
    for seed in (0, 1):
        order = np.random.default_rng(seed).permutation(len(states))
        found, _ = _ask_live(config, chosen, states[order], wanted, with_priors=False)
        answers.append({rules: rows[np.argsort(order)] for rules, rows in found.items()})
    return agreement(*answers)


def agreement(one: Distributions, other: Distributions) -> Agreement:
    """Compare two askings about the same states."""
    shared = one.keys() & other.keys()
    distances = [np.abs(one[rules] - other[rules]).max(axis=1) for rules in shared]
    same = [one[rules].argmax(axis=1) == other[rules].argmax(axis=1) for rules in shared]
    if not shared:
        return Agreement(1.0, 1.0, 0.0)
    return Agreement(
        largest=float(np.concatenate(distances).max()) if one.keys() == other.keys() else 1.0,
        median=float(np.median(np.concatenate(distances))),
        same_best=float(np.concatenate(same).mean()),
    )


def _ask_live(
    config: TutorConfig, task: Task, states: NDArray[np.float32], wanted: Wanted, with_priors: bool
) -> tuple[Distributions, list[Entry]]:
    """Return what a deployed tutor says, and the answers that its store holds afterwards.

    With priors it is asked first, in an order of its own, about the probe that calibrations read.
    """
    from rich.console import Console

    from rllib_plugins.audition import Answers
    from tune_sweeps.run.audition import askings
    from tutor_service import paths
    from tutor_service.store import AdviceStore

    with _no_stored_answers(), askings(config, task, wanted, None, Console()) as asks:
        found: Distributions = {}
        for asking, entry in asks.items():
            print(f"asking {' · '.join(asking)} about {task.name}", flush=True)
            answers = Answers(task, entry.ask, entry.rules)
            if with_priors:
                answers.prior("empty")
                answers.prior("batch")
            found[entry.rules] = answers.rows(states)
        with AdviceStore(paths.advice_dir() / config.name, readonly=True) as store:
            return found, [entry for entry in store.entries() if entry.context is not None]


def _ask_recorded(path: Path, task: Task, states: NDArray[np.float32]) -> Distributions:
    """Return what a file of answers says in each of its ways."""
    from rllib_plugins.audition import Answers
    from tutor_service.client import connect
    from tutor_service.recorded import open_recorded
    from tutor_service.tutor_files import load_tutor

    tutor = load_tutor(str(path))
    ways = {
        way.rules: connect(tutor.model_copy(update={"identity": way.text}))
        for way in open_recorded(path).ways(task.rules)
    }
    return {rules: Answers(task, client.advise).rows(states) for rules, client in ways.items()}


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

    with tempfile.TemporaryDirectory() as home:
        paths.models_dir().mkdir(parents=True, exist_ok=True)
        (Path(home) / "models").symlink_to(paths.models_dir())
        with patch.dict(os.environ, {paths.HOME_VARIABLE: home}):
            yield
