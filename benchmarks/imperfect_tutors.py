"""What tutors between oracle and noise do to a student: a real LLM's recorded answers and scripted kinds.

Each student has the defaults. A useless tutor must cost nothing: area under the learning curve, counted from random
play, at 0.97 of the untutored student's, and at most 1.1 times its env steps to each level. A tutor that is worth
following (it plays at least half way from random play to the trained student) must take the student to nine tenths of
the untutored student's way in at most as many env steps, and to nine tenths of its own level in a third of them or in
1,000. That last level counts as reached by the mean of five evaluations, since the sweeps' window, a tenth of the
training, ends at 1,200 env steps at the earliest; the figures by that window are recorded beside it. Tutors between the
two are recorded without a bar.

Run ``.venv/bin/python -m benchmarks.imperfect_tutors`` (``--quick``: Blackjack, PPO, two tutors, 3 seeds).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.harness import Benchmark, benchmark_parser, sized
from benchmarks.shared.grounds import GROUNDS, Ground
from rllib_plugins.hyperparameters import default_hyperparameters

MEASURES = ("rllib_plugins", "tune_sweeps/report")
ALGORITHMS: tuple[Any, ...] = ("dqn", "ppo", "a2c")
PLACES = {
    "snake": Ground("benchmarks.shared.imperfect:ImperfectSnake", {}, 12_000, interval=60, episodes=10),
    "cart_pole": Ground("benchmarks.shared.imperfect:ImperfectCartPole", {}, 12_000, interval=250, episodes=5),
    "blackjack": Ground("benchmarks.shared.imperfect:ImperfectBlackjack", {}, 12_000, interval=50, episodes=20),
    "connect_four": GROUNDS["connect_four_greedy"]._replace(
        task="benchmarks.shared.imperfect:ImperfectConnectFour", num_env_steps=24_000
    ),
    "frozen_lake": Ground("benchmarks.shared.imperfect:ImperfectLake", {}, 12_000, interval=100, episodes=1),
    "snake_grid": Ground(
        "benchmarks.shared.imperfect:ImperfectSnake",
        {"observation": "grid"},
        150_000,
        interval=3_000,
        episodes=20,
        hyperparameters={algorithm: default_hyperparameters(algorithm, "snake") for algorithm in ALGORITHMS},
    ),
}
"""By task; an episode of CartPole's evaluation takes up to 500 env steps, and all of FrozenLake's are alike. The mean
of five evaluations is to show what students reach in 1,000 env steps: so they are many and short."""
OWN_EPISODES = 1_000
"""Episodes by which a tutor's own level is known, where it is not exact."""
TUTORS = {
    "snake": ("oracle", "strategy", "calibrated", "plain", "constant", "half_states", "one_wrong", "worst"),
    "cart_pole": ("oracle", "notes", "calibrated", "hint", "constant", "half_states", "one_wrong", "worst"),
    "blackjack": ("oracle", "smollm2", "plain", "calibrated", "strategy", "half_states", "one_wrong", "worst"),
}
"""By task; recorded ones: Qwen2.5-Coder-1.5B, and SmolLM2, which always sticks."""
USELESS_SHARE = 0.1
"""A tutor below this share of the way from random play to the trained student is useless, and one of one answer."""
ONE_ANSWER = ("constant", "smollm2")
SHOWN = {
    "none": "no tutor",
    "oracle": "oracle",
    "strategy": "Qwen2.5-Coder-1.5B",
    "notes": "Qwen2.5-Coder-1.5B",
    "smollm2": "SmolLM2-135M",
}
"""Kinds whose learning curves are drawn, and what the figure calls them."""
LEVELS = (0.5, 0.75, 0.9)
"""Shares of the way from random play to the untutored student's final return."""
TUTOR_SHARE, TUTOR_SPEED_UP, TUTOR_ENV_STEPS = 0.9, 3.0, 1_000
"""A student comes so far towards a tutor that is worth following, so many times sooner or in so few env steps."""


def student(algorithm: str, task: str, kind: str, seed: int, played: Any = None) -> Any:
    """One trial; the tutor is its task's oracle, or nobody. It knows what the tutor reaches, as in a sweep."""
    from rllib_plugins.advising.config import AdviceConfig
    from rllib_plugins.config import StudentConfig

    told = {} if played is None else played.as_told()
    place = PLACES[task]
    return StudentConfig(
        algorithm=algorithm,
        task=place.task,
        task_options=dict(place.options) | {"kind": "oracle" if kind == "none" else kind},
        tutor="none" if kind == "none" else "oracle",
        seed=seed,
        num_env_steps=place.num_env_steps,
        eval_interval_steps=place.interval,
        eval_episodes=place.episodes,
        eval_max_share=1.0,
        advice=AdviceConfig(**told),
        hyperparameters=dict(place.hyperparameters.get(algorithm) or default_hyperparameters(algorithm, task)),  # type: ignore[arg-type]
    )


