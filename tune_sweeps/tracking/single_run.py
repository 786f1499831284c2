"""Log the result of one command as a run of its own, in an experiment that all results of the command share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tune_sweeps.tracking.mlflow_client import artifact_location, make_client, open_experiment
from tune_sweeps.tracking.provenance import run_tags


@dataclass(frozen=True)
class SingleRun:
    """Hold what a run is to show.

    Attributes:
        experiment: Name of the experiment; made when missing.
        name: Name of the run.
        params: By name.
        metrics: By name.
        texts: Artifacts by file name.
        files: Artifacts that lie on the disk.
    """

    experiment: str
    name: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    texts: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[Path] = ()


def log_run(run: SingleRun, uri: str, results: Path) -> None:
    """Log a finished run.

    Args:
        run: What to log.
        uri: MLflow's tracking URI.
        results: Results folder, beside whose database artifacts go.
    """
    from mlflow.entities import Metric, Param

    client = make_client(uri)
    experiment_id = open_experiment(client, run.experiment, artifact_location(results, uri))
    logged = client.create_run(experiment_id, run_name=run.name, tags=run_tags()).info
    client.log_batch(
        logged.run_id,
        metrics=[Metric(name, value, logged.start_time, 0) for name, value in run.metrics.items()],
        params=[Param(name, value) for name, value in run.params.items()],
    )
    for name, text in run.texts.items():
        client.log_text(logged.run_id, text, name)
    for file in run.files:
        client.log_artifact(logged.run_id, str(file))
    client.set_terminated(logged.run_id)
