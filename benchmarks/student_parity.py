"""Whether our untutored students learn as well as Stable-Baselines3's at the same settings: final return and area.

Both sides are evaluated greedily, by the same function, on the same grid of env steps. Per algorithm and task, the 95 %
interval of our mean minus theirs must lie above a non-inferiority margin: 2 % of the return's range, which is that of
the mean returns of both over training.

What differs although the settings are the same (``benchmarks.shared.students``):

* PPO standardises advantages over the batch, as RLlib does; the peer over each minibatch.
* Until learning starts, DQN explores by its ε-schedule; the peer acts at random whatever its schedule says.
* The peer is evaluated at the first vector step on or after a point of the grid, ours at the point.
* Environments are stepped as arrays where the task allows; the peer's one after the other. The rules are the same, the
  random streams are not: seeds of one side do not pair with those of the other.
* Updates run in compiled code with the same formulas, rounded differently.

Run ``.venv/bin/python -m benchmarks.student_parity`` (``--quick``: 2 seeds of short runs).
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from benchmarks.harness import Benchmark, add_arguments, sized

MEASURES = ("rllib_plugins",)
EVALUATION_EPISODES = 50
MARGIN = 0.02
"""Non-inferiority margin, as a share of the return's range."""


def train_peer(algorithm: str, task: str, num_env_steps: int, interval: int, seed: int) -> Any:
    """A curve of the peer's, evaluated whenever it crosses a point of the grid."""
    import numpy as np
    import torch
    from stable_baselines3.common.callbacks import BaseCallback

    from benchmarks.shared.learning import Curve
    from benchmarks.shared.students import TASKS, peer_model
    from rllib_plugins.evaluation import evaluate
    from rllib_plugins.tasks import load_task

    made, model = load_task(TASKS[task]), peer_model(algorithm, task, 8, seed)
    steps: list[float] = []
    returns: list[float] = []

    def greedy(observations: np.ndarray) -> np.ndarray:
        actions, _ = model.predict(observations, deterministic=True)
        return np.eye(made.num_actions)[actions]

    def look() -> None:
        with torch.no_grad():
            result = evaluate(made, greedy, episodes=EVALUATION_EPISODES, seed=1_000_003 + seed)
        steps.append(model.num_timesteps)
        returns.append(result.return_mean)

    class OnGrid(BaseCallback):
        def _on_step(self) -> bool:
            if model.num_timesteps >= len(steps) * interval:
                look()
            return model.num_timesteps < num_env_steps

    look()
    model.learn(num_env_steps, callback=OnGrid())
    return Curve(steps, returns, {})


def main() -> int:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--seeds", type=int, default=None, help="seeds per cell (default: 10, with --quick 2)")
    args = parser.parse_args()
    from benchmarks.shared import learning
    from benchmarks.shared.students import our_config
    from tutor_service.machine import available_cores

    seeds = range(args.seeds or sized(args, full=10, quick=2, smoke=2))
    steps = sized(
        args,
        full={"blackjack": 40_000, "cartpole": 50_000},
        quick={"blackjack": 4_000, "cartpole": 4_000},
        smoke={"blackjack": 600, "cartpole": 600},
    )
    tasks = ("blackjack",) if args.quick else tuple(steps)
    benchmark = Benchmark("student_parity")
    cells = [(algorithm, task) for task in tasks for algorithm in ("dqn", "ppo", "a2c")]
    jobs: list[Any] = []
    for algorithm, task in cells:
        interval = steps[task] // 20
        for seed in seeds:
            config = our_config(
                *(algorithm, task, 8),
                num_env_steps=steps[task],
                seed=seed,
                eval_interval_steps=interval,
                eval_episodes=EVALUATION_EPISODES,
                eval_max_share=1.0,
            )
            jobs.append((learning.train_ours, (config,)))
            jobs.append((train_peer, (algorithm, task, steps[task], interval, seed)))
    curves = learning.run_all(jobs, available_cores())
    panels: dict[str, Any] = {}
    for index, (algorithm, task) in enumerate(cells):
        part = curves[2 * len(seeds) * index : 2 * len(seeds) * (index + 1)]
        ours, peer = part[::2], part[1::2]
        panels[f"{algorithm} · {task}"] = {"Stable-Baselines3": peer, "ours": ours}
        benchmark.record(f"{algorithm}_{task}", {"ours": learning.as_record(ours), "peer": learning.as_record(peer)})
        for figure in ("final", "area"):
            found = learning.difference([getattr(c, figure) for c in ours], [getattr(c, figure) for c in peer])
            benchmark.record(f"{algorithm}_{task}_{figure}_difference", vars_of(found))
            mean_returns = [sum(points) / len(points) for arm in (ours, peer) for points in returns_by_point(arm)]
            reach = max(mean_returns) - min(mean_returns) or 1.0  # 0 where nobody has learnt anything yet
            benchmark.check(f"{algorithm}_{task}_{figure}_lower_end", found.low / reach, bar=-MARGIN)
    return benchmark.finish(args, lambda path: learning.draw(path, panels))


def returns_by_point(curves: Any) -> list[tuple[float, ...]]:
    return list(zip(*(curve.returns for curve in curves), strict=True))


def vars_of(interval: Any) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


if __name__ == "__main__":
    sys.exit(main())
