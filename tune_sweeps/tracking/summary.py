"""Put what a sweep came to on its parent run, where a person looks first."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tune_sweeps.tracking.mlflow_client import make_client
from tune_sweeps.tracking.reader import THREADS, RunRecord

REPORT_FOLDER = "report"
"""Where a report's files are, among the artifacts of the parent run."""

DESCRIPTION_TAG = "mlflow.note.content"
"""MLflow's own tag of a run's description, in Markdown."""

_MAX_DESCRIPTION = 5_000
"""Characters that every MLflow of our range takes in a tag."""

_CUT = "\n\n… the whole report is among the artifacts of this run."


def put_summary(uri: str, run_id: str, folder: Path, description: str, metrics: Mapping[str, float]) -> None:
    """Log a report's files, its short form as the run's description, and its figures as metrics.

    Args:
        uri: Tracking URI.
        run_id: The parent run.
        folder: The report's.
        description: Markdown; what is too long is cut at a line's end, and says so.
        metrics: By name; those that are not finite are left out.
    """
    from mlflow.entities import Metric

    client, now_ms = make_client(uri), int(time.time() * 1000)
    client.log_artifacts(run_id, str(folder), REPORT_FOLDER)
    client.set_tag(run_id, DESCRIPTION_TAG, shortened(description))
    found = [Metric(name, value, now_ms, 0) for name, value in metrics.items() if math.isfinite(value)]
    if found:
        client.log_batch(run_id, metrics=found)


def put_trial_results(uri: str, results: Iterable[tuple[RunRecord, Mapping[str, float]]]) -> None:
    """Log what a report computed of each trial as metrics of its run, at its last env step; what is there stays.

    Args:
        uri: Tracking URI.
        results: Trials with their metrics by name; those that are not finite are left out.
    """
    from mlflow.entities import Metric

    client, now_ms = make_client(uri), int(time.time() * 1000)

    def put(item: tuple[RunRecord, Mapping[str, float]]) -> None:
        run, metrics = item
        step = int(run.curve.steps[-1])
        new = [
            Metric(name, value, now_ms, step)
            for name, value in metrics.items()
            if math.isfinite(value) and run.last.get(name) != value
        ]
        if new:
            client.log_batch(run.run_id, metrics=new)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(put, results))


def shortened(text: str) -> str:
    """Cut a text at a line's end to what fits into a tag."""
    if len(text) <= _MAX_DESCRIPTION:
        return text
    kept = text[: _MAX_DESCRIPTION - len(_CUT)]
    return kept[: kept.rfind("\n")] + _CUT
