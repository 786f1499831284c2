"""Students against programs that are compiled whole, against what their arithmetic allows, and over sizes.

- Peers, where they are installed (``.venv/bin/python -m uv pip install -e '.[peers]'``): SBX, and PPO in one XLA
  program with its environments, as PureJaxRL writes it. CartPole, 8 environments, 2 × 64 tanh, equal batches; one seed,
  and ten.
- Wall time of a fresh process that trains PPO for 40,000 env steps, for one seed and for ten: packages, Ray and XLA's
  compilation included. Our machine code is on disk from an earlier process, as it is after anybody's first trial.
- The share of the arithmetic's limit (``benchmarks.shared.arithmetic``) that a student reaches, environments included.
- One trial of a task as a new user writes it (``benchmarks.shared.own_task``), whose episodes take up to 200 env steps:
  how long it takes, and how much of that is evaluation, where 80 evaluations of 200 episodes are asked for.
- Growth: no neighbour in a row of sizes may be slower than the arithmetic makes it by more than ``CLIFF``, and no size
  slower than on RLlib's own EnvRunner.

Rates are by the process's own time, on one core.

Run ``.venv/bin/python -m benchmarks.student_limits`` (``--parts``: some of these alone; ``--quick``: peers and limits,
fewer repetitions).
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from benchmarks.harness import FOLDER, Benchmark, alternate, benchmark_parser, median, ratio, sized

MEASURES = ("rllib_plugins",)
ALGORITHMS = ("ppo", "dqn", "a2c")
PARTS = ("shares", "peers", "growth", "wall", "own_task")
LONGEST_S = 300.0
"""Wall time after which a process is given up: XLA's threads were seen to wait for each other for ever."""
PEERS = {"sbx": "sbx-rl", "gymnax": "gymnax", "optax": "optax"}
CLIFF = 1.25
SHARE_BAR = 0.6
WALL_BAR = 3.0
OWN_TASK_S, OWN_TASK_STEPS = 30.0, 20_000
"""Seconds that a trial of the own task may take, and its env steps."""
OWN_TASK_SHARE = 1 / 3
ONE_THREAD = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}


class Case(NamedTuple):
    """One size of a student."""

    label: str
    task: str
    num_envs: int
    hidden: int = 64
    options: dict[str, Any] = {}  # noqa: RUF012


ROWS = {
    "envs": [Case(str(n), "blackjack", n) for n in (1, 2, 8, 32, 128, 512)],
    "width": [Case(str(width), "blackjack", 8, width) for width in (64, 128, 256, 512)],
    "board": [Case(str(size), "snake", 8, 64, {"observation": "grid", "size": size}) for size in (6, 10, 16)],
}


@contextmanager
def on_one_core() -> Iterator[None]:
    """Keep this process on one core, so that a peer's pool of threads has one."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def missing_peers() -> list[str]:
    """Packages of the peers that are not installed."""
    return [package for module, package in PEERS.items() if importlib.util.find_spec(module) is None]


def measure_sbx(benchmark: Benchmark, repetitions: int, steps: int) -> None:
    """Ours beside SBX's students, which has no A2C."""
    from benchmarks.shared.students import OurRun, PeerRun, our_config, peer_model

    for algorithm in ("ppo", "dqn"):
        ours = OurRun(our_config(algorithm, "cartpole", 8), steps)
        peer = PeerRun(peer_model(algorithm, "cartpole", 8, package="sbx"), steps)
        rates = alternate({"ours": ours, "sbx": peer}, repetitions)
        ours.close()
        peer.close()
        benchmark.record(f"{algorithm}_sbx", rates)
        benchmark.check(f"{algorithm}_over_sbx", ratio(rates["ours"], rates["sbx"]), bar=1.0)


def measure_pure_jax(benchmark: Benchmark, num_seeds: int, repetitions: int, steps: int) -> None:
    """PPO's steady state beside PureJaxRL's; the seeds of ours one after the other, the peer's by ``vmap``."""
    from benchmarks.shared.purejax import PureJaxRun
    from benchmarks.shared.students import OurCell, our_config

    ours = OurCell([our_config("ppo", "cart_pole", 8, seed=seed) for seed in range(num_seeds)], steps)
    peer = PureJaxRun(8, num_seeds, steps)
    rates = alternate({"ours": ours, "pure_jax": peer}, repetitions)
    ours.close()
    case = f"ppo_{num_seeds}_seeds"
    benchmark.record(case, rates | {"pure_jax_env_steps_per_episode_at_last": peer.episode_steps})
    benchmark.check(f"{case}_over_pure_jax", ratio(rates["ours"], rates["pure_jax"]), bar=1.0)


def wall_s(module: str, num_seeds: int, num_env_steps: int) -> float:
    """Seconds of a fresh process that trains some seeds of PPO from nothing.

    Raises:
        subprocess.TimeoutExpired: It takes longer than ``LONGEST_S``.
    """
    command = [sys.executable, "-m", f"benchmarks.shared.{module}"]
    command += ["--num-seeds", str(num_seeds), "--num-env-steps", str(num_env_steps)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    environment.pop("RAY_ADDRESS", None)
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment, cwd=FOLDER.parent, timeout=LONGEST_S)
    return time.perf_counter() - started


def measure_wall(benchmark: Benchmark, num_seeds: int, repetitions: int) -> None:
    """Wall time of a cell of some seeds from nothing; fewer seconds of ours are more."""
    runs = {"ours": partial(wall_s, "students"), "pure_jax": partial(wall_s, "purejax")}
    try:
        seconds = alternate({name: partial(run, num_seeds, 40_000) for name, run in runs.items()}, repetitions)
    except subprocess.TimeoutExpired as error:
        print(f"not measured: wall time of {num_seeds} seeds, since this did not end: {error}", flush=True)
        return
    case = f"ppo_{num_seeds}_seeds_wall"
    benchmark.record(f"{case}_s", seconds)
    benchmark.check(f"{case}_over_pure_jax", ratio(seconds["pure_jax"], seconds["ours"]), bar=WALL_BAR)


