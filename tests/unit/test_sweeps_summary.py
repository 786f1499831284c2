"""What a sweep came to fits into its run's description, and its page shows trials, results and curves first."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_sweeps.cli.ui import where_to_look
from tune_sweeps.definition.loading import load_sweep
from tune_sweeps.storage.results import Results
from tune_sweeps.tracking.prepared_view import view_state
from tune_sweeps.tracking.reader import SweepRecord
from tune_sweeps.tracking.summary import shortened


def test_a_short_text_stays_as_it_is() -> None:
    assert shortened("| a |\n| b |") == "| a |\n| b |"


@given(st.integers(1, 4000), st.integers(1, 80))
def test_a_long_one_is_cut_at_a_lines_end_and_says_so(num_lines: int, width: int) -> None:
    line = "x" * width
    text = "\n".join([line] * num_lines)
    cut = shortened(text)
    assert len(cut) <= 5_000
    if cut != text:
        *lines, _, last = cut.split("\n")
        assert set(lines) == {line} and "artifacts" in last


def test_tasks_have_lines_of_their_own_where_there_are_several() -> None:
    one, two = (
        [key["groupByData"] for key in view_state("p", tasks)["groupBy"]["groupByKeys"]]
        for tasks in (["snake"], ["snake", "blackjack"])
    )
    assert (one, two) == (["tutor"], ["task", "tutor"])


def test_a_row_says_what_its_students_make_of_advice() -> None:
    assert "params.`use`" in view_state("p", ["snake"])["selectedColumns"]


@pytest.mark.parametrize(
    ("uri", "begins"),
    [
        ("http://host:5000/", "all runs in MLflow: http://host:5000/#/experiments/7/runs?viewStateShareKey=p"),
        ("https://me:secret@host/", "all runs in MLflow: https://host/#/experiments/7/runs"),
        ("sqlite:////x/mlflow.db", "all runs in MLflow: tutor ui --results elsewhere "),
        ("databricks://profile", ""),
    ],
)
def test_the_link_opens_the_view_where_mlflow_shows_it(uri: str, begins: str) -> None:
    sweep = SweepRecord("s", "p", "FINISHED", load_sweep("small"), {}, [], experiment_id="7")
    said = where_to_look(sweep, uri, Results(Path("elsewhere")))
    assert said.startswith(begins) and (not begins or "viewStateShareKey=p" in said)
