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

A margin of 2 % can only be shown where seeds end alike. So A2C runs on CartPole for as long as untutored students of
ours took, on tuning seeds 100 to 105, to come to 500 and stay there, and PPO on Blackjack has more seeds. DQN's
students do not stay there at any horizon that was tried (100,000 to 300,000 env steps, with a constant learning rate
and with one that falls to 0).

Run ``.venv/bin/python -m benchmarks.student_parity`` (``--quick``: 2 seeds of short runs).
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any, NamedTuple

from benchmarks.harness import Benchmark, benchmark_parser, sized

MEASURES = ("rllib_plugins",)
EVALUATION_EPISODES = 50
MARGIN = 0.02
"""Non-inferiority margin, as a share of the return's range."""


class Length(NamedTuple):
    """How long and how often a cell runs.

    Attributes:
        num_env_steps: Of a trial.
        num_seeds: Seeds 0, 1, ...
    """

    num_env_steps: int
    num_seeds: int = 10

    @property
    def interval(self) -> int:
        """Env steps between evaluations."""
        return self.num_env_steps // 20


LENGTHS = {
    ("dqn", "blackjack"): Length(40_000),
    ("ppo", "blackjack"): Length(40_000, num_seeds=30),
    ("a2c", "blackjack"): Length(40_000),
    ("dqn", "cartpole"): Length(50_000),
    ("ppo", "cartpole"): Length(50_000),
    ("a2c", "cartpole"): Length(300_000),
}
"""By algorithm and task."""


def train_us(algorithm: str, task: str, length: Length, seed: int) -> Any:
    """A curve of ours."""
    from benchmarks.shared import learning
    from benchmarks.shared.students import our_config

    config = our_config(
        *(algorithm, task, 8),
        num_env_steps=length.num_env_steps,
        seed=seed,
        eval_interval_steps=length.interval,
        eval_episodes=EVALUATION_EPISODES,
        eval_max_share=1.0,
    )
    return learning.train_ours(config)


def train_peer(algorithm: str, task: str, length: Length, seed: int) -> Any:
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
            if model.num_timesteps >= len(steps) * length.interval:
                look()
            return model.num_timesteps < length.num_env_steps

    look()
    model.learn(length.num_env_steps, callback=OnGrid())
    return Curve(steps, returns, {})


def main() -> int:
    """Measures and reports."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=None, help="seeds per cell (default: 10 to 30, with --quick 2)")
    args = parser.parse_args()
    from benchmarks.shared import learning
    from tutor_service.machine import available_cores

    benchmark = Benchmark("student_parity")
    short = Length(sized(args, full=0, quick=4_000, smoke=600), num_seeds=2)
    lengths = LENGTHS if not args.quick else {cell: short for cell in LENGTHS if cell[1] == "blackjack"}
    if args.seeds is not None:
        lengths = {cell: length._replace(num_seeds=args.seeds) for cell, length in lengths.items()}
    jobs = [
        (train, (*cell, length, seed))
        for cell, length in lengths.items()
        for seed in range(length.num_seeds)
        for train in (train_us, train_peer)
    ]
    curves = iter(learning.run_all(jobs, available_cores()))
    panels: dict[str, Any] = {}
    for (algorithm, task), length in lengths.items():
        part = [next(curves) for _ in range(2 * length.num_seeds)]
        ours, peer = part[::2], part[1::2]
        panels[f"{algorithm} · {task}"] = {"Stable-Baselines3": peer, "ours": ours}
        benchmark.record(f"{algorithm}_{task}", {"ours": learning.as_record(ours), "peer": learning.as_record(peer)})
        for figure in ("final", "area"):
            found = learning.difference([getattr(c, figure) for c in ours], [getattr(c, figure) for c in peer])
            benchmark.record(f"{algorithm}_{task}_{figure}_difference", asdict(found))
            by_point = [points for arm in (ours, peer) for points in zip(*(c.returns for c in arm), strict=True)]
            mean_returns = [sum(points) / len(points) for points in by_point]
            reach = max(mean_returns) - min(mean_returns) or 1.0  # 0 where nobody has learnt anything yet
            benchmark.check(f"{algorithm}_{task}_{figure}_lower_end", found.low / reach, bar=-MARGIN)
    return benchmark.finish(args, lambda path: learning.draw(path, panels))


if __name__ == "__main__":
    sys.exit(main())
