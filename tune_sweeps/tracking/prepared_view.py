"""Prepare what MLflow's pages show of a sweep first: its trials as rows, axes and results as columns, and their curves.

MLflow keeps a view that somebody shared as a tag of the experiment; its key in the link opens it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from typing import Any

from tune_sweeps.tracking.journal import EVAL
from tune_sweeps.tracking.mlflow_client import set_experiment_tag

VIEW_TAG = "mlflow.sharedViewState."
"""MLflow's own tag of a shared view, before the view's key."""

FINAL_RETURN, SPEED_UP = "final_return", "speed_up"
"""Metrics of a finished trial that its sweep's report computes."""

CONSULTATIONS = "advice/consultations"
_AXES = ("algorithm", "tutor", "task", "use", "reuse", "seed")
_RESULTS = (FINAL_RETURN, SPEED_UP, CONSULTATIONS)
_SECTION = "results"


def put_view(client: Any, experiment_id: str, parent_id: str, tasks: Collection[str]) -> None:
    """Keep the view of a sweep with its experiment, under the parent run's id; a server that takes no tags has none."""
    now_ms = int(time.time() * 1000)
    view = {
        "name": "sweep",
        "createdAt": now_ms,
        "updatedAt": now_ms,
        "state": json.dumps(view_state(parent_id, tasks)),
    }
    set_experiment_tag(client, experiment_id, VIEW_TAG + parent_id, json.dumps(view))


def view_page(experiment_id: str, parent_id: str) -> str:
    """Return the page, below the server's address, that opens with a sweep's view.

    Parameters that set what the view sets, e.g. a filter, would keep MLflow from reading it.
    """
    return (
        f"/#/experiments/{experiment_id}/runs?viewStateShareKey={parent_id}&compareRunsMode=CHART"
        "&workflowType=machine_learning"
    )


def view_state(parent_id: str, tasks: Collection[str]) -> dict[str, Any]:
    """Return the state of MLflow's page of runs.

    Args:
        parent_id: The sweep's parent run, whose children are shown.
        tasks: Tasks of the sweep; where there are several, each has lines of its own, since returns differ in scale.
    """
    columns = [*(f"params.`{axis}`" for axis in _AXES), *(f"metrics.`{name}`" for name in _RESULTS)]
    groups = ["task", "tutor"] if len(tasks) > 1 else ["tutor"]
    return {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent_id}'",
        "orderByKey": "attributes.start_time",
        "orderByAsc": True,
        "selectedColumns": columns,
        "columnOrder": columns,
        "groupBy": {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "param", "groupByData": name} for name in groups],
        },
        "useGroupedValuesInCharts": True,
        "compareRunSections": [{"uuid": _SECTION, "name": "Results", "display": True, "isReordered": True}],
        "isAccordionReordered": True,
        "compareRunCharts": [_curve(EVAL), *(_chart("BAR", name) for name in _RESULTS)],
        "runsHiddenMode": "SHOW_ALL",
        "hideEmptyCharts": True,
    }


def _curve(metric: str) -> dict[str, Any]:
    return _chart("LINE", metric) | {
        "xAxisKey": "step",
        "scaleType": "linear",
        "xAxisScaleType": "linear",
        "range": {},
        "lineSmoothness": 0,
        "useGlobalXaxisKey": True,
    }


def _chart(kind: str, metric: str) -> dict[str, Any]:
    return {
        "type": kind,
        "uuid": f"{kind.lower()}-{metric}",
        "metricSectionId": _SECTION,
        "metricKey": metric,
        "isGenerated": False,
        "deleted": False,
    }
