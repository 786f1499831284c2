"""From the paper's use of advice to the defaults, one switch at a time: what each of them brings and costs.

The forms are cumulative. They begin with the paper's (naive log-probability, no imitation, fixed trust, and for DQN the
tutor in place of random exploration) at a θ that suits it (``benchmarks.acceleration``), pass the coin's defaults, and
end with what a sweep does by default. Tutors are the task's oracle and a real LLM of 1.5B, whose recorded answers are
in ``benchmarks/data``; tasks are Snake and CartPole. A form is judged by the area under the learning curve, counted
from random play.

Run ``.venv/bin/python -m benchmarks.ablation`` (``--quick``: PPO on Snake with the LLM, 3 seeds).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.harness import FOLDER, Benchmark, benchmark_parser, median, sized

if TYPE_CHECKING:
    from rllib_plugins.advising.config import AdviceConfig

MEASURES = ("rllib_plugins", "tune_sweeps/report", "benchmarks/data")
ALGORITHMS = ("dqn", "ppo", "a2c")
TASKS = ("snake", "cart_pole")
TUTORS = ("oracle", "llm")
THETA_FRAC = 0.05


class Switch(NamedTuple):
    """Is one step from the paper's form towards the defaults.

    Attributes:
        fields: Fields of ``AdviceConfig`` that are set to their defaults.
        algorithms: Students that read them.
    """

    fields: tuple[str, ...]
    algorithms: tuple[str, ...] = ALGORITHMS


SWITCHES = {
    "own exploration": Switch(("dqn_random_share",), ("dqn",)),
    "behaviour weights": Switch(("weights",), ("ppo", "a2c")),
    "imitation": Switch(("imitation",)),
    "earned trust": Switch(("trust", "probability_cap")),
}
"""In the order in which they are made."""
NUM_ENV_STEPS, INTERVAL, EVAL_EPISODES = 10_000, 250, 8


def forms(algorithm: str) -> dict[str, AdviceConfig]:
    """Return the uses of advice by name, from the paper's to distillation."""
    from rllib_plugins.advising.config import PAPER_ADVICE, AdviceConfig

    fields = PAPER_ADVICE.model_dump() | {"use": "coin", "theta_frac": THETA_FRAC}
    found = {"paper": AdviceConfig(**fields)}
    for name, switch in SWITCHES.items():
        if algorithm in switch.algorithms:
            fields |= {field: AdviceConfig.model_fields[field].default for field in switch.fields}
            found[name] = AdviceConfig(**fields)
    return {**found, "distillation": AdviceConfig()}


TOLD = "own play told"
"""The last form: distillation by students that know what their tutor's own play came to, as in a sweep."""


def student(task: str, algorithm: str, tutor: str, advice: AdviceConfig, seed: int) -> Any:
    """Return one trial.

    Args:
        task: The task's name.
        algorithm: The student's.
        tutor: One of ``TUTORS``, or none.
        advice: The form.
        seed: The trial's.
    """
    from rllib_plugins.config import StudentConfig

    return StudentConfig(
        algorithm=algorithm,
        task=task,
        tutor=str(FOLDER / "data" / f"qwen_{task}.yaml") if tutor == "llm" else tutor,
        advice=advice,
        seed=seed,
        num_env_steps=NUM_ENV_STEPS,
        eval_interval_steps=INTERVAL,
        eval_episodes=EVAL_EPISODES,
        eval_max_share=1.0,
    )


def trials(cells: Sequence[tuple[str, str, str]], seeds: Sequence[int]) -> dict[tuple[str, str, str, str, int], Any]:
    """Return all trials by task, algorithm, tutor, form and seed."""
    from benchmarks.shared import learning
    from rllib_plugins.advising.config import AdviceConfig
    from tutor_service.machine import available_cores

    found: dict[tuple[str, str, str, str, int], Any] = {}
    for task, algorithm, tutor in cells:
        for seed in seeds:
            found[task, algorithm, "none", "untutored", seed] = student(task, algorithm, "none", AdviceConfig(), seed)
            for name, advice in forms(algorithm).items():
                found[task, algorithm, tutor, name, seed] = student(task, algorithm, tutor, advice, seed)
    distilled = {key: trial for key, trial in found.items() if key[3] == "distillation"}
    informed, _ = learning.told([(key[0], trial) for key, trial in distilled.items()], available_cores())
    for (task, algorithm, tutor, _, seed), trial in zip(distilled, informed, strict=True):
        found[task, algorithm, tutor, TOLD, seed] = trial
    return found


