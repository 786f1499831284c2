"""From runs to results, notes and tables; drawing is held by the integration tests."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tune_sweeps.definition.grid import Cell
from tune_sweeps.definition.loading import difference, load_sweep
from tune_sweeps.definition.resolve import resolve
from tune_sweeps.report.analysis import analyse
from tune_sweeps.report.build import to_markdown, trial_metrics
from tune_sweeps.report.compare import compare, values, words
from tune_sweeps.report.export import score_matrices, write_numbers
from tune_sweeps.report.figure_style import LineEnd, colours, label_ends, spread
from tune_sweeps.report.growth import grown
from tune_sweeps.report.notes import notes
from tune_sweeps.report.results import Analysis, CellResult
from tune_sweeps.report.tables import (
    aggregate_table,
    effort_table,
    main_table,
    reference_table,
    threshold_table,
    versus_table,
)
from tune_sweeps.tracking.reader import EVAL, RunRecord, Series, SweepRecord

STEPS = np.arange(0, 20_001, 100, dtype=float)


def run(
    tutor: str,
    seed: int,
    full_at: float,
    algorithm: str = "ppo",
    status: str = "FINISHED",
    reuse: bool = True,
) -> RunRecord:
    cell = Cell(algorithm, tutor, "blackjack", None if tutor == "none" else reuse)
    series = {EVAL: Series(STEPS, np.minimum(1.0, STEPS / full_at))}
    last = {
        EVAL: 1.0,
        "wall_s": 12.0,
        "advice/consultations": 100.0,
        "advice/model_evaluations": 7.0,
        "advice/tokens": 1234.0,
    }
    return RunRecord(f"{algorithm}-{tutor}-{reuse}-s{seed}", cell, seed, status, series, last)


def record(
    runs: list[RunRecord],
    *settings: str,
    random_return: float | None = 0.0,
    trivial: float = -1.0,
    status: str = "FINISHED",
) -> SweepRecord:
    returns = {} if random_return is None else {"blackjack": {"random": random_return, "always 'stick'": trivial}}
    return SweepRecord("s", "p", status, load_sweep("small", ["seeds=6", *settings]), returns, runs)


def tutored(analysis: Analysis) -> CellResult:
    return next(cell for cell in analysis.cells if cell.cell.tutored)


def two_to_one(seeds: int = 6) -> Analysis:
    runs = [run("none", s, 8_000 + 400 * s) for s in range(seeds)]
    runs += [run("oracle", s, 4_000 + 200 * s) for s in range(seeds)]
    return analyse(record(runs))


def test_twice_as_fast_is_said_to_be_twice_as_fast() -> None:
    analysis = two_to_one()
    cell = tutored(analysis)
    assert cell.threshold.level == pytest.approx(0.9)
    assert cell.speed_up is not None and cell.versus is not None
    assert cell.speed_up.value == pytest.approx(1.85, rel=0.1)  # the trailing mean's lag pulls it towards 1
    assert cell.speed_up.value < 2.0
    assert cell.speed_up.low > 1
    assert cell.versus.at_threshold.first_hit == cell.speed_up  # these curves never fall back
    assert cell.versus.p < 0.01
    assert cell.versus.p_corrected == pytest.approx(cell.versus.p / 0.8)  # one look keeps a fifth for later ones
    assert cell.versus.area.value > 0
    assert (cell.versus.final.value, cell.versus.not_worse, cell.versus.improvement.value) == (0.0, True, 0.5)
    assert [point.frac for point in cell.versus.curve][::9] == [0.5, 0.95]
    assert all(point.sustained and point.sustained.low > 1 for point in cell.versus.curve)
    assert cell.stability == 1.0
    assert cell.totals["model_evaluations"] == 7.0
    assert analysis.undecided() == []
    by_axis = {(item.axis, item.value): item.speed_up.value for item in analysis.aggregates}
    assert by_axis["tutor", "oracle"] == pytest.approx(1.85, rel=0.1)
    assert set(by_axis) == {("algorithm", "ppo"), ("tutor", "oracle"), ("task", "blackjack"), ("reuse", "reuse")}


def test_nothing_is_said_about_reuse_where_no_student_reads_it() -> None:
    coin = two_to_one()
    assert main_table(coin).rows[-1][:4] == ["blackjack", "ppo", "oracle", "reuse"]
    runs = [replace(run, cell=replace(run.cell, use="distil")) for run in coin.sweep.runs]
    distilling = analyse(replace(coin.sweep, runs=runs))
    assert main_table(distilling).rows[-1][:4] == ["blackjack", "ppo", "oracle", "–"]
    assert {item.axis for item in distilling.aggregates} == {"algorithm", "tutor", "task"}
    assert set(score_matrices(distilling)) == {"ppo · untutored", "ppo · oracle"}


def test_a_trials_own_speed_up_is_of_the_untutored_students_mean_steps_over_its_own() -> None:
    analysis = two_to_one()
    by_key = {run.key: metrics for run, metrics in trial_metrics(analysis)}
    assert all("speed_up" not in metrics for key, metrics in by_key.items() if "-none-" in key)
    own = [metrics["speed_up"] for key, metrics in by_key.items() if "-oracle-" in key]
    assert len(own) == 6 and own == sorted(own, reverse=True)  # the later a trial converged, the smaller
    cell = tutored(analysis)
    assert cell.speed_up is not None
    assert np.exp(np.log(own).mean()) == pytest.approx(cell.speed_up.value)
    assert {metrics["final_return"] for metrics in by_key.values()} == {1.0}


def test_a_tutor_that_missed_questions_is_not_shown_as_if_it_had_played_itself() -> None:
    played = {"return_mean": 0.4, "return_se": 0.1, "num_env_steps": 900, "missed_share": 0.5}
    own_play = {"blackjack": {"oracle": played | {"missed_share": 0.0}, "smollm2": played}}
    analysis = two_to_one()
    rows = reference_table(replace(analysis, sweep=replace(analysis.sweep, own_play=own_play))).rows
    assert ["blackjack", "tutor oracle", "0.4", "plays itself, 900 env steps"] in rows
    assert ["blackjack", "tutor smollm2", "0.4", "plays itself, 900 env steps, 50% of its answers missed"] in rows


def test_two_sweeps_are_compared_cell_by_cell_with_intervals() -> None:
    first = two_to_one()
    quick = [run("none", s, 8_000 + 400 * s) for s in range(6)] + [run("oracle", s, 2_000 + 100 * s) for s in range(6)]
    second = analyse(record([*quick, run("random", 0, 9_000)], "num_envs=4"))
    pairs = compare(first, second)
    assert [(pair.cell.tutor, pair.final is None) for pair in pairs] == [
        ("none", False),
        ("oracle", False),
        ("random", True),
    ]
    untutored, oracle, alone = pairs
    assert untutored.sooner is not None and untutored.sooner.value == pytest.approx(1.0)
    assert oracle.sooner is not None and oracle.sooner.low > 1.4 and oracle.sooner.value < 2.0
    assert oracle.final is not None and oracle.final.value == 0.0 and alone.first is None
    assert difference(first.sweep.config, second.sweep.config) == ["num_envs: 8 → 4"]
    row = words(pairs, ("a", "b"))[1]
    assert row["return a"] == "1" and row["b sooner"].endswith("×")
    assert values(pairs)[2]["first"] is None
    slower = compare(second, first)[1]
    assert slower.sooner is not None and slower.sooner.high < 1


def test_the_same_runs_give_the_same_numbers() -> None:
    assert main_table(two_to_one()) == main_table(two_to_one())
    assert versus_table(two_to_one()) == versus_table(two_to_one())
    assert aggregate_table(two_to_one()) == aggregate_table(two_to_one())


def test_the_level_goes_from_the_best_trivial_player_to_the_best_untutored_student() -> None:
    runs = [run("none", s, 8_000) for s in range(3)] + [run("oracle", s, 4_000) for s in range(3)]
    weak = [run("none", s, 80_000, algorithm="a2c") for s in range(3)]
    cells = analyse(record([*runs, *weak], trivial=0.5)).cells
    assert [cell.threshold.level for cell in cells] == pytest.approx([0.5 + 0.9 * 0.5] * 3)
    assert next(cell for cell in cells if cell.cell.algorithm == "a2c").num_converged == 0
    own = analyse(record([*runs, *weak], "convergence.scale=own", trivial=0.1)).cells
    levels = {cell.cell.algorithm: cell.threshold.level for cell in own}
    assert levels["ppo"] == pytest.approx(0.9)
    assert levels["a2c"] == pytest.approx(0.9 * weak[0].curve.values[-21:].mean(), rel=0.03)


def test_a_threshold_below_a_trivial_player_is_refused_aloud() -> None:
    runs = [run("none", s, 8_000) for s in range(3)] + [run("oracle", s, 4_000) for s in range(3)]
    analysis = analyse(record(runs, "convergence.scale=own", trivial=0.93))
    assert tutored(analysis).speed_up is None and tutored(analysis).threshold.refused == "always 'stick'"
    assert any("refused: 'always 'stick'' at 0.93 reaches it" in note for note in notes(analysis))
    (versus,) = [cell.versus for cell in analysis.cells if cell.versus]
    assert [point.frac for point in versus.curve if point.sustained] == [0.95]


def test_a_student_that_falls_back_has_not_converged() -> None:
    falls = run("oracle", 2, 2_000)
    falls.curve.values[-30:] = 0.0
    runs = [run("none", s, 8_000) for s in range(3)] + [run("oracle", s, 4_000) for s in range(2)]
    cell = tutored(analyse(record([*runs, falls])))
    assert cell.num_converged == 2 and cell.versus is not None
    assert cell.first_hit_steps is not None and cell.steps is not None and cell.first_hit_steps < cell.steps
    assert cell.speed_up is not None and cell.versus.at_threshold.first_hit is not None
    assert cell.speed_up.value < cell.versus.at_threshold.first_hit.value
    assert cell.stability is not None and cell.stability < 1


def test_trials_that_failed_or_still_run_count_nowhere() -> None:
    runs = [run("none", s, 8_000) for s in range(3)] + [run("oracle", s, 4_000) for s in range(3)]
    others = [run("oracle", 3, 16_000, status="FAILED"), run("oracle", 4, 16_000, status="RUNNING")]
    with_others, without = analyse(record([*runs, *others])), analyse(record(runs))
    assert [str(cell.versus) for cell in with_others.cells] == [str(cell.versus) for cell in without.cells]
    assert main_table(with_others) == main_table(without)
    assert any("not finished" in note for note in notes(with_others))


def test_cells_that_are_identical_count_once() -> None:
    runs = [run("none", s, 8_000 + 400 * s) for s in range(6)]
    runs += [run("oracle", s, 4_000 + 200 * s) for s in range(6)]
    twins = [run("oracle", s, 4_000 + 200 * s, reuse=False) for s in range(6)]
    analysis, alone = analyse(record([*runs, *twins])), analyse(record(runs))
    first, second = (cell.versus for cell in analysis.cells if cell.versus)
    assert first.twin is None and second.twin is not None and second.twin.reuse
    assert first.p_corrected == second.p_corrected == tutored(alone).versus.p_corrected  # type: ignore[union-attr]
    assert analysis.aggregates == alone.aggregates
    assert any("1 cells without reuse are identical" in note for note in notes(analysis))
    twins[0].curve.values[50] += 0.01
    assert all(cell.versus.twin is None for cell in analyse(record([*runs, *twins])).cells if cell.versus)


def test_seeds_that_were_added_after_a_look_are_corrected_for() -> None:
    runs = [run("none", s, 8_000 + 400 * s) for s in range(6)] + [run("oracle", s, 4_000 + 200 * s) for s in range(6)]
    later = "extensions=[{seeds: [3, 4, 5]}]"
    analysis = analyse(record(runs, "seeds=3", later))
    assert analysis.looks == [3, 6]
    versus = tutored(analysis).versus
    assert versus is not None and versus.p_corrected == pytest.approx(min(2 / 20 / 0.8, versus.p / 0.16))
    planned = tutored(analyse(record(runs, "seeds=3", later, "statistics.max_seeds=6"))).versus
    assert planned is not None and planned.p_corrected == pytest.approx(versus.p / 0.75)
    assert any("looked at with 3, 6 seeds (unplanned)" in note for note in notes(analysis))


def test_a_trial_that_never_converges_is_counted_as_longer() -> None:
    runs = [run("none", s, 8_000) for s in range(3)] + [run("oracle", s, 8_000) for s in range(2)]
    never = run("oracle", 2, 40_000)
    cell = tutored(analyse(record([*runs, never])))
    assert (cell.num_converged, len(cell.trials)) == (2, 3)
    assert cell.speed_up is not None and cell.speed_up.value < 1
    row = next(row for row in main_table(analyse(record([*runs, never]))).rows if row[2] == "oracle")
    assert row[5].startswith("≥ ") and row[5].endswith("(2/3)")
    assert any("did not reach the threshold" in note for note in notes(analyse(record([*runs, never]))))


def test_without_the_random_return_or_a_finished_baseline_no_threshold_is_made_up() -> None:
    runs = [run("none", 0, 8_000), run("oracle", 0, 4_000)]
    unknown = analyse(record(runs, random_return=None))
    assert all(cell.threshold.level is None for cell in unknown.cells)
    assert any("have not been measured" in note for note in notes(unknown))
    running = [run("none", 0, 8_000, status="RUNNING"), run("oracle", 0, 4_000)]
    assert all(cell.speed_up is None for cell in analyse(record(running)).cells)


def test_a_baseline_that_learnt_nothing_is_said_to_give_no_threshold() -> None:
    analysis = analyse(record([run("none", 0, 8_000), run("oracle", 0, 4_000)], trivial=2.0))
    assert any("No threshold for ppo on blackjack" in note and "always 'stick'" in note for note in notes(analysis))


def test_one_seed_and_few_seeds_are_called_so() -> None:
    assert any("One seed per cell" in note for note in notes(two_to_one(1)))
    assert any("Small sample: 3 seeds" in note for note in notes(two_to_one(3)))
    assert not any("Small sample" in note or "One seed" in note for note in notes(two_to_one(5)))
    assert any("tuning seeds" in note for note in notes(analyse(record([run("none", 100, 9)], "tuning=true"))))


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
    empty = RunRecord("x", Cell("ppo", "oracle", "blackjack", True), 1, "FINISHED")
    assert len(analyse(record([run("none", 0, 8_000), empty])).cells) == 1
    assert analyse(record([])).cells == []


def test_tables_markdown_and_csv_say_the_same(tmp_path: Path) -> None:
    analysis = two_to_one()
    header, rows = main_table(analysis)
    assert len(threshold_table(analysis).header) == 14 and len(reference_table(analysis).rows) == 3
    assert [row[4] for row in effort_table(analysis).rows] == ["6", "6"]
    assert [row[2] for row in rows] == ["untutored", "oracle"]
    assert all(len(row) == len(header) for row in rows) and rows[1][header.index("tokens")] == "1,234"
    text = to_markdown(analysis, [tmp_path / "learning_curves.png"])
    assert rows[1][6] in text and "learning_curves.png" in text and "## By axis" in text
    assert len(aggregate_table(analysis).rows) == 4
    write_numbers(analysis, tmp_path)
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
    label_ends(ax, [LineEnd(0.0, name, "black") for name in ("untutored", "smollm2", "oracle")])
    assert min(text.xy[1] for text in ax.texts) >= -0.03


def test_a_control_is_compared_with_and_compared() -> None:
    runs = [run("none", s, 8_000 + 400 * s) for s in range(6)] + [run("oracle", s, 4_000 + 200 * s) for s in range(6)]
    more = [
        replace(run("oracle", s, 6_000 + 200 * s), cell=Cell("ppo", "more_updates", "blackjack", None))
        for s in range(6)
    ]
    analysis = analyse(record([*runs, *more]))
    by_tutor = {cell.cell.tutor: cell for cell in analysis.cells}
    over = by_tutor["oracle"].versus.over_control  # type: ignore[union-attr]
    assert over is not None and 1 < over.value < by_tutor["oracle"].speed_up.value  # type: ignore[union-attr]
    assert by_tutor["more_updates"].speed_up is not None and by_tutor["none"].versus is None
    assert [row[2] for row in main_table(analysis).rows] == ["untutored", "untutored, more updates", "oracle"]
    assert "over more updates" in versus_table(analysis).header
    assert "over more updates" not in versus_table(analyse(record(runs))).header


def test_a_tutored_student_is_compared_with_the_clone_of_its_tutor() -> None:
    runs = [run("none", s, 8_000 + 400 * s) for s in range(6)]
    for tutor, full_at in (("oracle", 4_000), ("random", 9_000)):
        runs += [run(tutor, s, full_at + 200 * s) for s in range(6)]
    clones = [
        replace(run("oracle", s, 2_000 + 200 * s), cell=Cell("ppo", "cloning:oracle", "blackjack", None))
        for s in range(6)
    ]
    analysis = analyse(record([*runs, *clones]))
    over = {cell.cell.tutor: cell.versus.over_cloning for cell in analysis.cells if cell.versus is not None}
    assert over["oracle"] is not None and over["oracle"].value < 1
    assert over["random"] is None and over["cloning:oracle"] is None
    assert "cloning of oracle" in [row[2] for row in main_table(analysis).rows]
    assert "over cloning" in versus_table(analysis).header
    assert "over cloning" not in versus_table(analyse(record(runs))).header
    known = colours(analysis)
    assert known["cloning:oracle"] == known["oracle"] != known["random"]


def test_undecided_cells_and_their_baselines_get_more_seeds() -> None:
    same = [run("none", s, 8_000 + 400 * s) for s in range(5)] + [run("random", s, 8_200 + 400 * s) for s in range(5)]
    fast = [run("none", s, 8_000 + 400 * s, "a2c") for s in range(5)] + [run("random", s, 900, "a2c") for s in range(5)]
    settings = ("seeds=5", "tutors=[random]", "statistics.max_seeds=8")
    analysis = analyse(record([*same, *fast], *settings, "statistics.alpha=0.5"))
    assert [cell.algorithm for cell in analysis.undecided()] == ["ppo"]
    longer = grown(analysis)
    assert longer is not None and longer.extensions[0].seeds == [5, 6, 7]
    added = [trial.cell.label for trial in resolve(longer).trials if trial.seed == 5]
    assert added == ["ppo · untutored · blackjack", "ppo · random · blackjack"]
    assert grown(analyse(record([*same, *fast], *settings, "seeds=8"))) is None
    assert grown(analyse(record(fast, *settings, "statistics.alpha=0.5"))) is None


def test_scores_are_kept_as_matrices_of_runs_by_tasks(tmp_path: Path) -> None:
    write_numbers(two_to_one(), tmp_path)
    scores = dict(np.load(tmp_path / "scores.npz"))
    assert {name: matrix.shape for name, matrix in scores.items()} == {
        "ppo · untutored": (6, 1),
        "ppo · oracle · reuse": (6, 1),
    }
    assert scores["ppo · oracle · reuse"] == pytest.approx(1.0)
    axes = json.loads((tmp_path / "scores.json").read_text())
    assert axes["ppo · untutored"] == {"runs": [0, 1, 2, 3, 4, 5], "tasks": ["blackjack"]}
