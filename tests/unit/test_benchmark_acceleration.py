"""What the benchmark of acceleration compares, and how: arms, grounds and bars."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks import acceleration
from benchmarks.harness import Benchmark
from benchmarks.shared import learning
from benchmarks.shared.grounds import GROUNDS, RULE
from benchmarks.shared.learning import Curve
from rllib_plugins.advising.config import PAPER_ADVICE
from rllib_plugins.algorithms.registry import ALGORITHMS

STEPS = [100.0 * k for k in range(101)]


def curves(full_at: float) -> list[Curve]:
    """Ramps to 1 within so many steps, a little apart."""
    return [Curve(STEPS, [min(1.0, step / (full_at + 50 * seed)) for step in STEPS], {}) for seed in range(4)]


@pytest.mark.parametrize("place", GROUNDS)
def test_the_arms_differ_in_what_they_are_called_by(place: str) -> None:
    for algorithm in ALGORITHMS:
        arms = {arm: acceleration.config(arm, algorithm, place, seed=3) for arm in acceleration.ARMS}
        assert [arms[arm].tutor for arm in acceleration.ARMS] == ["none", "none", "oracle", "oracle"]
        assert [arms[arm].updates_factor for arm in acceleration.ARMS] == [1.0, 2.0, 1.0, 1.0]
        best = max(acceleration.SEARCHED[place][algorithm])
        theta = acceleration.THETAS[acceleration.SEARCHED[place][algorithm].index(best)]
        assert arms["paper"].advice == PAPER_ADVICE.model_copy(update={"theta_frac": theta})
        assert len({arm.model_dump_json(include={"hyperparameters", "num_env_steps"}) for arm in arms.values()}) == 1


def test_connect_fours_tutor_wins_and_blocks() -> None:
    from rllib_plugins.tasks import load_task

    ground = GROUNDS["connect_four_greedy"]
    task = load_task(ground.task, **ground.options)
    board = np.zeros((2, 2, 6, 7), np.float32)
    board[0, 0, 5, :3] = 1  # three of its own: win in the fourth column
    board[1, 1, 5, 4:] = 1  # three of the opponent's: block there
    advised = task.oracle_batch(board.reshape(2, -1))
    assert advised is not None and advised.argmax(axis=1).tolist() == [3, 3]
    assert RULE in task.trivial_players()


def test_a_control_is_compared_at_the_level_of_the_untutored() -> None:
    untutored, control, tutored = curves(8_000), curves(4_000), curves(2_000)
    both = learning.compared(untutored, tutored, lower=0.0)
    over = learning.against_control(both, control)
    assert over.scale.level(0.9) == both.scale.level(0.9)
    fast, slow = learning.faster(both, 0.9).value, learning.faster(over, 0.9).value
    assert 1 < slow < fast


def test_a_cell_without_a_threshold_meets_no_bar() -> None:
    found = {"untutored_intervals": 30.0}
    for name in acceleration.TUTORED:
        found |= {f"{name}_{figure}": [4.0, 2.0, 8.0] for figure in ("speed_up", "speed_up_over_more_updates")}  # type: ignore[dict-item]
        found |= {f"{name}_final_difference": [0.0, -1.0, 1.0]}  # type: ignore[dict-item]
    benchmark = Benchmark("acceleration")
    acceleration.judge(benchmark, {"one": found})
    assert all(check["ok"] for check in benchmark.checks.values())
    missing: dict[str, Any] = {**found, "defaults_speed_up": None, "untutored_intervals": None}
    acceleration.judge(benchmark, {"one": found, "other": missing})
    short = {name for name, check in benchmark.checks.items() if not check["ok"]}
    assert short >= {"slowest_cell", "share_of_cells_with_ratio_above_1", "fewest_intervals_of_the_untutored"}


def test_the_comparison_of_a_cell_has_every_arm_and_threshold() -> None:
    groups = {
        "untutored": curves(8_000),
        "more_updates": curves(6_000),
        "defaults": curves(2_000),
        "paper": curves(8_000),
    }
    record = acceleration.compare(groups, 0.0, [])
    assert record["defaults_speed_up"][0] > record["defaults_speed_up_over_more_updates"][0] > 1
    assert record["paper_speed_up"][0] == pytest.approx(1.0)
    assert len(record["defaults_by_threshold"]) == 10
    assert record["untutored_intervals"] == pytest.approx(80, abs=10)
