"""What the learning benchmarks share: many trials on all cores, and how two groups of seeds are compared.

Convergence and statistics are the sweeps' own (``tune_sweeps.convergence``, ``tune_sweeps.statistics``). Trials run as
Ray tasks with one core each, in the order given; workers keep their imports.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

WINDOW = 5
RESAMPLES = 10_000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Curve:
    """Greedy returns of one trial on its evaluation grid."""

    steps: list[float]
    returns: list[float]
    last: dict[str, Any]

    @property
    def final(self) -> float:
        from tune_sweeps.convergence import final_return

        return final_return(self.returns, WINDOW)

    @property
    def area(self) -> float:
        from tune_sweeps.convergence import area_under_curve

        return area_under_curve(self.steps, self.returns)


def train_ours(config: Any) -> Curve:
    """One trial of ours."""
    from rllib_plugins.metrics import STEP_AXIS
    from rllib_plugins.trial import train

    results = train(config)
    return Curve([r[STEP_AXIS] for r in results], [r["eval/return_mean"] for r in results], results[-1])


def run_all(jobs: Sequence[tuple[Callable[..., Curve], tuple[Any, ...]]], cores: int) -> list[Curve]:
    """Runs functions with arguments as Ray tasks, one per core; results in the order of the jobs."""
    import ray

    if not ray.is_initialized():
        ray.init(
            address="local",
            num_cpus=cores,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=100 * 1024 * 1024,
            _node_ip_address="127.0.0.1",
        )
    remote = ray.remote(num_cpus=1)(_call)
    return ray.get([remote.remote(function, arguments) for function, arguments in jobs])


def _call(function: Callable[..., Curve], arguments: tuple[Any, ...]) -> Curve:
    return function(*arguments)


def difference(first: Sequence[float], second: Sequence[float]) -> Any:
    """Mean of ``first`` minus mean of ``second`` with its 95 % interval."""
    from tune_sweeps.statistics import mean_difference

    return mean_difference(first, second, resamples=RESAMPLES, confidence=CONFIDENCE, rng=np.random.default_rng(0))


def level_of(untutored: Sequence[Curve], random_return: float, frac: float) -> float | None:
    """The return that counts as converged for a cell."""
    from tune_sweeps.convergence import threshold

    return threshold(random_return, float(np.mean([curve.final for curve in untutored])), frac)


def faster(untutored: Sequence[Curve], tutored: Sequence[Curve], level: float) -> Any:
    """How many times fewer env steps to the level, with the 95 % interval; never-converged seeds are censored."""
    from tune_sweeps.statistics import speed_up

    horizon = min(curve.steps[-1] for curve in (*untutored, *tutored))
    return speed_up(
        survival(untutored, level),
        survival(tutored, level),
        horizon,
        resamples=RESAMPLES,
        confidence=CONFIDENCE,
        rng=np.random.default_rng(0),
    )


def survival(curves: Sequence[Curve], level: float) -> Any:
    """Steps to convergence, one per seed."""
    from tune_sweeps.convergence import convergence
    from tune_sweeps.statistics import Survival

    found = [convergence(curve.steps, curve.returns, level, WINDOW) for curve in curves]
    return Survival.of([one.steps for one in found], [one.converged for one in found])


def random_return(task: str, episodes: int = 2_000) -> float:
    """The return of uniformly random legal play."""
    from rllib_plugins.evaluation import evaluate
    from rllib_plugins.tasks import load_task

    made = load_task(task)
    return evaluate(made, made.uniform_policy, episodes=episodes, seed=1).return_mean


def as_record(curves: Sequence[Curve]) -> dict[str, Any]:
    """Curves as a result file keeps them."""
    return {"steps": curves[0].steps, "returns": [curve.returns for curve in curves]}


def cores() -> int:
    """Cores that this process may use."""
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