def task_of(place: str, kind: str = "oracle") -> Any:
    """Return a place's task with a tutor of some kind."""
    from rllib_plugins.tasks import load_task

    return load_task(PLACES[place].task, **PLACES[place].options, kind=kind)


def own_level(task: str, kind: str) -> float:
    """The return of the tutor's own play, over more episodes than a sweep has it play."""
    from rllib_plugins.evaluation import evaluate

    made = task_of(task, kind)
    return evaluate(made, made.oracle_batch, episodes=OWN_EPISODES, seed=1).return_mean


def in_numbers(faster: Mapping[float, Any]) -> dict[str, list[float] | None]:
    """Speed-ups by level as a result file keeps them: value, low and high end."""
    from benchmarks.shared import learning

    return {str(frac): learning.ends(found) for frac, found in faster.items()}


def to_tutor_level(untutored: Sequence[Any], tutored: Sequence[Any], floor: float, own_return: float) -> dict[str, Any]:
    """Return how soon students first come nine tenths of the way from random play to their tutor.

    Returns:
        ``env_steps``, the geometric mean over seeds (those that never do count with all their steps), and ``speed_up``
        over the untutored ones: value, low and high end; None where no student of either arm comes there. Both by the
        mean of five evaluations; ``by_sweeps_window`` has the same by the sweeps' window.
    """
    from benchmarks.shared import learning

    by_five, by_window = (
        _to_level(learning.compared(untutored, tutored, floor, sustained=False, window=window), own_return)
        for window in (learning.short_window_steps, learning.window_steps)
    )
    return by_five | {"by_sweeps_window": by_window}


def _to_level(comparison: Any, own_return: float) -> dict[str, Any]:
    import numpy as np

    from benchmarks.shared import learning

    comparison = replace(comparison, scale=replace(comparison.scale, fixed=own_return))
    found = learning.faster(comparison, TUTOR_SHARE)
    logs = comparison.log_times([comparison.scale.level(TUTOR_SHARE)])[0, len(comparison.untutored) :]
    return {"env_steps": float(np.exp(logs.mean())), "speed_up": learning.ends(found)}


def own_play(task: str, kind: str) -> Any:
    """What a sweep measures of a tutor before its trials."""
    from tune_sweeps.definition.config import EvaluationConfig
    from tune_sweeps.run.own_play import play_others, play_tutor

    episodes = EvaluationConfig().tutor_episodes
    untutored, tutored = (student(ALGORITHMS[0], task, k, seed=0) for k in ("none", kind))
    return play_tutor(tutored, episodes, play_others(untutored, episodes))


def draw(path: Path, points: list[dict[str, Any]]) -> None:
    """Writes a figure: a tutor's own level against what it did to the student, a panel per task.

    Args:
        path: PNG file to write.
        points: Per cell ``task``, ``algorithm``, ``kind``, ``own_share`` and ``area``.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from tune_sweeps.report.figure_style import GREY, PALETTE

    tasks = list(dict.fromkeys(point["task"] for point in points))
    figure, axes = plt.subplots(1, len(tasks), figsize=(5.2 * len(tasks), 4.0), squeeze=False, layout="constrained")
    for ax, task in zip(axes.flat, tasks, strict=True):
        ax.axhline(1.0, color=GREY, linewidth=1)
        ax.axvline(1.0, color=GREY, linewidth=1, linestyle=":")
        for algorithm, colour in zip(ALGORITHMS, PALETTE, strict=False):
            chosen = [p for p in points if p["task"] == task and p["algorithm"] == algorithm]
            ax.scatter([p["own_share"] for p in chosen], [p["area"] for p in chosen], color=colour, label=algorithm)
        highest: dict[str, dict[str, Any]] = {}
        for point in points:
            if point["task"] == task and point["area"] >= highest.get(point["kind"], point)["area"]:
                highest[point["kind"]] = point
        for kind, point in highest.items():
            ax.annotate(
                kind, (point["own_share"], point["area"]), xytext=(0, 6), textcoords="offset points", ha="center"
            )
        ax.set(
            title=task,
            xlabel="tutor's own play (0: random, 1: trained student)",
            ylabel="area under the curve, tutored over untutored",
        )
        ax.spines[["top", "right"]].set_visible(False)
    axes.flat[0].legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_curves(path: Path, groups: Mapping[tuple[str, str, str], Sequence[Any]]) -> None:
    """Writes a figure of the students of a real LLM, of the oracle and of nobody: a panel per task and algorithm.

    Args:
        path: PNG file to write.
        groups: Curves by task, algorithm and kind of tutor.
    """
    from benchmarks.shared import learning

    panels = {
        f"{algorithm} · {task}": {
            label: groups[task, algorithm, kind] for kind, label in SHOWN.items() if (task, algorithm, kind) in groups
        }
        for task, algorithm, kind in groups
        if kind == "none"
    }
    learning.draw(path, panels)


def arguments(description: str) -> argparse.Namespace:
    """Read the command line."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=None, help="seeds per cell (default: 10, with --quick 3)")
    return parser.parse_args()


