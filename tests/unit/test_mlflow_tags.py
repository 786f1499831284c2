"""Tags of experiments only change how MLflow's pages look: a server that takes none stops nothing."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, PERMISSION_DENIED, REQUEST_LIMIT_EXCEEDED

from tune_sweeps.tracking.mlflow_client import open_experiment
from tune_sweeps.tracking.prepared_view import put_view


class Server:
    """Has no experiment yet, and answers each tag with an error."""

    def __init__(self, error: int) -> None:
        self._error = error

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_experiment(self, name: str, artifact_location: str | None) -> str:
        return "7"

    def set_experiment_tag(self, *_: Any) -> None:
        raise MlflowException("not for you", error_code=self._error)


def test_a_server_that_forbids_tags_gets_the_sweep_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(PERMISSION_DENIED)
    with caplog.at_level(logging.WARNING):
        assert open_experiment(server, "s", None) == "7"
        caplog.clear()
        put_view(server, "7", "parent", {"blackjack"})
    (line,) = caplog.messages
    assert "sharedViewState" in line and "not for you" in line and len(line.splitlines()) == 1


@pytest.mark.parametrize("error", [INTERNAL_ERROR, REQUEST_LIMIT_EXCEEDED])
def test_a_server_that_is_broken_or_busy_is_asked_again_later(error: int) -> None:
    with pytest.raises(MlflowException):
        put_view(Server(error), "7", "parent", {"blackjack"})
