"""What a stand-in for the tutor makes of a budget of consultations: a table of what was asked, or a model fitted to it.

Students of the oracle, and of a tutor that is right on a random half of the states, have 100 to 2,000 questions. With
``off`` every advised step is charged to the budget; with ``kept`` only questions that the tutor has to answer are;
``ensemble`` answers states that were never asked, too, where it is sure. Uses are the coin, whose advice is acted upon
as in the source, and distillation, the default, told of the tutor's own play what a sweep tells. A stand-in is judged
by its *gain*: the mean greedy return over training less that with ``off``, as a share of the way from random play to
the oracle. Tasks are Snake's features (72 observations: a table soon holds all), CartPole, whose observations hardly
ever come again, and Connect Four against ``greedy``. Options were chosen on seed 100.

Run ``.venv/bin/python -m benchmarks.stand_ins`` (``--quick``: the coin of PPO on CartPole, the oracle, 2 seeds).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from benchmarks.harness import Benchmark, benchmark_parser, median, sized
from benchmarks.imperfect_tutors import own_level, own_play
from benchmarks.imperfect_tutors import student as imperfect_student

MEASURES = ("rllib_plugins", "benchmarks/shared/imperfect.py", "benchmarks/imperfect_tutors.py")
ALGORITHMS = ("dqn", "ppo", "a2c")
NUM_ENV_STEPS = {"snake": 8_000, "cart_pole": 8_000, "connect_four": 16_000}
USES = {"coin": "coin", "distil": "distil (default)"}
KINDS = {"oracle": "oracle", "half_states": "right on half of the states"}
STAND_INS = {"off": "no stand-in", "kept": "what was asked is kept", "ensemble": "model of the advice"}
BUDGETS = (100, 500, 2_000)
NUM_EVALUATIONS, EVAL_EPISODES = 8, 5
MOST_FITTING = 0.1
"""Share of a trial's process time that fitting may take."""


class Cell(NamedTuple):
    """Is a group of trials that differ in their seeds.

    Attributes:
        task: One of ``NUM_ENV_STEPS``.
        algorithm: The student's.
        use: One of ``USES``.
        kind: One of ``KINDS``.
        budget: Questions.
        stand_in: One of ``STAND_INS``.
    """

    task: str
    algorithm: str
    use: str
    kind: str
    budget: int
    stand_in: str

    @property
    def name(self) -> str:
        """Return the cell's name in the result."""
        return "_".join(map(str, self))

    @property
    def alone(self) -> Cell:
        """Return the cell without a stand-in that it is compared with."""
        return self._replace(stand_in="off")


def student(cell: Cell, seed: int, played: Any, num_env_steps: int) -> Any:
    """Return one trial.

    Args:
        cell: What it is of.
        seed: Its own.
        played: What the tutor's own play came to, which only distillation reads.
        num_env_steps: Env steps.
    """
    from rllib_plugins.advising.config import AdviceConfig

    told = {"tutor_return": played.tutor_return, "follow": played.follow} if cell.use == "distil" else {}
    advice = AdviceConfig(use=cell.use, advice_budget=cell.budget, stand_in=cell.stand_in, **told)
    return imperfect_student(cell.algorithm, cell.task, cell.kind, seed).model_copy(
        update={
            "num_env_steps": num_env_steps,
            "advice": advice,
            "eval_interval_steps": num_env_steps // NUM_EVALUATIONS,
            "eval_episodes": EVAL_EPISODES,
        }
    )


def train_timed(config: Any) -> Any:
    """Train one trial; ``last`` says, too, what its process and its fits took, in seconds of process time."""
    from benchmarks.shared.learning import train_ours
    from rllib_plugins.stand_ins.ensemble import EnsembleModel

    fit, fits = EnsembleModel.fit, list[float]()

    def timed(self: Any, answers: Any) -> None:
        started = time.process_time()
        fit(self, answers)
        fits.append(time.process_time() - started)

    EnsembleModel.fit = timed  # type: ignore[method-assign]
    started = time.process_time()
    try:
        curve = train_ours(config)
    finally:
        EnsembleModel.fit = fit  # type: ignore[method-assign]
    curve.last.update(process_s=time.process_time() - started, fitting_s=sum(fits))
    return curve


def planned(args: argparse.Namespace) -> list[Cell]:
    """Return the cells; ``--quick`` has few."""
    if args.quick:
        return [Cell("cart_pole", "ppo", "coin", "oracle", 500, stand_in) for stand_in in STAND_INS]
    return [
        Cell(task, algorithm, use, kind, budget, stand_in)
        for task in NUM_ENV_STEPS
        for algorithm in ALGORITHMS
        for use in USES
        for kind in KINDS
        for budget in BUDGETS
        for stand_in in STAND_INS
    ]


