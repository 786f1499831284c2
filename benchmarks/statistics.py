"""Whether the report's statistics keep their promises: coverage of the speed-up's interval, and false alarms.

Learning curves are made up, with noise, from convergence times that are drawn: the untutored student's are those of
the tutored one times a known factor. They go through the same functions as a sweep's, threshold and all.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.harness import Benchmark, add_arguments, sized

MEASURES = ("tune_sweeps/report",)
SEEDS = 10
EVALUATIONS = 200
CELLS = 54
BASELINES = 9
NOISE = 0.03
SPREAD = 0.3
UNTUTORED_STEPS = 70.0
"""Median convergence step of the untutored student, in evaluation intervals."""


def curves(rng, median_steps: float):
    """Learning curves of one cell, ``(SEEDS, EVALUATIONS + 1)``: ramps from 0 to 1 of random length, and noise."""
    import numpy as np

    full = median_steps * np.exp(SPREAD * rng.standard_normal((SEEDS, 1))) / 0.9
    return np.minimum(1.0, np.arange(EVALUATIONS + 1) / full) + NOISE * rng.standard_normal((SEEDS, EVALUATIONS + 1))


def survival(values):
    """When the curves of a cell converge, by the sweep's own definition."""
    from tune_sweeps.report.convergence import convergence, threshold
    from tune_sweeps.report.statistics import Survival

    level = threshold(0.0, 1.0, 0.9)
    assert level is not None
    found = [convergence(range(EVALUATIONS + 1), row, level, window=5) for row in values]
    return Survival.of([item.steps for item in found], [item.converged for item in found])


def covers(rng, factor: float, truth: float, resamples: int) -> bool:
    """Whether one repetition's 95 % interval holds the truth."""
    from tune_sweeps.report.statistics import speed_up

    interval = speed_up(
        survival(curves(rng, UNTUTORED_STEPS)),
        survival(curves(rng, UNTUTORED_STEPS / factor)),
        EVALUATIONS,
        resamples=resamples,
        confidence=0.95,
        rng=rng,
    )
    return interval.low <= truth <= interval.high


def any_false_alarm(rng) -> bool:
    """Whether a whole report over 54 cells without any effect calls one significant."""
    from tune_sweeps.report.statistics import holm, log_rank

    untutored = [survival(curves(rng, UNTUTORED_STEPS)) for _ in range(BASELINES)]
    p_values = [log_rank(untutored[cell % BASELINES], survival(curves(rng, UNTUTORED_STEPS))) for cell in range(CELLS)]
    return min(holm(p_values)) <= 0.05


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    args = parser.parse_args()
    import numpy as np

    benchmark = Benchmark("statistics")
    repetitions, reports, resamples = sized(args, full=(500, 500, 2_000), quick=(120, 20, 1_000), smoke=(3, 2, 100))
    rng = np.random.default_rng(20_250_910)
    coverage = float(np.mean([covers(rng, 2.0, 2.0, resamples) for _ in range(repetitions)]))
    null_coverage = float(np.mean([covers(rng, 1.0, 1.0, resamples) for _ in range(repetitions)]))
    alarms = float(np.mean([any_false_alarm(rng) for _ in range(reports)]))
    benchmark.record("repetitions", repetitions)
    benchmark.record("reports", reports)
    benchmark.record("coverage_without_effect", null_coverage)
    slack = 0.04 if args.quick else 0.0  # fewer repetitions scatter more
    benchmark.check("coverage_at_least", coverage, bar=0.92 - slack)
    benchmark.check("coverage_at_most", coverage, bar=0.98 + slack / 2, higher_is_better=False)
    benchmark.check("false_positive_rate", alarms, bar=0.05 + 2 * slack, higher_is_better=False)
    return benchmark.finish(args)


if __name__ == "__main__":
    sys.exit(main())
