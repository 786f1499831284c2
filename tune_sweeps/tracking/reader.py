"""Read a sweep back from MLflow."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tune_sweeps.definition.config import UNTUTORED, SweepConfig
from tune_sweeps.definition.grid import Cell
from tune_sweeps.definition.loading import validate_sweep
from tune_sweeps.tracking.child_runs import TAG_SWEEP_ID, TAG_TRIAL
from tune_sweeps.tracking.journal import EVAL
from tune_sweeps.tracking.mlflow_client import database_file, make_client, search_runs
from tune_sweeps.tracking.tracker import (
    CONFIG_ARTIFACT,
    DOUBTS_ARTIFACT,
    OWN_PLAY_ARTIFACT,
    REFERENCES_FOLDER,
    TAG_SWEEP,
)
from tutor_service.errors import UserError, unknown_name
from tutor_service.yaml_files import parse_yaml

RANDOM = "random"
ORACLE = "oracle"
UNTRAINED = "untrained networks, greedy"
"""Names of references that every task has."""

TUTORED_SERIES = ("advice/effect", "advice/effect_se", "advice/trust", "advice/probability")
THREADS = 8
"""Requests to MLflow at once."""


@dataclass(frozen=True)
class Series:
    """One metric over training.

    Attributes:
        steps: Env steps, ascending, ``(n,)``.
        values: ``(n,)``.
    """

    steps: NDArray[np.float64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True)
class RunRecord:
    """One trial as MLflow has it.

    Attributes:
        key: The trial's key.
        cell: Its combination of the axes.
        seed: Its seed.
        status: MLflow's status: RUNNING, FINISHED, FAILED or KILLED.
        series: By metric, what was logged over training.
        last: By metric, the last value.
        tags: Its tags.
        run_id: MLflow's id of its run.
    """

    key: str
    cell: Cell
    seed: int
    status: str
    series: dict[str, Series] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    run_id: str = ""

    @property
    def curve(self) -> Series:
        """Greedy returns, tutor off; empty before the first evaluation."""
        return self.series.get(EVAL, Series(np.empty(0), np.empty(0)))


Follow: TypeAlias = Callable[[Iterable[RunRecord], int], Iterable[RunRecord]]
"""Passes items on as they come, of which there are so many, and may show that."""


@dataclass(frozen=True)
class SweepRecord:
    """One sweep as MLflow has it.

    Attributes:
        name: Its name.
        parent_id: Its parent run.
        status: MLflow's status of the parent run.
        config: Its configuration.
        references: By task, the returns of players that learn nothing, and of the oracle where it is known.
        runs: Its trials.
        doubts: What speaks against its tutors, by tutor and task.
        experiment_id: MLflow's experiment of it.
        own_play: By task and tutor, the fields of the tutor's ``OwnPlay``.
    """

    name: str
    parent_id: str
    status: str
    config: SweepConfig
    references: dict[str, dict[str, float]]
    runs: list[RunRecord]
    doubts: dict[str, str] = field(default_factory=dict)
    experiment_id: str = ""
    own_play: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)


def read_sweep(uri: str, name: str, follow: Follow = lambda items, _: items) -> SweepRecord:
    """Read a sweep by name, the newest of that name.

    Args:
        uri: Tracking URI.
        name: Name of the sweep.
        follow: Shows how far the reading of its trials is.

    Raises:
        UserError: MLflow has no such sweep, or what it has cannot be read.
    """
    client = _client_of_existing(uri)
    parent, children = _find(client, name)
    with ThreadPoolExecutor(THREADS) as pool:
        records = list(follow(pool.map(lambda run: _record(client, run), children), len(children)))
    return SweepRecord(
        name=name,
        parent_id=parent.info.run_id,
        status=parent.info.status,
        config=_config(client, parent.info.run_id, name),
        references=_references(client, parent.info.run_id),
        runs=sorted(records, key=lambda record: record.key),
        doubts=_kept_json(client, parent.info.run_id, DOUBTS_ARTIFACT),
        own_play=_kept_json(client, parent.info.run_id, OWN_PLAY_ARTIFACT),
        experiment_id=parent.info.experiment_id,
    )


def find_trials(uri: str, name: str) -> tuple[Any, dict[str, Any]]:
    """Return a client, and MLflow's runs of a sweep's trials by key.

    Raises:
        UserError: MLflow has no such sweep.
    """
    client = _client_of_existing(uri)
    _, children = _find(client, name)
    return client, {run.data.tags[TAG_TRIAL]: run for run in children}


def _find(client: Any, name: str) -> tuple[Any, list[Any]]:
    """Return the parent run of the newest sweep of this name, and its trials' runs."""
    experiment = client.get_experiment_by_name(name)
    query = f"tags.`{TAG_SWEEP}` = '{name}'"
    found = [] if experiment is None else search_runs(client, experiment.experiment_id, query)
    parents = [run for run in found if TAG_TRIAL not in run.data.tags]
    if not parents:
        names = sweep_names(client)
        if not names:
            raise UserError(f"no sweep '{name}': MLflow holds none. Run `tutor sweep demo`, or give --results.")
        raise unknown_name("sweep", name, names, "in MLflow")
    parent = max(parents, key=lambda run: run.info.start_time)
    sweep_id = parent.data.tags[TAG_SWEEP_ID]
    runs = search_runs(client, experiment.experiment_id, f"tags.`{TAG_SWEEP_ID}` = '{sweep_id}'")
    return parent, [run for run in runs if TAG_TRIAL in run.data.tags and "algorithm" in run.data.params]


