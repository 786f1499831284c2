"""Whether a report's statistics keep their promises: coverage, false alarms, and what added seeds cost in power.

Learning curves are made up, with noise, from convergence times that are drawn from skewed (log-normal) distributions:
the untutored student's are those of the tutored one times a known factor. They go through the same functions as a
sweep's; the level is estimated from the untutored students' final returns, which scatter, as in a sweep. Reports are
made with a fixed number of seeds, with seeds added again and again without a plan, and by the group-sequential rule of
``--until-decided``: seeds are added to the cells that are not decided, up to a planned number.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks.harness import Benchmark, benchmark_parser, sized

MEASURES = ("tune_sweeps/report",)
SEEDS = (4, 5, 10, 20)
EVALUATIONS = 200
WINDOW = 20
CELLS = 12
BASELINES = 2
FRAC = 0.9
ALPHA = 0.05
SCENARIO = 1
"""Place of the scenario that whole reports are made in."""
LOOKS = (5, 10, 15, 20)
EFFECT = 1.5
"""Speed-up whose detection is counted as power."""
SEED = 20_250_910
PARTS = 8
"""Parts that the reports of one kind are made in, so that all cores have work to the end."""


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


class Case(NamedTuple):
    """What an interval is made of: a scenario by its place, seeds per arm, and the factor between the times."""

    scenario: int
    seeds: int
    factor: float


def coverage(seed, case: Case, truth: float, repetitions: int) -> float:
    """The share of repetitions whose 95 % interval holds the truth."""
    import numpy as np

    from tune_sweeps.report.statistics import speed_up

    rng = np.random.default_rng(seed)
    scenario, covered = SCENARIOS[case.scenario], 0
    for _ in range(repetitions):
        both = compared(curves(rng, scenario, case.seeds, 1.0), curves(rng, scenario, case.seeds, case.factor))
        found = speed_up(both, FRAC, 0.95)
        covered += found is not None and found.low <= truth <= found.high
    return covered / repetitions


class Plan(NamedTuple):
    """How a report comes about.

    Attributes:
        factors: True speed-up of each cell's times.
        looks: Seeds at each look; one look: a fixed number of seeds.
        max_seeds: The planned largest number; None: not planned.
    """

    factors: tuple[float, ...]
    looks: tuple[int, ...]
    max_seeds: int | None


class Decision(NamedTuple):
    """How a report over many cells ended.

    Attributes:
        found: Cells that were called significant.
        seeds: Seeds per cell at the end, on average over cells.
        covered: Cells whose 95 % interval at the end holds the truth.
    """

    found: list[bool]
    seeds: float
    covered: list[bool]


def decide(rng, plan: Plan, truths: Sequence[float]) -> Decision:
    """Adds seeds to cells until they are decided, as ``--until-decided`` does.

    Args:
        rng: Random numbers.
        plan: How the report comes about.
        truths: True speed-up of each cell.
    """
    import numpy as np

    from tune_sweeps.report.statistics import holm, over_looks, permutation_test, speed_up, spent_shares

    factors, looks, max_seeds = plan
    scenario, most, cells = SCENARIOS[SCENARIO], looks[-1], len(factors)
    untutored = [curves(rng, scenario, most, 1.0) for _ in range(max(1, cells * BASELINES // CELLS))]
    tutored = [curves(rng, scenario, most, factor) for factor in factors]
    p = np.full((len(looks), cells), np.nan)
    decided, used = np.zeros(cells, dtype=bool), np.zeros(cells)
    latest: list[Any] = [None] * cells
    shares = spent_shares(looks, max_seeds) if len(looks) > 1 else [1.0]
    for look, seeds in enumerate(looks):
        for cell in np.flatnonzero(~decided):
            latest[cell] = compared(untutored[cell % len(untutored)][:seeds], tutored[cell][:seeds])
            p[look, cell] = permutation_test(latest[cell], FRAC)
            used[cell] = seeds
        decided = np.array(holm(over_looks(p, shares))) <= ALPHA
    intervals = [speed_up(both, FRAC, 0.95) for both in latest]
    covered = [
        found is not None and found.low <= truth <= found.high for found, truth in zip(intervals, truths, strict=True)
    ]
    return Decision(list(decided), float(used.mean()), covered)


def decide_many(seed, plan: Plan, truths: Sequence[float], count: int) -> list[Decision]:
    """Makes many reports."""
    import numpy as np

    rng = np.random.default_rng(seed)
    return [decide(rng, plan, truths) for _ in range(count)]


def share_covered(ends: Sequence[Decision]) -> float:
    """The share of all cells whose interval at the end holds the truth."""
    held = [covered for end in ends for covered in end.covered]
    return sum(held) / len(held)


def plans(reports: int, trials: int) -> dict[str, tuple[Plan, int]]:
    """Return the kinds of reports that are made, with how many: of cells without an effect, and of one with it."""
    nothing, effect = (1.0,) * CELLS, (EFFECT,)
    return {
        "fixed_seeds": (Plan(nothing, (10,), None), reports),
        "seeds_added": (Plan(nothing, LOOKS, None), reports),
        "until_decided": (Plan(nothing, LOOKS, LOOKS[-1]), reports),
        "one_cell_fixed_seeds": (Plan((1.0,), (10,), None), trials),
        "one_cell_until_decided": (Plan((1.0,), LOOKS, LOOKS[-1]), trials),
        "effect_fixed_seeds": (Plan(effect, LOOKS[-1:], None), trials),
        "effect_until_decided": (Plan(effect, LOOKS, LOOKS[-1]), trials),
    }


def main() -> int:
    """Measures and reports."""
    args = benchmark_parser(__doc__).parse_args()
    import numpy as np

    from benchmarks.shared.learning import run_all
    from tutor_service.machine import available_cores

    benchmark = Benchmark("statistics")
    repetitions, reports, trials = sized(args, full=(1_000, 200, 1_000), quick=(25, 2, 10), smoke=(2, 1, 2))
    kinds = plans(reports, trials)
    cases = [Case(*case) for case in itertools.product(range(len(SCENARIOS)), SEEDS, (1.0, 2.5))]
    needed = {(case.scenario, case.factor) for case in cases} | {(SCENARIO, EFFECT)}
    truths = {(place, factor): true_speed_up(SCENARIOS[place], factor) for place, factor in sorted(needed)}
    parts = [(name, part) for name, (_, count) in kinds.items() for part in range(min(PARTS, count))]
    jobs: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
    for index, (name, part) in enumerate(parts):
        plan, count = kinds[name]
        known = [truths[SCENARIO, factor] for factor in plan.factors]
        jobs.append((decide_many, ([SEED, 1, index], plan, known, len(range(part, count, PARTS)))))
    for index, case in enumerate(cases):
        jobs.append((coverage, ([SEED, 0, index], case, truths[case.scenario, case.factor], repetitions)))
    done = iter(run_all(jobs, available_cores()))
    ends: dict[str, list[Decision]] = {}
    for name, _ in parts:
        ends.setdefault(name, []).extend(next(done))
    shares = {case: next(done) for case in cases}
    table = {f"scenario {c.scenario + 1}, {c.seeds} seeds, factor {c.factor:g}": v for c, v in shares.items()}
    benchmark.record("repetitions", repetitions)
    benchmark.record("reports", reports)
    benchmark.record("scenarios", [scenario._asdict() for scenario in SCENARIOS])
    benchmark.record("coverage", table)
    by_seeds = {n: float(np.mean([share for case, share in shares.items() if case.seeds == n])) for n in SEEDS}
    benchmark.record("coverage_by_seeds", by_seeds)
    slack = 0.05 if args.quick else 0.0  # fewer repetitions scatter more
    benchmark.record("coverage_of_reports", {name: share_covered(made) for name, made in ends.items()})
    sequential = [end for name, made in ends.items() if "until_decided" in name for end in made]
    for name, figures in (
        ("coverage", [float(np.mean(list(shares.values())))]),
        ("coverage_by_seeds", list(by_seeds.values())),
        ("coverage_until_decided", [share_covered(sequential)]),
    ):
        benchmark.check(f"{name}_at_least", min(figures), bar=0.94 - slack)
        benchmark.check(f"{name}_at_most", max(figures), bar=0.96 + slack, higher_is_better=False)
    for name, made in ends.items():
        found = float(np.mean([any(end.found) for end in made]))
        if name.startswith("effect"):
            benchmark.record(f"power_{name}", found)
            benchmark.record(f"seeds_{name}", float(np.mean([end.seeds for end in made])))
        else:
            benchmark.check(f"false_positive_rate_{name}", found, bar=ALPHA + slack * 4, higher_is_better=False)
    return benchmark.finish(args)


if __name__ == "__main__":
    sys.exit(main())