def summary(arms: Mapping[str, Sequence[Any]], floor: float) -> dict[str, Any]:
    """Return what each form of a cell came to, in shares of the untutored student's area; with 95 % intervals.

    Args:
        arms: Curves by form, the untutored student's first.
        floor: Return of random play.

    Returns:
        By form, ``area``: over the untutored student's, minus one; ``brought``: over the form before.
    """
    from benchmarks.shared import learning

    areas = {name: [curve.area - floor for curve in curves] for name, curves in arms.items()}
    scale = sum(areas["untutored"]) / len(areas["untutored"])
    found: dict[str, Any] = {}
    for before, name in zip(areas, list(areas)[1:], strict=False):
        over, brought = (learning.difference(areas[name], areas[other]) for other in ("untutored", before))
        found[name] = {
            "area": [value / scale for value in (over.value, over.low, over.high)],
            "brought": [value / scale for value in (brought.value, brought.low, brought.high)],
        }
    over = learning.difference(areas[TOLD], areas["paper"])
    found["defaults_over_paper"] = [value / scale for value in (over.value, over.low, over.high)]
    return found


def draw(path: Path, cells: Mapping[tuple[str, str, str], Mapping[str, Any]]) -> None:
    """Write a figure of every form's area beside the untutored student's: a panel per cell.

    Args:
        path: PNG file to write.
        cells: What ``summary`` returns, by task, algorithm and tutor.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from tune_sweeps.report.figure_style import GREY, PALETTE

    columns = min(len(cells), 4)
    rows = -(-len(cells) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.4 * columns, 2.6 * rows), squeeze=False, layout="constrained")
    for ax in axes.flat[len(cells) :]:
        ax.remove()
    for ax, (cell, found) in zip(axes.flat, cells.items(), strict=False):
        names = [name for name in found if name != "defaults_over_paper"]
        for place, name in enumerate(reversed(names)):
            value, low, high = found[name]["area"]
            ax.plot([low, high], [place, place], color=PALETTE[0])
            ax.plot([value], [place], "o", color=PALETTE[0])
        ax.axvline(0.0, color=GREY, linewidth=1)
        ax.set_yticks(range(len(names)), names[::-1])
        ax.set(title=" · ".join(cell), xlabel="area over the untutored student's, minus one")
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> int:
    """Measures and reports."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=None, help="seeds per cell (default: 10, with --quick 3)")
    args = parser.parse_args()
    from benchmarks.shared import learning
    from tutor_service.machine import available_cores

    seeds = range(args.seeds or sized(args, full=10, quick=3, smoke=2))
    tasks, algorithms, tutors = (("snake",), ("ppo",), ("llm",)) if args.quick else (TASKS, ALGORITHMS, TUTORS)
    benchmark = Benchmark("ablation")
    cells = [(task, algorithm, tutor) for task in tasks for algorithm in algorithms for tutor in tutors]
    planned = trials(cells, seeds)
    if args.smoke:
        planned = {key: trial.model_copy(update={"num_env_steps": 500}) for key, trial in planned.items()}
    curves = learning.run_all([(learning.train_ours, (trial,)) for trial in planned.values()], available_cores())
    done = dict(zip(planned, curves, strict=True))
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for task, algorithm, tutor in cells:
        arms = {"untutored": [done[task, algorithm, "none", "untutored", seed] for seed in seeds]}
        for name in [*forms(algorithm), TOLD]:
            arms[name] = [done[task, algorithm, tutor, name, seed] for seed in seeds]
        cell = found[task, algorithm, tutor] = summary(arms, learning.random_return(task))
        name = f"{task}_{algorithm}_{tutor}"
        benchmark.record(name, cell)
        benchmark.record(f"{name}_curves", {form: learning.as_record(group) for form, group in arms.items()})
        shown = ", ".join(f"{form} {cell[form]['area'][0]:+.2f}" for form in list(arms)[1:])
        print(f"{name}: {shown}", flush=True)
        benchmark.check(f"{name}_defaults_over_paper_upper_end", cell["defaults_over_paper"][2], bar=0.0)
    benchmark.check(
        "median_defaults_over_paper", median([cell["defaults_over_paper"][0] for cell in found.values()]), bar=0.0
    )
    return benchmark.finish(args, lambda path: draw(path, found))


if __name__ == "__main__":
    sys.exit(main())