def sweep_names(client: Any) -> list[str]:
    """Name all experiments that hold a sweep."""
    experiments = {item.experiment_id: item.name for item in client.search_experiments(max_results=1_000)}
    return [
        name
        for key, name in experiments.items()
        if client.search_runs([key], f"tags.`{TAG_SWEEP}` = '{name}'", max_results=1)
    ]


def _client_of_existing(uri: str) -> Any:
    file = database_file(uri)
    if file is not None and not file.exists():
        raise UserError(f"no sweep has run here: '{file}' does not exist. Run `tutor sweep demo`, or give --results.")
    return make_client(uri)


def _references(client: Any, run_id: str) -> dict[str, dict[str, float]]:
    found = {}
    for item in client.list_artifacts(run_id, REFERENCES_FOLDER):
        kept = json.loads(_text(client, run_id, item.path))
        found[kept["task"]] = kept["returns"]
    return found


def _kept_json(client: Any, run_id: str, name: str) -> dict[str, Any]:
    """Read what the tracker kept under a name; nothing where it kept nothing."""
    if name not in {item.path for item in client.list_artifacts(run_id)}:
        return {}
    found: dict[str, Any] = json.loads(_text(client, run_id, name))
    return found


def _text(client: Any, run_id: str, artifact: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return Path(client.download_artifacts(run_id, artifact, folder)).read_text(encoding="utf-8")


def _config(client: Any, run_id: str, name: str) -> SweepConfig:
    try:
        return validate_sweep(parse_yaml(_text(client, run_id, CONFIG_ARTIFACT)), f"sweep '{name}' in MLflow")
    except OSError as error:
        raise UserError(
            f"the artifact {CONFIG_ARTIFACT} of sweep '{name}' cannot be read ({error}). Is the folder of MLflow's "
            "artifacts where it was?"
        ) from error


def _record(client: Any, run: Any) -> RunRecord:
    params, tags = run.data.params, run.data.tags
    reuse = {"on": True, "off": False}.get(params["reuse"])
    cell = Cell(params["algorithm"], params["tutor"], params["task"], reuse, params.get("use"))
    names = [EVAL, *(TUTORED_SERIES if cell.tutor != UNTUTORED else ())]
    return RunRecord(
        key=tags[TAG_TRIAL],
        cell=cell,
        seed=int(params["seed"]),
        status=run.info.status,
        series={
            name: _series(client.get_metric_history(run.info.run_id, name))
            for name in names
            if name in run.data.metrics
        },
        last=dict(run.data.metrics),
        tags=dict(tags),
        run_id=run.info.run_id,
    )


def _series(history: Sequence[Any]) -> Series:
    by_step = {int(entry.step): float(entry.value) for entry in history}
    steps = sorted(by_step)
    return Series(np.array(steps, dtype=np.float64), np.array([by_step[step] for step in steps]))
