"""From runs to results, notes and tables; drawing is held by the integration tests."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tune_sweeps.definition.grid import Cell
from tune_sweeps.definition.loading import load_sweep
from tune_sweeps.report.analysis import Analysis, analyse
from tune_sweeps.report.build import to_markdown
from tune_sweeps.report.notes import notes
from tune_sweeps.report.plots import _label_ends, spread
from tune_sweeps.report.tables import aggregate_table, main_table, test_table, write_csv
from tune_sweeps.tracking.reader import EVAL, RunRecord, Series, SweepRecord

STEPS = np.arange(0, 20_001, 100, dtype=float)


def run(tutor: str, seed: int, full_at: float, algorithm: str = "ppo", status: str = "FINISHED") -> RunRecord:
    cell = Cell(algorithm, tutor, "blackjack", None if tutor == "none" else True)
    series = {EVAL: Series(STEPS, np.minimum(1.0, STEPS / full_at))}
    last = {
        EVAL: 1.0,
        "wall_s": 12.0,
        "advice/consultations": 100.0,
        "advice/model_evaluations": 7.0,
        "advice/tokens": 1234.0,
    }
    return RunRecord(f"{algorithm}-{tutor}-s{seed}", cell, seed, status, series, last)


def record(runs: list[RunRecord], random_return: float | None = 0.0, status: str = "FINISHED") -> SweepRecord:
    returns = {} if random_return is None else {"blackjack": random_return}
    return SweepRecord("s", "p", status, load_sweep("demo"), returns, runs)


def two_to_one(seeds: int = 6) -> Analysis:
    runs = [run("none", s, 8_000 + 400 * s) for s in range(seeds)]
    runs += [run("oracle", s, 4_000 + 200 * s) for s in range(seeds)]
    return analyse(record(runs))


def test_twice_as_fast_is_said_to_be_twice_as_fast() -> None:
    analysis = two_to_one()
    cell = next(cell for cell in analysis.cells if cell.cell.tutored)
    assert cell.threshold == pytest.approx(0.9)
    assert cell.speed_up is not None
    assert cell.speed_up.value == pytest.approx(2.0, rel=0.12)  # the moving mean's lag pulls it towards 1
    assert cell.speed_up.value < 2.0
    assert cell.speed_up.low > 1
    assert cell.p == pytest.approx(cell.p_holm)
    assert cell.p < 0.01
    assert cell.auc_difference is not None and cell.auc_difference.value > 0
    assert cell.stability == 1.0
    assert cell.totals["model_evaluations"] == 7.0
    by_axis = {(item.axis, item.value): item.speed_up.value for item in analysis.aggregates}
    assert by_axis["tutor", "oracle"] == pytest.approx(2.0, rel=0.15)
    assert set(by_axis) == {("algorithm", "ppo"), ("tutor", "oracle"), ("task", "blackjack"), ("reuse", "reuse")}


def test_the_same_runs_give_the_same_numbers() -> None:
    assert main_table(two_to_one()) == main_table(two_to_one())
    assert test_table(two_to_one()) == test_table(two_to_one())


def test_a_trial_that_never_converges_is_counted_as_longer() -> None:
    runs = [run("none", s, 8_000) for s in range(3)] + [run("oracle", s, 8_000) for s in range(2)]
    never = run("oracle", 2, 40_000)
    cell = next(cell for cell in analyse(record([*runs, never])).cells if cell.cell.tutored)
    assert (cell.num_converged, len(cell.trials)) == (2, 3)
    assert cell.speed_up is not None and cell.speed_up.value < 1
    row = next(row for row in main_table(analyse(record([*runs, never])))[1] if row[2] == "oracle")
    assert row[5].startswith("≥ ") and row[5].endswith("(2/3)")
    assert any("did not reach the threshold" in note for note in notes(analyse(record([*runs, never]))))


def test_without_the_random_return_or_a_finished_baseline_no_threshold_is_made_up() -> None:
    runs = [run("none", 0, 8_000), run("oracle", 0, 4_000)]
    assert all(cell.threshold is None for cell in analyse(record(runs, random_return=None)).cells)
    running = [run("none", 0, 8_000, status="RUNNING"), run("oracle", 0, 4_000)]
    assert all(cell.speed_up is None for cell in analyse(record(running)).cells)


def test_a_baseline_that_learnt_nothing_is_said_to_give_no_threshold() -> None:
    analysis = analyse(record([run("none", 0, 8_000), run("oracle", 0, 4_000)], random_return=2.0))
    assert any("No threshold for ppo on blackjack" in note for note in notes(analysis))


def test_one_seed_and_few_seeds_are_called_so() -> None:
    assert any("One seed per cell" in note for note in notes(two_to_one(1)))
    assert any("Small sample: 3 seeds" in note for note in notes(two_to_one(3)))
    assert not any("sample" in note or "seed" in note for note in notes(two_to_one(5)))


def test_the_embedded_tutor_is_called_what_it_is_and_the_remedy_is_named() -> None:
    runs = [run("none", 0, 8_000), run("smollm2", 0, 8_000)]
    (said,) = [note for note in notes(analyse(record(runs))) if "smollm2" in note]
    assert "no better than a constant answer" in said
    assert "tutors=[llama]" in said and "OpenAI-compatible" in said
    assert not any("constant answer" in note for note in notes(two_to_one()))


def test_a_sweep_that_runs_or_failed_in_part_says_so() -> None:
    runs = [run("none", 0, 8_000), run("oracle", 0, 4_000, status="FAILED")]
    assert any("tries them again" in note for note in notes(analyse(record(runs))))
    assert any("not finished" in note for note in notes(analyse(record(runs, status="RUNNING"))))


def test_trials_that_were_never_evaluated_are_left_out() -> None:
    empty = RunRecord("x", Cell("ppo", "oracle", "blackjack", True), 1, "RUNNING")
    assert len(analyse(record([run("none", 0, 8_000), empty])).cells) == 1
    assert analyse(record([])).cells == []


def test_tables_markdown_and_csv_say_the_same(tmp_path: Path) -> None:
    analysis = two_to_one()
    header, rows = main_table(analysis)
    assert [row[2] for row in rows] == ["untutored", "oracle"]
    assert all(len(row) == len(header) for row in rows) and rows[1][header.index("tokens")] == "1,234"
    text = to_markdown(analysis, [tmp_path / "learning_curves.png"])
    assert rows[1][6] in text and "learning_curves.png" in text and "## By axis" in text
    assert len(aggregate_table(analysis)[1]) == 4
    write_csv(analysis, tmp_path)
    cells = (tmp_path / "cells.csv").read_text().splitlines()
    trials = (tmp_path / "trials.csv").read_text().splitlines()
    assert (len(cells), len(trials)) == (3, 13)
    assert len({len(line.split(",")) for line in cells}) == 1
    assert len({len(line.split(",")) for line in trials}) == 1


def test_labels_are_pushed_apart_around_where_they_belong() -> None:
    assert spread([0.0, 10.0], 1.0) == [0.0, 10.0]
    placed = spread([1.0, 1.0, 1.0, 9.0], 1.0)
    assert placed == pytest.approx([0.0, 1.0, 2.0, 9.0])
    assert all(b - a >= 0.999 for a, b in pairwise(placed))


def test_labels_of_lines_that_end_at_the_bottom_stay_above_the_axis_numbers() -> None:
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    ax.set_ylim(-0.03, 1.05)
    _label_ends(ax, [(0.0, name, "black") for name in ("untutored", "smollm2", "oracle")])
    assert min(text.xy[1] for text in ax.texts) >= -0.03


test_table.__test__ = False  # type: ignore[attr-defined]