def found_in(curves: Sequence[Any], alone: Sequence[Any], way: float) -> dict[str, Any]:
    """Return what a stand-in made of a budget, with 95 % intervals.

    Args:
        curves: One per seed.
        alone: Those without a stand-in.
        way: Return of the oracle less that of random play.
    """
    from benchmarks.shared import learning

    gain = learning.difference([c.area for c in curves], [c.area for c in alone])
    last = [curve.last for curve in curves]
    agreements = [one["advice/stand_in_agreement"] for one in last]
    known = [value for value in agreements if value == value]
    return {
        "gain": [value / way for value in (gain.value, gain.low, gain.high)],
        "asked": fmean(one["advice/consultations"] - one["advice/reused"] for one in last),
        "advised": fmean(one["advice/consultations"] + one["advice/stand_in"] for one in last),
        "by_model": fmean(one["advice/stand_in"] for one in last),
        "agreement": fmean(known) if known else None,
        "stops": fmean(one["advice/stand_in_stops"] for one in last),
        "fitting_share": median([one["fitting_s"] / one["process_s"] for one in last]),
    }


def summaries(points: Mapping[Cell, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return per use, kind of tutor and stand-in the mean, the least and the largest gain over cells.

    Args:
        points: What ``found_in`` returns, by cell with a stand-in.
    """
    groups: dict[str, list[float]] = {}
    for cell, point in points.items():
        groups.setdefault(f"{cell.use}_{cell.kind}_{cell.stand_in}", []).append(point["gain"][0])
    return {name: {"mean": fmean(gains), "least": min(gains), "largest": max(gains)} for name, gains in groups.items()}


def draw(path: Path, points: Mapping[Cell, Mapping[str, Any]]) -> None:
    """Write a figure: the budget against the gain, a row per use, a column per task and tutor, a line per algorithm.

    Args:
        path: PNG file to write.
        points: What ``found_in`` returns, by cell with a stand-in.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from tune_sweeps.report.figure_style import GREY, PALETTE

    uses = list(dict.fromkeys(cell.use for cell in points))
    columns = list(dict.fromkeys((cell.task, cell.kind) for cell in points))
    figure, axes = plt.subplots(
        len(uses),
        len(columns),
        figsize=(3.1 * len(columns) + 1, 3.0 * len(uses) + 0.6),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    for row, use in enumerate(uses):
        for column, place in enumerate(columns):
            ax = axes[row, column]
            ax.axhline(0.0, color=GREY, linewidth=1)
            for algorithm, colour in zip(ALGORITHMS, PALETTE, strict=False):
                for stand_in, line in (("kept", ":"), ("ensemble", "-")):
                    cells = [
                        c
                        for c in points
                        if (c.use, (c.task, c.kind), c.algorithm, c.stand_in) == (use, place, algorithm, stand_in)
                    ]
                    ax.plot(
                        [cell.budget for cell in cells],
                        [points[cell]["gain"][0] for cell in cells],
                        f"o{line}",
                        color=colour,
                        label=f"{algorithm}, {STAND_INS[stand_in]}",
                    )
            ax.set_title(f"{USES[use]}\n{place[0]}, {KINDS[place[1]]}", fontsize=10)
            ax.set_xscale("log")
            ax.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("questions that the tutor may be asked")
    figure.supylabel("gain over no stand-in\n(share of the way from random play to the oracle)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside upper center", ncols=6, fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> int:
    """Measures and reports."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=None, help="seeds per cell (default: 10; --quick 2)")
    args = parser.parse_args()
    from benchmarks.imperfect_tutors import task_of
    from benchmarks.shared import learning
    from tutor_service.machine import available_cores

    benchmark = Benchmark("stand_ins")
    cells, seeds = planned(args), range(args.seeds or sized(args, full=10, quick=2, smoke=1))
    places = list(dict.fromkeys((cell.task, cell.kind) for cell in cells))
    played = {place: own_play(*place) for place in places if any(c.use == "distil" for c in cells)}
    tasks = list(dict.fromkeys(task for task, _ in places))
    way = {task: own_level(task, "oracle") - learning.random_return(task_of(task)) for task in tasks}
    jobs = [
        (
            train_timed,
            (
                student(
                    cell,
                    seed,
                    played.get((cell.task, cell.kind)),
                    sized(args, full=NUM_ENV_STEPS[cell.task], quick=4_000, smoke=1_000),
                ),
            ),
        )
        for seed in seeds
        for cell in cells
    ]
    curves = learning.run_all(jobs, available_cores())
    groups = {cell: curves[index :: len(cells)] for index, cell in enumerate(cells)}
    points: dict[Cell, dict[str, Any]] = {}
    for cell, group in groups.items():
        if cell.stand_in != "off":
            points[cell] = found_in(group, groups[cell.alone], way[cell.task])
        benchmark.record(cell.name, points.get(cell, {}) | learning.as_record(group))
    found = summaries(points)
    benchmark.record("summaries", found)
    for name, values in found.items():
        print(f"{name}: " + ", ".join(f"{key} {value:+.3f}" for key, value in values.items()), flush=True)
    modelled = [point for cell, point in points.items() if cell.stand_in == "ensemble"]
    over = max(point["asked"] - cell.budget for cell, point in points.items())
    benchmark.check("questions_over_the_budget", over, bar=0, higher_is_better=False)
    fitting = max(point["fitting_share"] for point in modelled)
    benchmark.check("largest_fitting_share", fitting, bar=MOST_FITTING, higher_is_better=False)
    benchmark.check("coin_with_the_oracle", found["coin_oracle_ensemble"]["mean"], bar=0.0)
    return benchmark.finish(args, lambda path: draw(path, points))


if __name__ == "__main__":
    sys.exit(main())
