"""Env steps per second of the students: against Stable-Baselines3, the floor, and stock RLlib.

The floor is what an implementation in PyTorch on the same networks cannot leave out: the acting forward pass of each
vector step and, on batches of the same sizes, forward, backward and optimiser step with a trivial loss. (Ours can be
faster than it: it runs these small networks in numpy.) Time is the process's own (one thread): that of the clock on an
idle machine, and little disturbed on a busy one.

Run ``.venv/bin/python -m benchmarks.student_speed`` (``--quick``: fewer cases and repetitions, at most 60 s).
"""

from __future__ import annotations

import sys
import time
from typing import Any

from benchmarks.harness import Benchmark, alternate, benchmark_parser, ratio, sized

MEASURES = ("rllib_plugins",)
ALGORITHMS = ("dqn", "ppo", "a2c")


def floor_run(algorithm: str, config: Any, num_env_steps: int) -> Any:
    """A function that does only the floor's work for so many env steps, on networks like the student's."""
    import torch
    from torch import nn

    from benchmarks.shared.students import HIDDEN, SETTINGS
    from rllib_plugins.tasks import load_task

    task, settings, num_envs = load_task(config.task), SETTINGS[algorithm], config.num_envs
    obs_dim, activation = task.observation_space.shape[0], nn.ReLU if algorithm == "dqn" else nn.Tanh

    def network(num_outputs: int) -> nn.Sequential:
        return nn.Sequential(
            *(nn.Linear(obs_dim, HIDDEN), activation(), nn.Linear(HIDDEN, HIDDEN), activation()),
            nn.Linear(HIDDEN, num_outputs),
        )

    policy, other = network(task.num_actions), network(1 if algorithm != "dqn" else task.num_actions)
    trained = [*policy.parameters(), *(() if algorithm == "dqn" else other.parameters())]
    optimizer = torch.optim.RMSprop(trained) if algorithm == "a2c" else torch.optim.Adam(trained, fused=True)
    observations = torch.zeros(4096, obs_dim)
    vector_steps = {"ppo": settings.get("batch", 0) // num_envs, "a2c": settings.get("steps", 0), "dqn": 1}[algorithm]

    def update(batch_size: int) -> None:
        batch = observations[:batch_size]
        if algorithm == "dqn":
            with torch.no_grad():
                other(batch)
            loss = policy(batch).mean()
        else:
            loss = policy(batch).mean() + other(batch).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def measure() -> float:
        started, done = time.process_time(), 0
        while done < num_env_steps:
            with torch.no_grad():
                for _ in range(vector_steps):
                    policy(observations[:num_envs])
                    if algorithm != "dqn":
                        other(observations[:num_envs])
            if algorithm == "ppo":
                for _ in range(settings["epochs"] * settings["batch"] // settings["minibatch"]):
                    update(settings["minibatch"])
            else:
                update(settings["batch"] if algorithm == "dqn" else settings["steps"] * num_envs)
            done += vector_steps * num_envs
        return done / (time.process_time() - started)

    return measure


def measure_case(benchmark: Benchmark, algorithm: str, task: str, num_envs: int, repetitions: int, steps: int) -> None:
    """Ours, the peer's and the floor, alternated."""
    from benchmarks.shared.students import WARM_UP, OurRun, PeerRun, our_config, peer_model

    config = our_config(algorithm, task, num_envs)
    warm_up = min(WARM_UP, 16 * steps)
    ours, peer = OurRun(config, steps, warm_up), PeerRun(peer_model(algorithm, task, num_envs), steps, warm_up)
    floor = floor_run(algorithm, config, steps)
    rates = alternate({"ours": ours, "peer": peer, "floor": floor}, repetitions)
    ours.close()
    peer.close()
    case = f"{algorithm}_{task}_{num_envs}"
    benchmark.record(case, rates)
    benchmark.check(f"{case}_over_sb3", ratio(rates["ours"], rates["peer"]), bar=1.0)
    benchmark.check(f"{case}_over_floor", ratio(rates["ours"], rates["floor"]), bar=0.5)


def measure_tutored(benchmark: Benchmark, algorithm: str, repetitions: int, steps: int) -> None:
    """A student whose tutor's answers are all at hand, against the same student alone, behind its first 4,000 steps.

    By then most of the advice that is to be imitated again has been: a cost of once per trial. Rounds are many and
    short, since what is told apart here is less than what the speed of a machine changes by within seconds.
    """
    from benchmarks.shared.students import OurRun, our_config

    configs = {tutor: our_config(algorithm, "blackjack", 8, tutor=tutor) for tutor in ("none", "oracle")}
    runs = {tutor: OurRun(config, steps // 4, warm_up=4_000) for tutor, config in configs.items()}
    rates = alternate(dict(runs), 8 * repetitions)
    for run in runs.values():
        run.close()
    benchmark.record(f"{algorithm}_tutored", rates)
    benchmark.check(f"{algorithm}_tutored_over_untutored", ratio(rates["oracle"], rates["none"]), bar=0.9)


def rollout_run(algorithm: str, rollout: str, steps: int) -> Any:
    """Return a tutored student on our rollout or on RLlib's own, of an eighth of the steps; both use advice alike."""
    from benchmarks.shared.students import OurRun, our_config
    from rllib_plugins.advising.config import AdviceConfig

    advice = AdviceConfig(trust="fixed")
    config = our_config(algorithm, "blackjack", 8, tutor="oracle", rollout=rollout, advice=advice)
    return OurRun(config, steps if rollout == "lean" else max(500, steps // 8), warm_up=600)


def measure_stock(benchmark: Benchmark, algorithm: str, repetitions: int, steps: int) -> None:
    """The wall time of the same trial on RLlib's own EnvRunner."""
    runs = {rollout: rollout_run(algorithm, rollout, steps) for rollout in ("lean", "stock")}
    rates = alternate(runs, repetitions)
    for run in runs.values():
        run.close()
    benchmark.record(f"{algorithm}_rollouts", rates)
    share = ratio(rates["stock"], rates["lean"])
    benchmark.check(f"{algorithm}_wall_lean_over_stock", share, bar=0.5, higher_is_better=False)


def profile(benchmark: Benchmark, algorithm: str, steps: int) -> None:
    """Microseconds per env step and stage, tutored, on our rollout and on RLlib's own."""
    from benchmarks.shared.profile import LEAN, STOCK, timed

    table: dict[str, dict[str, float]] = {}
    for rollout, stages in (("lean", LEAN), ("stock", STOCK)):
        run = rollout_run(algorithm, rollout, steps)
        with timed(stages) as spent:
            before, rate = run.algorithm.num_env_steps, run()
        num_steps = run.algorithm.num_env_steps - before
        seconds, per_step = num_steps / rate, 1e6 / num_steps
        run.close()
        table[rollout] = {stage: round(per_step * part, 1) for stage, part in spent.items()}
        table[rollout]["rest"] = round(per_step * (seconds - sum(spent.values())), 1)
        print(f"profile {algorithm} {rollout}, µs per env step: {table[rollout]}", flush=True)
    benchmark.record(f"{algorithm}_profile_us_per_env_step", table)


def main() -> int:
    """Measures and reports."""
    args = benchmark_parser(__doc__).parse_args()
    benchmark = Benchmark("student_speed")
    repetitions, steps = sized(args, full=(7, 8_192), quick=(3, 4_096), smoke=(1, 256))
    tasks, sizes = (("blackjack",), (8,)) if args.quick else (("blackjack", "cartpole"), (8, 32))
    for algorithm in ALGORITHMS:
        for task in tasks:
            for num_envs in sizes:
                measure_case(benchmark, algorithm, task, num_envs, repetitions, steps)
        measure_tutored(benchmark, algorithm, repetitions, steps)
        if not args.quick:
            measure_stock(benchmark, algorithm, 3, steps)
            profile(benchmark, algorithm, steps)
    return benchmark.finish(args)


if __name__ == "__main__":
    sys.exit(main())
