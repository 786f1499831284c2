"""Estimate what a sweep will take, before it runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rllib_plugins.advising.rules import LinearSchedule, make_rule
from rllib_plugins.config import StudentConfig
from rllib_plugins.evaluation import episode_length
from rllib_plugins.evaluation_plan import EvaluationPlan, evaluation_wish, plan_evaluation
from rllib_plugins.tasks import Task
from rllib_plugins.uses.options import make_use
from tune_sweeps.definition.config import UNTUTORED
from tune_sweeps.definition.grid import Trial
from tune_sweeps.definition.resolve import ResolvedSweep
from tune_sweeps.run.own_play import MOST_SECONDS, asks_for_level

TYPICAL_STEPS_PER_S = 1_800.0
"""Env steps per second of a trial, evaluations included, where none is measured yet: laptop54's 5.04 million in 23
minutes, two trials at once on two cores."""

TYPICAL_ANSWERS_PER_S = 15.0
"""States that an LLM answers per second: SmolLM2's, eight at a time on two cores, as `tutor_throughput` measured them.
A larger one may be slower, which is why own play has a limit (``own_play.MOST_SECONDS``)."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a sweep will take.

    Attributes:
        num_cells: Cells of the grid.
        num_trials: Trials of the grid.
        concurrent: Trials that run at once.
        trial_cpus: Ray CPUs of one trial, its EnvRunners' included; of those that take most.
        num_env_runners: EnvRunners of such a trial.
        tutor_cpus: Ray CPUs of the tutors' replicas.
        tutor_gpus: GPUs of the tutors' replicas.
        env_steps: Env steps of all trials.
        evaluations: By task, how its trials are evaluated, those that are evaluated most.
        expected_consultations: Consultations of all trials, an upper estimate by P(τ): rules, trust and evidence make
            them fewer.
        max_evaluations: Most LLM evaluations in trials, by tutor: no more than consultations are expected, nor than the
            task has observations where these can be counted; fewer where the advice store knows states already.
        own_play: Expected LLM evaluations before the trials, by tutor, where tutors play by themselves: as many as the
            episodes have env steps, and no more than the tasks have observations. An endpoint is asked them, too.
        own_play_seconds: Estimated wall time of that, a part of ``seconds``.
        max_answer_seconds: Wall time that the trials' evaluations add to ``seconds`` at most.
        seconds: Estimated wall time beside the start of the tutors.
        rough: Whether the estimate goes by ``TYPICAL_STEPS_PER_S``, because an algorithm has not run here yet.
    """

    num_cells: int
    num_trials: int
    concurrent: int
    trial_cpus: float
    num_env_runners: int
    tutor_cpus: float
    tutor_gpus: float
    env_steps: int
    evaluations: dict[str, EvaluationPlan]
    expected_consultations: float
    max_evaluations: dict[str, int]
    own_play: dict[str, int]
    own_play_seconds: float
    max_answer_seconds: float
    seconds: float
    rough: bool


def estimate(resolved: ResolvedSweep, cpus: float, speeds: Mapping[str, float]) -> Estimate:
    """Add up what the trials take.

    Args:
        resolved: The sweep.
        cpus: Ray CPUs of the machine or cluster.
        speeds: Env steps per second of one trial by algorithm, where known.
    """
    trials = resolved.trials
    concurrent = concurrency(resolved, len(trials), cpus)
    work = [trial.student.num_env_steps / speeds.get(trial.cell.algorithm, TYPICAL_STEPS_PER_S) for trial in trials]
    own_play = own_play_questions(resolved)
    own_play_seconds = min(MOST_SECONDS, max(own_play.values(), default=0) / TYPICAL_ANSWERS_PER_S)
    expected = {trial.key: consultations(trial.student) for trial in trials if trial.cell.asks != UNTUTORED}
    asked = {
        name: max_evaluations([t for t in trials if t.cell.asks == name], resolved.tasks, expected)
        for name in resolved.tutors
    }
    return Estimate(
        num_cells=len({trial.cell for trial in trials}),
        num_trials=len(trials),
        concurrent=concurrent,
        trial_cpus=resolved.trial_cpus,
        num_env_runners=resolved.num_env_runners,
        tutor_cpus=resolved.tutor_cpus,
        tutor_gpus=sum(t.scaling.num_gpus * t.scaling.num_started for t in resolved.tutors.values()),
        env_steps=sum(trial.student.num_env_steps for trial in trials),
        evaluations=evaluations(trials, resolved.tasks),
        expected_consultations=sum(expected.values()),
        max_evaluations=asked,
        own_play=own_play,
        own_play_seconds=own_play_seconds,
        max_answer_seconds=max(asked.values(), default=0) / TYPICAL_ANSWERS_PER_S,
        seconds=own_play_seconds + max(sum(work) / concurrent, max(work)),
        rough=any(trial.cell.algorithm not in speeds for trial in trials),
    )


def evaluations(trials: list[Trial], tasks: Mapping[str, Task]) -> dict[str, EvaluationPlan]:
    """Return by task how those of its trials are evaluated that are evaluated most."""
    found: dict[str, EvaluationPlan] = {}
    for name, wish in dict.fromkeys((trial.cell.task, evaluation_wish(trial.student)) for trial in trials):
        plan = plan_evaluation(tasks[name], wish)
        if name not in found or plan.share > found[name].share:
            found[name] = plan
    return found


def concurrency(resolved: ResolvedSweep, num_trials: int, cpus: float, nodes_on_demand: bool = False) -> int:
    """Decide how many trials run at once: as many as fit beside the tutors, and no more than there are cores.

    A trial computes on one thread: with more trials than cores each only gets slower and holds its memory longer. Where
    an autoscaler adds nodes, trials that wait are what it adds them for.

    Args:
        resolved: The sweep.
        num_trials: Trials that are to run.
        cpus: Ray CPUs of the machine or cluster.
        nodes_on_demand: Whether nodes are added for what waits.
    """
    most = resolved.config.resources.max_concurrent
    if nodes_on_demand:
        return max(1, min(num_trials, most or num_trials))
    fitting = int((cpus - resolved.tutor_cpus) / resolved.trial_cpus + 1e-9)
    return max(1, min(num_trials, most or int(max(1, cpus)), fitting))


def consultations(student: StudentConfig) -> float:
    """Return the most consultations that are to be expected of a trial, by its use, its rule and P(τ)."""
    advice = student.advice
    use, rule = make_use(advice.named_use, advice.use_options), make_rule(advice.rule, advice.rule_options)
    schedule = LinearSchedule(advice.probability_initial, advice.probability_final, student.theta_steps)
    tau = np.linspace(0, student.num_env_steps, 257)
    probability = np.array([rule.probability(schedule, round(step)) for step in tau])
    if use.acts and advice.trust == "earned":
        probability = np.minimum(probability, advice.probability_cap)
    expected = float(np.trapezoid(use.asks(probability, np.minimum(tau / student.theta_steps, 1.0)), tau))
    return expected if advice.advice_budget is None else min(expected, advice.advice_budget)


def max_evaluations(trials: list[Trial], tasks: Mapping[str, Task], expected: Mapping[str, float]) -> int:
    """Return the most LLM evaluations of trials that share a tutor: each distinct state is evaluated once.

    Args:
        trials: The trials.
        tasks: Their tasks, by name.
        expected: ``consultations`` of each, by its key.
    """
    total = 0
    for name, task in tasks.items():
        asked = math.ceil(sum(expected[trial.key] for trial in trials if trial.cell.task == name))
        observations = num_observations(task)
        total += asked if observations is None else min(asked, observations)
    return total


def own_play_questions(resolved: ResolvedSweep) -> dict[str, int]:
    """Return how many questions each LLM is expected to be asked when it plays by itself, those that do so."""
    episodes = resolved.config.evaluation.tutor_episodes
    served = {name for name, tutor in resolved.tutors.items() if tutor.is_served and episodes}
    pairs = {
        (trial.cell.tutor, trial.cell.task)
        for trial in resolved.trials
        if trial.cell.tutor in served and asks_for_level(trial.student)
    }
    total: dict[str, int] = {}
    for tutor, name in sorted(pairs):
        task = resolved.tasks[name]
        most = num_observations(task)
        if most is None or not task.is_exact:
            steps = math.ceil(episodes * episode_length(task))
            most = steps if most is None else min(most, steps)
        total[tutor] = total.get(tutor, 0) + most
    return total


def num_observations(task: Task) -> int | None:
    """Count the distinct states in which advice can be asked for: as the task says, else its observation space's size.

    None where that is no finite number.
    """
    return task.num_states if task.num_states is not None else _size(task.raw_observation_space)


def _size(space: object) -> int | None:
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(space.nvec.astype(object).prod())
    if isinstance(space, spaces.MultiBinary):
        return int(2 ** int(space.n)) if isinstance(space.n, int) else None
    if isinstance(space, spaces.Tuple | spaces.Dict):
        parts = [_size(part) for part in (space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces)]
        sizes = [part for part in parts if part is not None]
        return math.prod(sizes) if len(sizes) == len(parts) else None
    return None
