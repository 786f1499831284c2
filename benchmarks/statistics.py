"""Whether a report's statistics keep their promises: coverage, false alarms, and what added seeds cost in power.

Learning curves are made up, with noise, from convergence times that are drawn from skewed (log-normal) distributions:
the untutored student's are those of the tutored one times a known factor. They go through the same functions as a
sweep's; the level is estimated from the untutored students' final returns, which scatter, as in a sweep.
"""

from __future__ import annotations

import argparse
import sys
from typing import NamedTuple

from benchmarks.harness import Benchmark, add_arguments, sized

MEASURES = ("tune_sweeps/report",)
SEEDS = (4, 5, 10, 20)
EVALUATIONS = 200
WINDOW = 20
CELLS = 12
BASELINES = 2
FRAC = 0.9
ALPHA = 0.05
LOOKS = (5, 10, 15, 20)
EFFECT = 1.5
"""Speed-up whose detection is counted as power."""


class Scenario(NamedTuple):
    """How curves are made up.

    Attributes:
        median_steps: Median convergence step of the untutored student, in evaluation intervals.
        spread: Standard deviation of its logarithm.
        plateau: Standard deviation of a seed's final return around 1.
        noise: Standard deviation of an evaluation.
    """

    median_steps: float
    spread: float
    plateau: float
    noise: float = 0.03


SCENARIOS = (Scenario(70, 0.3, 0.02), Scenario(70, 0.7, 0.02), Scenario(120, 0.7, 0.05), Scenario(40, 0.5, 0.1))
"""The third leaves a fifth of the untutored seeds without convergence."""


def curves(rng, scenario: Scenario, seeds: int, factor: float):
    """Learning curves of one cell, ``(seeds, EVALUATIONS + 1)``: ramps of random length to a random end, and noise."""
    import numpy as np

    full = scenario.median_steps / factor * np.exp(scenario.spread * rng.standard_normal((seeds, 1))) / FRAC
    end = 1 + scenario.plateau * rng.standard_normal((seeds, 1))
    shape = np.minimum(1.0, np.arange(EVALUATIONS + 1) / full)
    return end * shape + scenario.noise * rng.standard_normal((seeds, EVALUATIONS + 1))


def compared(untutored, tutored):
    """Two arms as the sweeps compare them."""
    import numpy as np

    from tune_sweeps.report.convergence import Scale, final_return, progress
    from tune_sweeps.report.statistics import Comparison

    steps = np.arange(EVALUATIONS + 1.0)
    finals = [np.array([final_return(steps, row, WINDOW) for row in rows]) for rows in (untutored, tutored)]
    return Comparison(
        untutored=[progress(steps, row, WINDOW) for row in untutored],
        tutored=[progress(steps, row, WINDOW) for row in tutored],
        tutored_finals=finals[1],
        scale=Scale(0.0, (finals[0],)),
        horizon=float(EVALUATIONS),
        resolution=1.0,
    )


def true_speed_up(scenario: Scenario, factor: float) -> float:
    """The speed-up between very many seeds: the trailing mean and the horizon pull it from the factor towards 1."""
    import numpy as np

    rng = np.random.default_rng(1)
    both = compared(curves(rng, scenario, 4_000, 1.0), curves(rng, scenario, 4_000, factor))
    logs = both.log_times([both.scale.level(FRAC)])[0]
    return float(np.exp(logs[:4_000].mean() - logs[4_000:].mean()))


def coverage(rng, scenario: Scenario, seeds: int, factor: float, repetitions: int) -> float:
    """The share of repetitions whose 95 % interval holds the truth."""
    from tune_sweeps.report.statistics import speed_up

    truth, covered = true_speed_up(scenario, factor), 0
    for _ in range(repetitions):
        both = compared(curves(rng, scenario, seeds, 1.0), curves(rng, scenario, seeds, factor))
        found = speed_up(both, FRAC, 0.95)
        covered += found is not None and found.low <= truth <= found.high
    return covered / repetitions


class Decision(NamedTuple):
    """How a report over many cells ended.

    Attributes:
        found: Cells that were called significant.
        seeds: Seeds per cell at the end, on average over cells.
    """

    found: list[bool]
    seeds: float


