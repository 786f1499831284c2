"""What each use of advice makes of tutors from the oracle to the worst, and of a budget of consultations.

Every use has its defaults, but for the paper's form, whose θ suits it (``benchmarks.acceleration``), and
distillation, which is told of the tutor's own play what a sweep tells. Kickstarting's weight, shaping's, the
handover's horizon and observing's dropout, which are defaults, were chosen with the oracle on seeds 100 and 101.
Tutors are those of ``benchmarks.shared.imperfect``; tasks are Snake and CartPole. A use is judged by its *gain*: the
mean greedy return over training less the untutored student's, as a share of the way from random play to the oracle.
Cloning learns nothing from reward: a control.

Run ``.venv/bin/python -m benchmarks.uses_of_advice`` (``--quick``: PPO on Snake, two tutors, two uses, 2 seeds).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.ablation import THETA_FRAC
from benchmarks.harness import Benchmark, benchmark_parser, median, sized
from benchmarks.imperfect_tutors import own_level, own_play
from benchmarks.imperfect_tutors import student as imperfect_student

if TYPE_CHECKING:
    from rllib_plugins.advising.config import AdviceConfig

MEASURES = ("rllib_plugins", "benchmarks/shared/imperfect.py", "benchmarks/imperfect_tutors.py")
ALGORITHMS = ("dqn", "ppo", "a2c")
KINDS = ("oracle", "llm", "soft", "half_states", "constant", "worst")
LLM = {"snake": "strategy", "cart_pole": "notes"}
"""By task, the kind of the real LLM's recorded answers that is best to follow."""
GOOD, BAD = ("oracle", "llm"), ("half_states", "constant", "worst")
BUDGETED = ("oracle", "llm")
BUDGETS = (100, 300, 1_000)
"""Consultations; without a limit most uses come to 1,000 to 4,000."""
NUM_ENV_STEPS, INTERVAL, EVAL_EPISODES = 8_000, 1_000, 5
USES = {
    "paper": "coin, the paper's form",
    "coin": "coin",
    "handover": "handover",
    "kickstart": "kickstart",
    "shape": "shape",
    "pool": "pool",
    "observe": "observe",
    "clone": "clone (a control)",
    "distil": "distil (default)",
}
"""By name in the result, what the figure calls them."""
DEFAULT = "distil"


class Cell(NamedTuple):
    """Is a group of trials that differ in their seeds.

    Attributes:
        task: snake or cart_pole.
        algorithm: The student's.
        kind: One of ``KINDS``, or none.
        use: One of ``USES``; of an untutored student ``DEFAULT``.
        budget: Consultations; None: as many as the use makes.
    """

    task: str
    algorithm: str
    kind: str
    use: str = DEFAULT
    budget: int | None = None

    @property
    def name(self) -> str:
        """Return the cell's name in the result."""
        budget = () if self.budget is None else (str(self.budget),)
        return "_".join((self.task, self.algorithm, self.kind, self.use, *budget))

    @property
    def untutored(self) -> Cell:
        """Return the untutored cell that it is compared with."""
        return Cell(self.task, self.algorithm, "none")

    @property
    def imperfect(self) -> str:
        """Return the kind as ``benchmarks.shared.imperfect`` calls it."""
        return LLM[self.task] if self.kind == "llm" else self.kind


def advice_of(use: str, played: Any = None, budget: int | None = None) -> AdviceConfig:
    """Return the configuration of a use.

    Args:
        use: One of ``USES``.
        played: What the tutor's own play came to, which only distillation reads.
        budget: Consultations of a trial; None: unlimited.
    """
    from rllib_plugins.advising.config import PAPER_ADVICE, AdviceConfig

    fields: dict[str, Any] = {"use": use}
    if use == "paper":
        fields = PAPER_ADVICE.model_dump() | {"use": "coin", "theta_frac": THETA_FRAC}
    if use == DEFAULT and played is not None:
        fields |= {"tutor_return": played.tutor_return, "follow": played.follow}
    return AdviceConfig(**fields | {"advice_budget": budget})


def student(cell: Cell, seed: int, num_env_steps: int, played: Any) -> Any:
    """Return one trial; see ``advice_of``."""
    made = imperfect_student(cell.algorithm, cell.task, cell.imperfect, seed)
    return made.model_copy(
        update={
            "num_env_steps": num_env_steps,
            "advice": advice_of(cell.use, played, cell.budget),
            "eval_interval_steps": INTERVAL,
            "eval_episodes": EVAL_EPISODES,
        }
    )


