"""What a real LLM of 1.5 billion parameters is worth as a tutor, by how it is asked and read; what finding out costs.

Plays Qwen2.5-Coder-1.5B-Instruct (Apache-2.0) by itself, from its recorded answers in ``benchmarks/data``, in every way
that they hold: ``tutor audition`` chooses, and beside it every way is played in full. ``--live`` asks the model again
and holds its answers against the recorded ones.

Run ``.venv/bin/python -m benchmarks.tutor_quality`` (``--quick``: fewer episodes; ``--live``: minutes more, with the
model at hand; ``--record``: the same, and write the answers down).
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import FOLDER, Benchmark, benchmark_parser, sized

if TYPE_CHECKING:
    from rllib_plugins.audition import Audition
    from rllib_plugins.audition.race import Score
    from rllib_plugins.tasks import Task

MEASURES = ("rllib_plugins/audition", "rllib_plugins/advising/llm.py", "rllib_plugins/tasks", "benchmarks/data")
DATA = FOLDER / "data"
TUTOR = "qwen2.5-coder-1.5b"
TASKS = ("snake", "cart_pole")
SNAKE_BAR = 9.5
SAME = 1e-3
"""Largest distance between the probabilities of equal answers."""


def main() -> int:
    """Measure and report."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--live", action="store_true", help="ask the model again, and compare")
    parser.add_argument("--record", action="store_true", help="ask the model, and write down what it says")
    parser.add_argument(
        "--tutors", type=Path, nargs="*", default=[], help="more files, NAME-TASK….jsonl, to choose from"
    )
    args = parser.parse_args()
    benchmark = Benchmark("tutor_quality")
    num_episodes = {"cart_pole": 200}  # an episode of a good player takes 500 env steps of Python
    fewer = sized(args, full=0, quick=80, smoke=80)
    chosen: dict[str, Score] = {}
    shares, costs, way_there = [], [], 0.0
    files = {
        **{path: task_of(path) for path in args.tutors},
        **{DATA / f"{TUTOR}-{task}.jsonl": task for task in TASKS},
    }
    if args.record or args.live:
        compare_live(benchmark, args.record)
    for path, task in files.items():
        found, every = measure(path, task, fewer or num_episodes.get(task, 2_000))
        best = max(score.mean for score in every.values())
        low = found.references["random"].mean
        mine = every[found.best.player.words].mean
        share = 1.0 if mine >= best else 1.0 - (best - mine) / max(best - low, abs(best))
        cost = found.race.episodes / found.race.full
        if task == "cart_pole":
            way_there = (mine - low) / (found.references["oracle"].mean - low)
        shares.append(share)
        costs.append(cost)
        chosen[task] = every[found.best.player.words]
        benchmark.record(
            path.stem,
            {
                "chosen": found.best.player.words,
                "share_of_the_best_way": share,
                "share_of_the_episodes": cost,
                "returns": {name: [score.mean, *score.interval()] for name, score in every.items()},
                "references": {name: score.mean for name, score in found.references.items()},
            },
        )
        print(
            f"{path.stem}: {found.best.player.words} returns {mine:.2f} (best {best:.2f}), cost {cost:.2f}", flush=True
        )
    benchmark.check("snake_return_when_followed", chosen["snake"].mean, bar=SNAKE_BAR)
    benchmark.check("cart_pole_share_of_the_way_from_random_to_best_play", way_there, bar=0.5)
    benchmark.check("least_share_of_the_best_way", min(shares), bar=0.9)
    benchmark.check("largest_share_of_the_cost_of_all_ways", max(costs), bar=1 / 3, higher_is_better=False)
    return benchmark.finish(args, None if args.quick else lambda path: draw(path, benchmark.records))


def compare_live(benchmark: Benchmark, write: bool) -> None:
    """Hold what the tutor says now against what is recorded, and against what it says when it is asked once more."""
    from benchmarks.shared.live_tutor import ask_again, ask_twice

    for task in TASKS:
        asked = ask_again(TUTOR, task, DATA / f"{TUTOR}-{task}.jsonl", write=write)
        benchmark.check(f"{task}_live_beside_its_recording", asked.replayed.largest, bar=SAME, higher_is_better=False)
        benchmark.record(f"{task}_live_beside_recorded_before", asked.recorded._asdict())
    twice = ask_twice(TUTOR, "snake", "float32")
    benchmark.check("snake_asked_twice_in_float32", twice.largest, bar=SAME, higher_is_better=False)


def measure(path: Path, task_name: str, episodes: int) -> tuple[Audition, dict[str, Score]]:
    """Return what an audition of a recorded tutor chooses, and every way's return when it is played in full."""
    from rich.console import Console

    from rllib_plugins.audition.audition import play_episodes
    from rllib_plugins.tasks import load_task
    from tune_sweeps.run.audition import Wanted, hold_audition
    from tutor_service.tutor_files import load_tutor

    task: Task = load_task(task_name)
    screen = Console(file=io.StringIO())
    found = hold_audition(load_tutor(str(path)), task, Wanted(episodes=episodes), None, screen).audition
    every = {
        standing.player.words: play_episodes(
            task, found.answers[standing.player.asking].policy(standing.player), episodes, seed=1
        )
        for standing in found.race.standings
    }
    return found, every


def task_of(path: Path) -> str:
    """Return the task that a file of answers is about, by its name."""
    return next(task for task in ("blackjack", *TASKS) if f"-{task}" in path.stem)


def draw(path: Path, records: dict[str, Any]) -> None:
    """Write the returns of all ways, by task, beside those of the references."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = {name: record for name, record in records.items() if "returns" in record}
    height = 1.0 + 0.28 * max(len(record["returns"]) + len(record["references"]) for record in panels.values())
    figure = Figure(figsize=(6.5 * len(panels), height), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, record) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        bars = {way: figures[0] for way, figures in record["returns"].items()} | record["references"]
        order = sorted(bars, key=bars.__getitem__)
        colours = ["#1f6feb" if way in record["returns"] else "#9a9a9a" for way in order]
        axes.barh(order, [bars[way] for way in order], color=colours)
        axes.set(title=name, xlabel="return of an episode")
        axes.tick_params(labelsize="small")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
