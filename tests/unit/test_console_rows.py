"""Rows of values are a table for a person and plain JSON for a program."""

from __future__ import annotations

import json
import math

import pytest

from tune_sweeps.console.rows import print_rows
from tune_sweeps.console.terminal import make_console

ROWS = [
    {"task": "snake [7]", "size (MiB)": 1234.56, "env steps": 40_000, "oracle": True, "held by": ["a", "b"]},
    {"task": "maze", "size (MiB)": math.nan, "env steps": None, "oracle": False, "held by": []},
]


def test_a_person_reads_words(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(make_console(), ROWS, as_json=False)
    header, first, second = (line.split("  ") for line in capsys.readouterr().out.splitlines())
    cells = [[cell.strip() for cell in line if cell.strip()] for line in (header, first, second)]
    assert cells == [list(ROWS[0]), ["snake [7]", "1234.6", "40,000", "yes", "a, b"], ["maze", "–", "–", "no", "–"]]


def test_a_program_reads_values_under_keys_that_need_no_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(make_console(), ROWS, as_json=True)
    first, second = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert first == {
        "task": "snake [7]",
        "size_mib": 1234.56,
        "env_steps": 40_000,
        "oracle": True,
        "held_by": ["a", "b"],
    }
    assert (second["size_mib"], second["env_steps"], second["held_by"]) == (None, None, [])


def test_nothing_is_said_to_be_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for as_json in (False, True):
        print_rows(make_console(), [], as_json=as_json)
    assert capsys.readouterr().out == "none\n[]\n"