def decide(rng, factors, looks: tuple[int, ...], max_seeds: int | None) -> Decision:
    """Adds seeds to cells until they are decided, as ``--until-decided`` does; one look: a fixed number of seeds."""
    import numpy as np

    from tune_sweeps.report.statistics import holm, over_looks, permutation_test, spent_shares

    scenario, most, cells = SCENARIOS[1], looks[-1], len(factors)
    untutored = [curves(rng, scenario, most, 1.0) for _ in range(max(1, cells * BASELINES // CELLS))]
    tutored = [curves(rng, scenario, most, factor) for factor in factors]
    p = np.full((len(looks), cells), np.nan)
    decided, used = np.zeros(cells, dtype=bool), np.zeros(cells)
    shares = spent_shares(looks, max_seeds) if len(looks) > 1 else [1.0]
    for look, seeds in enumerate(looks):
        for cell in np.flatnonzero(~decided):
            both = compared(untutored[cell % len(untutored)][:seeds], tutored[cell][:seeds])
            p[look, cell] = permutation_test(both, FRAC)
            used[cell] = seeds
        decided = np.array(holm(over_looks(p, shares))) <= ALPHA
    return Decision(list(decided), float(used.mean()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    args = parser.parse_args()
    import numpy as np

    benchmark = Benchmark("statistics")
    repetitions, reports, trials = sized(args, full=(1_000, 200, 1_000), quick=(25, 2, 10), smoke=(2, 1, 2))
    rng = np.random.default_rng(20_250_910)
    table: dict[str, float] = {}
    for index, scenario in enumerate(SCENARIOS):
        for seeds in SEEDS:
            for factor in (1.0, 2.5):
                key = f"scenario {index + 1}, {seeds} seeds, factor {factor:g}"
                table[key] = coverage(rng, scenario, seeds, factor, repetitions)
                print(f"{key}: {table[key]:.3f}", flush=True)
    benchmark.record("repetitions", repetitions)
    benchmark.record("reports", reports)
    benchmark.record("scenarios", [scenario._asdict() for scenario in SCENARIOS])
    benchmark.record("coverage", table)
    overall = float(np.mean(list(table.values())))
    by_seeds = {n: float(np.mean([v for k, v in table.items() if f" {n} seeds" in k])) for n in SEEDS}
    benchmark.record("coverage_by_seeds", by_seeds)
    slack = 0.05 if args.quick else 0.0  # fewer repetitions scatter more
    benchmark.check("coverage_at_least", overall, bar=0.94 - slack)
    benchmark.check("coverage_at_most", overall, bar=0.96 + slack, higher_is_better=False)
    benchmark.check("coverage_by_seeds_at_least", min(by_seeds.values()), bar=0.94 - slack)
    benchmark.check("coverage_by_seeds_at_most", max(by_seeds.values()), bar=0.96 + slack, higher_is_better=False)
    for name, cells, looks, most, count in (
        ("fixed_seeds", CELLS, (10,), None, reports),
        ("seeds_added", CELLS, LOOKS, None, reports),
        ("until_decided", CELLS, LOOKS, LOOKS[-1], reports),
        ("one_cell_fixed_seeds", 1, (10,), None, trials),
        ("one_cell_until_decided", 1, LOOKS, LOOKS[-1], trials),
    ):
        rate = float(np.mean([any(decide(rng, [1.0] * cells, looks, most).found) for _ in range(count)]))
        benchmark.check(f"false_positive_rate_{name}", rate, bar=ALPHA + slack * 4, higher_is_better=False)
    for name, looks, most in (("fixed", LOOKS[-1:], None), ("until_decided", LOOKS, LOOKS[-1])):
        ends = [decide(rng, [EFFECT], looks, most) for _ in range(trials)]
        benchmark.record(f"power_{name}", float(np.mean([end.found[0] for end in ends])))
        benchmark.record(f"seeds_{name}", float(np.mean([end.seeds for end in ends])))
    return benchmark.finish(args)


if __name__ == "__main__":
    sys.exit(main())
