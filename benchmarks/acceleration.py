"""How many times fewer env steps good advice takes: oracle against no tutor, 3 algorithms × 3 tasks × 10 seeds.

The defaults and the paper's form (naive log-probability, no imitation, fixed trust) side by side. Convergence, its
threshold and the speed-up's interval are the sweeps' own (``tune_sweeps.report.convergence``): sustained, at 0.9 of the
way from the best trivial player of the task to its best untutored student, and beside it the first hit and the speed-up
at every other share of the way. Seeds that never converge are censored, not dropped.

Run ``.venv/bin/python -m benchmarks.acceleration`` (``--quick``: Blackjack with 3 seeds).
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from benchmarks.harness import Benchmark, add_arguments, median, sized

MEASURES = ("rllib_plugins", "tune_sweeps/report")
ALGORITHMS = ("dqn", "ppo", "a2c")
BUDGETS = {"blackjack": (20_000, 24, 200), "snake": (20_000, 80, 60), "connect_four": (24_000, 80, 200)}
"""Per task: env steps, steps between evaluations, episodes per evaluation."""
THRESHOLD_FRAC = 0.9


def configs(algorithm: str, task: str, seed: int, num_env_steps: int | None) -> dict[str, Any]:
    """Return the three trials of a seed; ``num_env_steps`` takes the place of the task's own number."""
    from rllib_plugins.advising.config import PAPER_ADVICE, AdviceConfig
    from rllib_plugins.config import StudentConfig

    budget, interval, episodes = BUDGETS[task]

    def student(tutor: str, advice: AdviceConfig) -> StudentConfig:
        return StudentConfig(
            algorithm=algorithm,
            task=task,
            tutor=tutor,
            advice=advice,
            seed=seed,
            num_env_steps=num_env_steps or budget,
            eval_interval_steps=interval,
            eval_episodes=episodes,
            eval_max_share=1.0,
        )

    return {
        "untutored": student("none", AdviceConfig()),
        "defaults": student("oracle", AdviceConfig()),
        "paper": student("oracle", PAPER_ADVICE),
    }


def main() -> int:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--seeds", type=int, default=None, help="seeds per cell (default: 10, with --quick 3)")
    parser.add_argument("--tasks", nargs="*", default=None, help="tasks (default: all, with --quick blackjack)")
    args = parser.parse_args()
    from benchmarks.shared import learning
    from tutor_service.machine import available_cores

    seeds = range(args.seeds or sized(args, full=10, quick=3, smoke=2))
    tasks = args.tasks or (["blackjack"] if args.quick else list(BUDGETS))
    benchmark = Benchmark("acceleration")
    num_env_steps = 1_000 if args.smoke else None
    cells = [(algorithm, task) for task in tasks for algorithm in ALGORITHMS]
    names = ("untutored", "defaults", "paper")
    jobs = [
        (learning.train_ours, (configs(algorithm, task, seed, num_env_steps)[name],))
        for algorithm, task in cells
        for seed in seeds
        for name in names
    ]
    curves = learning.run_all(jobs, available_cores())
    from tune_sweeps.report.results import THRESHOLD_FRACS

    by_cell: dict[tuple[str, str], dict[str, list[Any]]] = {}
    for index, cell in enumerate(cells):
        part = curves[3 * len(seeds) * index : 3 * len(seeds) * (index + 1)]
        by_cell[cell] = {name: part[offset::3] for offset, name in enumerate(names)}
    ratios: dict[str, list[float]] = {"defaults": [], "paper": []}
    num_above_one = num_lower = 0
    slowest = float("inf")
    panels: dict[str, Any] = {}
    for (algorithm, task), groups in by_cell.items():
        panels[f"{algorithm} · {task}"] = groups
        lower = learning.trivial_return(task)
        others = [by_cell[a, t]["untutored"] for a, t in by_cell if t == task and a != algorithm]
        untutored = groups["untutored"]
        level = learning.compared(untutored, untutored, lower, others).scale.level(THRESHOLD_FRAC)
        record: dict[str, Any] = {"trivial": lower, "level": level}
        record |= {name: learning.as_record(group) for name, group in groups.items()}
        for name in ("defaults", "paper"):
            finals = learning.difference([c.final for c in groups[name]], [c.final for c in untutored])
            record[f"{name}_final_difference"] = ends(finals)
            sustained = learning.compared(untutored, groups[name], lower, others)
            first_hit = learning.compared(untutored, groups[name], lower, others, sustained=False)
            found = learning.faster(sustained, THRESHOLD_FRAC)
            record[f"{name}_speed_up"] = ends(found)
            record[f"{name}_first_hit_speed_up"] = ends(learning.faster(first_hit, THRESHOLD_FRAC))
            record[f"{name}_by_threshold"] = {
                f"{frac:g}": ends(learning.faster(sustained, frac)) for frac in THRESHOLD_FRACS
            }
            if found is not None:
                print(f"{algorithm} {task} {name}: ×{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]", flush=True)
                ratios[name].append(found.value)
            if name == "defaults":
                num_above_one += found is not None and found.low > 1.0
                slowest = min(slowest, found.value if found is not None else float("nan"))
                num_lower += finals.high < 0.0
        benchmark.record(f"{algorithm}_{task}", record)
    benchmark.record("ratios", ratios)
    benchmark.check("share_of_cells_with_ratio_above_1", num_above_one / len(cells), bar=8 / 9)
    benchmark.check("median_ratio", median(ratios["defaults"] or [float("nan")]), bar=3.0)
    benchmark.check("slowest_cell", slowest, bar=0.95)
    benchmark.check("cells_with_lower_final_return", num_lower, bar=0, higher_is_better=False)
    return benchmark.finish(args, lambda path: learning.draw(path, panels))


def ends(interval: Any) -> list[float] | None:
    return None if interval is None else [interval.value, interval.low, interval.high]


if __name__ == "__main__":
    sys.exit(main())