def measure_share(benchmark: Benchmark, algorithm: str, num_envs: int, repetitions: int, steps: int) -> None:
    """The share of the arithmetic's limit that a student reaches on CartPole."""
    from benchmarks.shared.arithmetic import LimitRun, Shape
    from benchmarks.shared.students import WARM_UP, OurRun, our_config

    ours = OurRun(our_config(algorithm, "cart_pole", num_envs), steps, min(WARM_UP, 16 * steps))
    rates = alternate({"ours": ours, "limit": LimitRun(algorithm, Shape(num_envs, 4, 2))}, repetitions)
    ours.close()
    case = f"{algorithm}_{num_envs}"
    benchmark.record(case, rates)
    benchmark.check(f"{case}_share_of_limit", ratio(rates["ours"], rates["limit"]), bar=SHARE_BAR)


def measure_growth(benchmark: Benchmark, algorithm: str, row: str, repetitions: int, steps: int) -> None:
    """A row of sizes, all in turn: rates on both rollouts, beside the limit."""
    from benchmarks.shared.arithmetic import LimitRun, Shape
    from benchmarks.shared.students import OurRun, our_config

    table: dict[str, dict[str, float]] = {}
    ours, others = {}, {}
    for case in ROWS[row]:
        arguments = (algorithm, case.task, case.num_envs, case.hidden)
        ours[case.label] = OurRun(our_config(*arguments, task_options=case.options), steps)
        space = ours[case.label].algorithm.task
        shape = Shape(case.num_envs, space.observation_space.shape[0], space.num_actions, case.hidden)
        stock = our_config(*arguments, task_options=case.options, rollout="stock")
        others[case.label] = {"limit": LimitRun(algorithm, shape), "stock": OurRun(stock, steps // 4, steps // 4)}
    rates = {label: median(figures) for label, figures in alternate(dict(ours), repetitions).items()}
    for label, rate in rates.items():
        table[label] = {"ours": rate, **{name: run() for name, run in others[label].items()}}
        for run in (ours[label], others[label]["stock"]):
            run.close()
    benchmark.record(f"{algorithm}_by_{row}", table)
    sizes = list(table.values())
    falls = [
        max(1.0, before["limit"] / after["limit"]) * after["ours"] / before["ours"]
        for before, after in itertools.pairwise(sizes)
    ]
    benchmark.check(f"{algorithm}_by_{row}_least_step", min(falls), bar=1.0 / CLIFF)
    benchmark.check(f"{algorithm}_by_{row}_over_stock", min(size["ours"] / size["stock"] for size in sizes), bar=1.0)


def measure_own_task(benchmark: Benchmark, algorithm: str, num_env_steps: int) -> None:
    """Seconds of a trial of a task of ten lines, from its config to its last result, and evaluation's share of it."""
    from rllib_plugins.config import StudentConfig
    from rllib_plugins.trial import train

    config = StudentConfig(
        algorithm=algorithm,  # type: ignore[arg-type]
        task="benchmarks.shared.own_task:OwnTaxiTask",
        num_env_steps=num_env_steps,
        eval_interval_steps=max(1, num_env_steps // 80),
    )
    started = time.perf_counter()
    results = train(config)
    seconds, case = time.perf_counter() - started, f"{algorithm}_own_task"
    benchmark.record(case, {"seconds": seconds, "num_evaluations": len(results)})
    benchmark.check(f"{case}_s", seconds, bar=OWN_TASK_S, higher_is_better=False)
    share = results[-1]["eval/time_share"]
    benchmark.check(f"{case}_evaluation_share", share, bar=OWN_TASK_SHARE, higher_is_better=False)


def main() -> int:
    """Measures and reports."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what is measured (default: all)")
    args = parser.parse_args()
    left_out = sized(args, full=set(), quick={"growth", "wall", "own_task"}, smoke={"growth", "wall"})
    parts = set(args.parts) - left_out
    os.environ.update(ONE_THREAD)
    benchmark = Benchmark("student_limits")
    repetitions, steps = sized(args, full=(7, 8_192), quick=(3, 8_192), smoke=(1, 256))
    missing = missing_peers()
    if missing:
        print(f"not measured: SBX and PureJaxRL, since {', '.join(missing)} are not installed: .[peers]", flush=True)
    from rllib_plugins.trial import ensure_ray

    ensure_ray()
    with on_one_core():
        for algorithm in ALGORITHMS if "shares" in parts else ():
            for num_envs in (8, 32):
                measure_share(benchmark, algorithm, num_envs, repetitions, steps)
        if "peers" in parts and not missing and not args.smoke:
            measure_sbx(benchmark, repetitions, steps)
            for num_seeds in (1,) if args.quick else (1, 10):
                measure_pure_jax(benchmark, num_seeds, repetitions, steps)
        for algorithm in ALGORITHMS if "growth" in parts else ():
            for row in ROWS:
                measure_growth(benchmark, algorithm, row, 3, 4_096)
        for algorithm in ALGORITHMS if "own_task" in parts else ():
            measure_own_task(benchmark, algorithm, 500 if args.smoke else OWN_TASK_STEPS)
    if "wall" in parts and not missing:
        for num_seeds in (1, 10):
            measure_wall(benchmark, num_seeds, 3)
    return benchmark.finish(args)


if __name__ == "__main__":
    sys.exit(main())