def run(name: str, tutors: Mapping[str, Sequence[str]], args: argparse.Namespace) -> int:
    """Measure and report.

    Args:
        name: Of the benchmark.
        tutors: Kinds by task.
        args: From the command line; with ``--quick`` one algorithm is trained, for fewer steps.
    """
    from benchmarks.shared import learning
    from tutor_service.machine import available_cores

    seeds = range(args.seeds or sized(args, full=10, quick=3, smoke=2))
    algorithms = ("ppo",) if args.quick else ALGORITHMS
    shortened = {"num_env_steps": sized(args, full=0, quick=4_000, smoke=800)} if args.quick else {}
    benchmark = Benchmark(name)
    cells = [(task, algorithm, kind) for task in tutors for algorithm in algorithms for kind in ("none", *tutors[task])]
    played = {(task, kind): own_play(task, kind) for task, kinds in tutors.items() for kind in kinds}
    levels = {(task, kind): own_level(task, kind) for task, kind in played}
    students = [
        student(algorithm, task, kind, seed, played.get((task, kind))).model_copy(update=shortened)
        for task, algorithm, kind in cells
        for seed in seeds
    ]
    curves = iter(learning.run_all([(learning.train_ours, (one,)) for one in students], available_cores()))
    groups = {cell: [next(curves) for _ in seeds] for cell in cells}
    points: list[dict[str, Any]] = []
    for (task, algorithm, kind), group in groups.items():
        cell = f"{task}_{algorithm}_{kind}"
        benchmark.record(cell, learning.as_record(group))
        if kind == "none":
            continue
        untutored, floor = groups[task, algorithm, "none"], learning.random_return(task_of(task))
        trained = sum(curve.final for curve in untutored) / len(untutored)
        level = levels[task, kind]
        own_share = (level - floor) / (trained - floor)
        area = sum(curve.area - floor for curve in group) / sum(curve.area - floor for curve in untutored)
        faster, held = (
            {
                frac: learning.faster(learning.compared(untutored, group, floor, sustained=sustained), frac)
                for frac in LEVELS
            }
            for sustained in (False, True)
        )
        final = learning.difference([c.final for c in group], [c.final for c in untutored])
        points.append({"task": task, "algorithm": algorithm, "kind": kind, "own_share": own_share, "area": area})
        benchmark.record(
            f"{cell}_summary",
            points[-1]
            | {
                "own_return": level,
                "told_return": played[task, kind].tutor_return,
                "own_play_env_steps": played[task, kind].num_env_steps,
                "final_difference": learning.ends(final),
                "speed_up": in_numbers(faster),
                "speed_up_sustained": in_numbers(held),
                "consultations": [curve.last["advice/consultations"] for curve in group],
            },
        )
        shown = ", ".join(f"{frac}: ×{found.value:.2f}" for frac, found in faster.items() if found is not None)
        print(f"{cell}: own {own_share:.2f}, area ×{area:.3f}, final {final.value:+.3f}, speed {shown}", flush=True)
        if kind in ONE_ANSWER or own_share < USELESS_SHARE:
            benchmark.check(f"{cell}_area_ratio", area, bar=0.97)
            for frac, found in faster.items():
                if found is not None:
                    benchmark.check(f"{cell}_speed_to_{frac}", found.value, bar=1 / 1.1)
        elif own_share >= 0.5 and faster[0.9] is not None:
            benchmark.check(f"{cell}_speed_to_0.9", faster[0.9].value, bar=1.0)
            soon = to_tutor_level(untutored, group, floor, level)
            benchmark.record(f"{cell}_to_tutor_level", soon)
            sooner = soon["speed_up"][0] / TUTOR_SPEED_UP if soon["speed_up"] else 0.0
            benchmark.check(f"{cell}_to_tutor_level", max(sooner, TUTOR_ENV_STEPS / soon["env_steps"]), bar=1.0)
        benchmark.check(f"{cell}_final_upper_end", final.high, bar=0.0)

    def figures(path: Path) -> None:
        draw(path, points)
        draw_curves(path.with_stem(f"{path.stem}_curves"), groups)

    return benchmark.finish(args, figures)


def main() -> int:
    """Measures and reports."""
    args = arguments(__doc__)
    quick = {"blackjack": ("oracle", "smollm2")}
    return run("imperfect_tutors", quick if args.quick else TUTORS, args)


if __name__ == "__main__":
    sys.exit(main())
