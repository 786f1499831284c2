"""How many times fewer env steps good advice takes: oracle against no tutor, 3 algorithms × 3 tasks × 10 seeds.

The defaults and the paper's form (naive log-probability, no imitation, fixed trust) side by side. Steps to convergence,
its threshold and the speed-up's interval are the sweeps' own; seeds that never converge are censored, not dropped.

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
"""Per task: env steps, steps between evaluations, episodes per evaluation. Convergence is seen four evaluations late
(``tune_sweeps.report.convergence``), by both arms: the closer they are, the less that hides."""
THRESHOLD_FRAC = 0.95


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
    ratios: dict[str, list[float]] = {"defaults": [], "paper": []}
    num_above_one = num_lower = 0
    panels: dict[str, Any] = {}
    for index, (algorithm, task) in enumerate(cells):
        part = curves[3 * len(seeds) * index : 3 * len(seeds) * (index + 1)]
        groups = {name: part[offset::3] for offset, name in enumerate(names)}
        panels[f"{algorithm} · {task}"] = groups
        level = learning.level_of(groups["untutored"], learning.random_return(task), THRESHOLD_FRAC)
        record: dict[str, Any] = {"level": level} | {n: learning.as_record(g) for n, g in groups.items()}
        for name in ("defaults", "paper"):
            finals = learning.difference([c.final for c in groups[name]], [c.final for c in groups["untutored"]])
            found = None if level is None else learning.faster(groups["untutored"], groups[name], level)
            record[f"{name}_speed_up"] = found and [found.value, found.low, found.high]
            record[f"{name}_final_difference"] = [finals.value, finals.low, finals.high]
            if found is not None:
                print(f"{algorithm} {task} {name}: ×{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]", flush=True)
                ratios[name].append(found.value)
            if name == "defaults":
                num_above_one += found is not None and found.low > 1.0
                num_lower += finals.high < 0.0
        benchmark.record(f"{algorithm}_{task}", record)
    benchmark.record("ratios", ratios)
    benchmark.check("share_of_cells_with_ratio_above_1", num_above_one / len(cells), bar=8 / 9)
    benchmark.check("median_ratio", median(ratios["defaults"] or [float("nan")]), bar=3.0)
    benchmark.check("cells_with_lower_final_return", num_lower, bar=0, higher_is_better=False)
    return benchmark.finish(args, lambda path: learning.draw(path, panels))


if __name__ == "__main__":
    sys.exit(main())
