"""Implement ``tutor play``: what a trained student does, decision by decision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tune_sweeps.cli.options import ResultsOption

if TYPE_CHECKING:
    from rich.console import Console


def play(
    sweep: Annotated[str, typer.Argument(help="Name of the sweep.")],
    trial: Annotated[
        str | None, typer.Argument(help="Key of a trial, e.g. ppo-oracle-blackjack-reuse-s0. Default: the best one.")
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes to play.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the environment.")] = 0,
    results: ResultsOption = "runs",
) -> None:
    """Play episodes with a trial's best policy, greedily, without a tutor; show states in the words that tutors read.

    Example: `tutor play demo ppo-oracle-blackjack-reuse-s0 --episodes 5`
    """
    from tune_sweeps.console.signals import interruptible
    from tune_sweeps.console.terminal import log_path, quiet
    from tune_sweeps.storage.results import open_results
    from tune_sweeps.tracking.mlflow_client import check_uri, tracking_uri
    from tune_sweeps.tracking.policy_artifact import fetched_policy, load_policy

    uri = tracking_uri(open_results(results))
    check_uri(uri)
    with interruptible(), quiet(log_path("play")) as console, fetched_policy(uri, sweep, trial) as fetched:
        task, policy = load_policy(fetched.student, fetched.path)
        console.print(f"{fetched.label}: greedy, no tutor")
        total = sum(_episode(console, task, policy, seed + number) for number in range(episodes))
        console.print(f"mean return over {episodes:,} episode{'s' * (episodes != 1)}: {total / episodes:.3f}")


def _episode(console: Console, task: Any, policy: Any, seed: int) -> float:
    env = task.make()
    observation, _ = env.reset(seed=seed)
    total, over = 0.0, False
    try:
        while not over:
            action = int(policy(observation[None, :])[0].argmax())
            console.print(f"{task.describe(task.raw_observation(observation))}  →  {task.actions[action]}")
            observation, reward, terminated, truncated, _ = env.step(action)
            total += float(reward)
            over = terminated or truncated
    finally:
        env.close()
    console.print(f"return {total:g}\n")
    return total
