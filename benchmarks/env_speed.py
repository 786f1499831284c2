"""Environment steps per second in one process, beside the best public peer in the same run; time per description.

Random legal play by actions that are drawn beforehand or read off the mask, so that both sides pay the same for the
player. One step of our Connect Four is two stones, the student's and the opponent's; one of PettingZoo's is one. The
ratio is over steps, which favours the peer. Time is the process's own: that of the clock on an idle machine, and little
disturbed by other work on a busy one. Nothing here runs on more than one thread.

Run ``.venv/bin/python -m benchmarks.env_speed`` (``--quick``: fewer repetitions).
"""

from __future__ import annotations

import sys
import time
from typing import Any

from benchmarks.harness import Benchmark, alternate, benchmark_parser, median, sized

MEASURES = ("rllib_plugins/envs", "rllib_plugins/tasks")
NUM_ENVS = 4_096


def single(env: Any, num_steps: int) -> float:
    """Steps per second of a Gymnasium environment under random legal actions."""
    import random

    luck = random.Random(0)
    _, info = env.reset(seed=0)
    num_actions = int(env.action_space.n)
    first = time.process_time()
    for _ in range(num_steps):
        action = int(luck.random() * num_actions)
        mask = info.get("action_mask")
        while mask is not None and not mask[action]:
            action = int(luck.random() * num_actions)
        _, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            _, info = env.reset()
    return num_steps / (time.process_time() - first)


def pettingzoo_connect_four(num_steps: int) -> float:
    """Steps per second of PettingZoo's Connect Four, read and acted on by its own interface."""
    import random

    from pettingzoo.classic import connect_four_v3

    luck = random.Random(0)
    env = connect_four_v3.env()
    env.reset(seed=0)
    first = time.process_time()
    done = 0
    while done < num_steps:
        observation, _, terminated, truncated, _ = env.last()
        if terminated or truncated:
            env.reset()
            continue
        mask = observation["action_mask"]
        action = int(luck.random() * 7)
        while not mask[action]:
            action = int(luck.random() * 7)
        env.step(action)
        done += 1
    return num_steps / (time.process_time() - first)


def vector(envs: Any, num_steps: int) -> float:
    """Environment steps per second of a vector environment; choosing the actions is not timed."""
    import numpy as np

    from rllib_plugins.envs.connect_four_opponents import choose

    rng = np.random.default_rng(0)
    _, infos = envs.reset(seed=0)
    num_actions = int(envs.single_action_space.n)
    spent = 0.0
    rounds = max(1, num_steps // envs.num_envs)
    for _ in range(rounds):
        mask = infos.get("action_mask")
        actions = rng.integers(num_actions, size=envs.num_envs) if mask is None else choose(mask > 0, rng)
        first = time.process_time()
        *_, infos = envs.step(actions)
        spent += time.process_time() - first
    return rounds * envs.num_envs / spent


def describe_microseconds(task: Any, num_states: int) -> float:
    """Mean microseconds of ``describe`` over states that students of every skill visit."""
    from rllib_plugins.grading.states import visited_states

    states = [task.raw_observation(row) for row in visited_states(task, 200, seed=0)[0]]
    first = time.process_time()
    done = 0
    while done < num_states:
        for state in states:
            task.describe(state)
        done += len(states)
    return 1e6 * (time.process_time() - first) / done


def main() -> int:
    """Measures, checks and reports."""
    args = benchmark_parser(__doc__).parse_args()

    import gymnasium as gym

    from rllib_plugins.envs.blackjack_vector import BlackjackVectorEnv
    from rllib_plugins.envs.connect_four import ConnectFourEnv
    from rllib_plugins.envs.connect_four_vector import ConnectFourVectorEnv
    from rllib_plugins.envs.snake import SnakeEnv
    from rllib_plugins.envs.snake_vector import SnakeVectorEnv
    from rllib_plugins.tasks import load_task

    benchmark = Benchmark("env_speed")
    repetitions = sized(args, full=9, quick=3, smoke=1)
    num_steps = sized(args, full=100_000, quick=20_000, smoke=500)
    blackjack = gym.make("Blackjack-v1", natural=False, sab=False, disable_env_checker=True).unwrapped
    rates = alternate(
        {
            "connect_four": lambda: single(ConnectFourEnv(), num_steps),
            "connect_four_greedy": lambda: single(ConnectFourEnv(opponent="greedy"), num_steps),
            "connect_four_pettingzoo": lambda: pettingzoo_connect_four(num_steps // 10),
            "connect_four_vector": lambda: vector(ConnectFourVectorEnv(NUM_ENVS), 10 * num_steps),
            "snake_features": lambda: single(SnakeEnv(), num_steps),
            "snake_grid": lambda: single(SnakeEnv(observation="grid"), num_steps),
            "snake_features_vector": lambda: vector(SnakeVectorEnv(NUM_ENVS), 20 * num_steps),
            "snake_grid_vector": lambda: vector(SnakeVectorEnv(NUM_ENVS, observation="grid"), 20 * num_steps),
            "blackjack_gymnasium": lambda: single(blackjack, num_steps // 5),
            "blackjack_vector": lambda: vector(BlackjackVectorEnv(NUM_ENVS), 20 * num_steps),
        },
        repetitions=repetitions,
    )
    benchmark.record("env_steps_per_s", rates)
    rate = {name: median(figures) for name, figures in rates.items()}
    benchmark.check("connect_four_over_pettingzoo", rate["connect_four"] / rate["connect_four_pettingzoo"], bar=10)
    benchmark.check("snake_single_steps_per_s", min(rate["snake_features"], rate["snake_grid"]), bar=100_000)
    slower = min(rate["snake_features_vector"], rate["snake_grid_vector"])
    benchmark.check("snake_vector_steps_per_s", slower, bar=1_000_000)
    benchmark.check("blackjack_vector_over_gymnasium", rate["blackjack_vector"] / rate["blackjack_gymnasium"], bar=1)
    for name, options in (
        ("blackjack", {}),
        ("snake", {}),
        ("snake", {"observation": "grid"}),
        ("connect_four", {}),
    ):
        task = load_task(name, **options)
        figures = [describe_microseconds(task, num_steps // 4) for _ in range(repetitions)]
        key = "_".join((name, *options.values()))
        benchmark.record(f"describe_us_{key}", figures)
        benchmark.check(f"describe_us_{key}", median(figures), bar=20, higher_is_better=False)
    return benchmark.finish(args)


if __name__ == "__main__":
    sys.exit(main())