def planned(args: argparse.Namespace) -> dict[Cell, range]:
    """Return the cells, with their seeds; ``--quick`` has few."""
    seeds = range(args.seeds or sized(args, full=5, quick=2, smoke=1))
    if args.quick:
        tutored = [Cell("snake", "ppo", kind, use) for kind in ("oracle", "worst") for use in ("kickstart", DEFAULT)]
        limited = [Cell("snake", "ppo", "oracle", DEFAULT, 100)]
        return dict.fromkeys((Cell("snake", "ppo", "none"), *tutored, *limited), seeds)
    places = [(task, algorithm) for task in LLM for algorithm in ALGORITHMS]
    cells = [Cell(*place, "none") for place in places]
    cells += [Cell(*place, kind, use) for place in places for kind in KINDS for use in USES]
    limited = [
        Cell(*place, kind, use, budget) for place in places for kind in BUDGETED for use in USES for budget in BUDGETS
    ]
    return dict.fromkeys(cells, seeds) | dict.fromkeys(limited, seeds[: (len(seeds) + 1) // 2])


def found_in(curves: Sequence[Any], untutored: Sequence[Any], way: float) -> dict[str, Any]:
    """Return what a use made of a tutor, with 95 % intervals.

    Args:
        curves: One per seed.
        untutored: Those of the untutored student.
        way: Return of the oracle less that of random play.
    """
    from benchmarks.shared import learning

    gain, final = (
        learning.difference([getattr(c, part) for c in curves], [getattr(c, part) for c in untutored])
        for part in ("area", "final")
    )
    return {
        "gain": [value / way for value in (gain.value, gain.low, gain.high)],
        "final_gain": [value / way for value in (final.value, final.low, final.high)],
        "consultations": fmean(curve.last["advice/consultations"] for curve in curves),
    }


def summaries(points: Mapping[Cell, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return per use the median gain of good and of bad tutors, and the least and the largest of all.

    Args:
        points: What ``found_in`` returns, by cell without a budget.
    """
    found = {}
    for use in {cell.use: None for cell in points}:
        gains = {cell: point["gain"][0] for cell, point in points.items() if cell.use == use}
        found[use] = {
            "good": median([gain for cell, gain in gains.items() if cell.kind in GOOD]),
            "bad": median([gain for cell, gain in gains.items() if cell.kind in BAD]),
            "least": min(gains.values()),
            "largest": max(gains.values()),
            "consultations": median([points[cell]["consultations"] for cell in gains]),
        }
    return found


def by_budget(points: Mapping[Cell, Mapping[str, Any]]) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Return by tutor, use and budget the mean gain and consultations over tasks and algorithms.

    Args:
        points: What ``found_in`` returns, by cell.
    """
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for kind in BUDGETED:
        for use in {cell.use: None for cell in points if cell.kind == kind}:
            for budget in (*BUDGETS, None):
                chosen = [p for c, p in points.items() if (c.kind, c.use, c.budget) == (kind, use, budget)]
                if chosen:
                    found.setdefault(kind, {}).setdefault(use, {})[str(budget or "unlimited")] = {
                        "gain": fmean(point["gain"][0] for point in chosen),
                        "consultations": fmean(point["consultations"] for point in chosen),
                    }
    return found


def draw(path: Path, points: Mapping[Cell, Mapping[str, Any]], levels: Mapping[tuple[str, str], float]) -> None:
    """Write a figure: a tutor's own level against the gain, a panel per use.

    Args:
        path: PNG file to write.
        points: What ``found_in`` returns, by cell without a budget.
        levels: By task and kind, the share of the way from random play to the oracle that the tutor's own play goes.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from tune_sweeps.report.figure_style import GREY, PALETTE

    shown = [use for use in USES if any(cell.use == use for cell in points)]
    columns = min(len(shown) + 1, 4)
    rows = -(-(len(shown) + 1) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(3.6 * columns, 3.4 * rows),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    for ax, use in zip(axes.flat, shown, strict=False):
        ax.axhspan(-1.0, 0.0, color=PALETTE[1], alpha=0.08, linewidth=0)
        ax.axhline(0.0, color=GREY, linewidth=1)
        for algorithm, colour in zip(ALGORITHMS, PALETTE, strict=False):
            for task, marker in zip(LLM, "o^", strict=True):
                cells = [c for c in points if (c.use, c.algorithm, c.task) == (use, algorithm, task)]
                ax.scatter(
                    [levels[task, cell.kind] for cell in cells],
                    [points[cell]["gain"][0] for cell in cells],
                    s=34,
                    color=colour,
                    marker=marker,
                    alpha=0.8,
                    label=f"{algorithm}, {task}",
                )
        ax.set_title(USES[use])
        ax.spines[["top", "right"]].set_visible(False)
    lowest = min(point["gain"][0] for point in points.values())
    highest = max(point["gain"][0] for point in points.values())
    axes.flat[0].set_ylim(min(lowest, 0.0) - 0.05, highest + 0.05)
    rest = axes.flat[len(shown) :]
    for ax in rest:
        ax.axis("off")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    rest[0].legend(
        handles, labels, frameon=False, loc="center", title="a point: a tutor of a student\nshaded: it costs"
    )
    figure.supxlabel("the tutor's own play (0: random play, 1: the oracle)")
    figure.supylabel("gain of its student (share of that way)")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_budgets(path: Path, found: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]) -> None:
    """Write a figure: consultations against the mean gain, a panel per tutor and a line per use.

    Args:
        path: PNG file to write.
        found: What ``by_budget`` returns.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from tune_sweeps.report.figure_style import GREY, PALETTE

    titles = {"oracle": "oracle", "llm": "Qwen2.5-Coder-1.5B"}
    figure, axes = plt.subplots(
        1, len(found), figsize=(5.0 * len(found), 3.8), squeeze=False, sharey=True, layout="constrained"
    )
    for ax, (kind, uses) in zip(axes.flat, found.items(), strict=True):
        ax.axhline(0.0, color=GREY, linewidth=1)
        for index, use in enumerate(USES):
            points = list(uses.get(use, {}).values())
            ax.plot(
                [point["consultations"] for point in points],
                [point["gain"] for point in points],
                "o-" if index < len(PALETTE) else "s--",
                color=PALETTE[index % len(PALETTE)],
                label=USES[use],
            )
        ax.set(title=titles[kind], xscale="log", xlabel="consultations of a trial", ylabel="mean gain")
        ax.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.flat[0].get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside right center")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> int:
    """Measures and reports."""
    parser = benchmark_parser(__doc__)
    parser.add_argument(
        "--seeds", type=int, default=None, help="seeds per cell, half as many with a budget (default: 5; --quick 2)"
    )
    args = parser.parse_args()
    from benchmarks.shared import learning
    from tutor_service.machine import available_cores

    benchmark = Benchmark("uses_of_advice")
    cells = planned(args)
    num_env_steps = sized(args, full=NUM_ENV_STEPS, quick=4_000, smoke=500)
    kinds = {(cell.task, cell.kind): cell.imperfect for cell in cells if cell.kind != "none"}
    levels = {(task, kind): own_level(task, name) for (task, kind), name in kinds.items()}
    played = {(task, kind): own_play(task, name) for (task, kind), name in kinds.items()}
    random = {task: learning.random_return(task) for task, _ in kinds}
    jobs = [
        (learning.train_ours, (student(cell, seed, num_env_steps, played.get((cell.task, cell.kind))),))
        for cell, seeds in cells.items()
        for seed in seeds
    ]
    curves = iter(learning.run_all(jobs, available_cores()))
    groups = {cell: [next(curves) for _ in seeds] for cell, seeds in cells.items()}
    points: dict[Cell, dict[str, Any]] = {}
    for cell, group in groups.items():
        if cell.kind == "none":
            benchmark.record(cell.name, learning.as_record(group))
            continue
        untutored = groups[cell.untutored][: len(group)]
        points[cell] = found_in(group, untutored, levels[cell.task, "oracle"] - random[cell.task])
        benchmark.record(cell.name, points[cell] | learning.as_record(group))
    shares = {
        (task, kind): (level - random[task]) / (levels[task, "oracle"] - random[task])
        for (task, kind), level in levels.items()
    }
    benchmark.record("own_levels", {f"{task}_{kind}": share for (task, kind), share in shares.items()})
    unlimited = {cell: point for cell, point in points.items() if cell.budget is None}
    uses, budgets = summaries(unlimited), by_budget(points)
    benchmark.record("uses", uses)
    benchmark.record("budgets", budgets)
    for use, found in uses.items():
        print(f"{use}: " + ", ".join(f"{name} {value:+.3f}" for name, value in found.items()), flush=True)
    benchmark.check("default_with_good_tutors", uses[DEFAULT]["good"], bar=0.1)
    benchmark.check("default_with_its_least_tutor", uses[DEFAULT]["least"], bar=-0.05)

    def figures(path: Path) -> None:
        draw(path, unlimited, shares)
        draw_budgets(path.with_stem(f"{path.stem}_budgets"), budgets)

    return benchmark.finish(args, figures)


if __name__ == "__main__":
    sys.exit(main())
