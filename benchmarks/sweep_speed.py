"""Wall time of a sweep on our rollout beside RLlib's own, trials per hour by cores, and how soon a trial starts.

The sweep is ``laptop54`` as `tutor sweep` runs it, MLflow, evaluations and Tune included, without the LLM, whose time
is not the students', and with fewer env steps: RLlib's own rollout would take hours for all of them. What starting
takes weighs the more, so the full sweep gains more than this shows.

Run ``.venv/bin/python -m benchmarks.sweep_speed`` on a machine with nothing else running (``--quick``: Blackjack, 2
algorithms).
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import Benchmark, benchmark_parser, median, sized
from benchmarks.shared.sweeps import run, with_settings

MEASURES = ("tune_sweeps/run", "rllib_plugins")


def sweep_s(folder: Path, name: str, *settings: str) -> float:
    """Seconds that one sweep takes, from its command to its end."""
    alike = ("tutors=[oracle, random]", "advice.trust=fixed", *settings)  # what both rollouts do alike
    started = time.perf_counter()
    run(folder, "sweep", "laptop54", "--name", name, *with_settings(alike))
    return time.perf_counter() - started


def num_trials(folder: Path, name: str) -> int:
    """Trials that a sweep finished, by its journal."""
    from tune_sweeps.tracking.journal import Journal

    return Journal(folder / name / "journal").count("done")


def trial_starts(num_seeds: int) -> list[float]:
    """Seconds from a trial's config to its first env step, in a process that ran another trial before."""
    from rllib_plugins.config import StudentConfig
    from rllib_plugins.trial import StudentTrial, ensure_ray

    ensure_ray()
    configs = [
        StudentConfig(algorithm=algorithm, task="snake", tutor="oracle", seed=seed, eval_episodes=1).model_dump()
        for seed in range(num_seeds)
        for algorithm in ("dqn", "ppo", "a2c")
    ]
    trial, seconds = StudentTrial(config=configs[0]), []
    for config in configs[1:]:
        started = time.perf_counter()
        trial.reset_config(config)
        trial.step()
        seconds.append(time.perf_counter() - started)
    trial.cleanup()
    return seconds


def main() -> int:
    """Measures and reports."""
    args = benchmark_parser(__doc__).parse_args()
    benchmark = Benchmark("sweep_speed")
    size = ["num_env_steps=4000"]
    if args.smoke:
        size = ["num_env_steps=500", "algorithms=[ppo]", "tasks=[blackjack]", "tutors=[oracle]", "seeds=1"]
    elif args.quick:
        size = ["num_env_steps=2000", "algorithms=[ppo, a2c]", "tasks=[blackjack]"]
    with tempfile.TemporaryDirectory(prefix="sweep-speed-") as name:
        folder = Path(name)
        walls = {rollout: sweep_s(folder, rollout, f"rollout={rollout}", *size) for rollout in ("lean", "stock")}
        benchmark.record("wall_s", walls)
        benchmark.check("wall_lean_over_stock", walls["lean"] / walls["stock"], bar=0.5, higher_is_better=False)
        for cores in sized(args, full=[1, 2], quick=[1, 2], smoke=[]):
            settings = (f"resources.max_concurrent={cores}", "resources.num_cpus_per_trial=1")
            seconds = sweep_s(folder, f"cores-{cores}", *settings, *size)
            rate = 3600 * num_trials(folder, f"cores-{cores}") / seconds
            print(f"{cores} trials at once, a core each: {rate:,.0f} trials/h", flush=True)
            benchmark.record(f"trials_per_h_{cores}", rate)
    starts = trial_starts(sized(args, full=5, quick=5, smoke=1))
    benchmark.record("trial_start_s", starts)
    benchmark.check("trial_start_s", median(starts), bar=3.0, higher_is_better=False)
    return benchmark.finish(args)


if __name__ == "__main__":
    sys.exit(main())
