"""A rollout that several EnvRunners fill, each in a process of its own, and that is learnt from as one.

The trial's process orders the next vector steps, with its weights and what all runners know of advice, and gathers what
they wrote. All runners make the same number of vector steps: where a trial is, is known everywhere.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from rllib_plugins.advising.explorer import Explorer
from rllib_plugins.rollout.arrays import RolloutArrays
from rllib_plugins.rollout.env_runner import ArrayEnvRunner, explorer_options
from rllib_plugins.rollout.mlp import flatten_parameters
from rllib_plugins.rollout.network import QView
from rllib_plugins.seeds import RUNNERS, derive_seed
from rllib_plugins.sharing.explorer import SharedExplorer
from rllib_plugins.sharing.shares import HOLDER, Common, Place, Report
from rllib_plugins.tasks import load_task
from rllib_plugins.tutors import make_advisor
from rllib_plugins.uses.options import UseOptions, make_use


class Order(NamedTuple):
    """Order some vector steps from a runner.

    Attributes:
        start: First vector step of the rollout.
        stop: End of the vector steps, exclusive.
        num_env_steps: Env steps of the trial so far.
        weights: ``(P,)`` float32, the network's parameters.
        common: What all runners know.
    """

    start: int
    stop: int
    num_env_steps: int
    weights: NDArray[np.float32]
    common: Common


class Reply(NamedTuple):
    """Hold what a runner did.

    Attributes:
        arrays: The vector steps, as ``RolloutArrays.cut`` returns them, and of a complete rollout all ``next_values``.
        finished: Sum of the returns of the episodes that ended, and their number.
        report: What others are to know of advice.
    """

    arrays: dict[str, NDArray[Any]]
    finished: tuple[float, int]
    report: Report


class Restored(NamedTuple):
    """Say what a restored runner could not have back.

    Attributes:
        truncated: ``(T, num_envs)``: where the rollout was cut.
        began_anew: As ``ArrayEnvRunner``'s.
    """

    truncated: NDArray[np.bool_]
    began_anew: bool


class OrderedEnvRunner(ArrayEnvRunner):
    """One of several: an ``ArrayEnvRunner`` that samples what it is ordered to, with the weights that come with it."""

    core: SharedExplorer

    @property
    def seed(self) -> int:
        """Return the seed of environments and explorer, which no runner of any trial shares."""
        return derive_seed(self.config.seed or 0, RUNNERS, self.worker_index)

    @property
    def num_trial_envs(self) -> int:
        """Return the environments of all runners."""
        return int(self.config.num_trial_envs)

    def make_explorer(self, use: UseOptions, options: dict[str, Any]) -> Explorer:
        """Build an explorer that shares what it knows; a use that brings its own was refused before."""
        place = Place(self.worker_index, self.config.num_env_runners)
        return SharedExplorer(place=place, seed=self.config.seed or 0, **options)

    def bind(self, module: Any) -> None:
        """Act with this module, its parameters in the order of the learner's."""
        flatten_parameters([p for p in module.parameters() if p.requires_grad])
        super().bind(module)
        view = self._view.online if isinstance(self._view, QView) else self._view
        self._weights = view.network.parameters

    def get_state(self, components: Any = None, **kwargs: Any) -> dict[str, Any]:
        """Return everything that the next steps depend on but the weights; nothing of what RLlib synchronises."""
        return {} if components is not None else super().get_state(not_components=COMPONENT_RL_MODULE)

    def set_state(self, state: dict[str, Any]) -> None:
        """Take nothing from RLlib: weights come with orders."""

    def restore(self, state: dict[str, Any]) -> Restored:
        """Take over a ``get_state``."""
        super().set_state(state)
        return Restored(self.rollout.truncated, self.began_anew)

    def describe(self) -> tuple[bool, Report]:
        """Return whether the task has masks of legal actions, and the first report."""
        return self.rollout.legal is not None, self.core.report()

    def sample_for(self, order: Order) -> Reply:
        """Sample what is ordered."""
        np.copyto(self._weights, order.weights)
        self.core.hear(order.common)
        self.num_env_steps_sampled_lifetime = order.num_env_steps
        start, stop = self.sample(order.stop - order.start)
        assert (start, stop) == (order.start, order.stop)
        arrays = self.rollout.cut(slice(start, stop))
        if self.complete:
            arrays["next_values"] = self.rollout.next_values
        return Reply(arrays, self.take_finished(), self.core.report())


class GatheredRollout:
    """Stand in the trial's process for all its runners, as if they were one ``ArrayEnvRunner``.

    Args:
        config: One of this package's algorithm configs, after ``tutoring``.
        group: RLlib's, of ``OrderedEnvRunner``s.

    Attributes:
        task: The task.
        num_envs: Environments of all runners.
        observation_space: Of the task's flat observations.
        advisor: The tutor; None: there is none.
        core: Holds what the runners know of advice.
        rollout: What they fill together: each its own environments.
        cursor: The next vector step of ``rollout``.
        num_env_steps_sampled_lifetime: Env steps of the trial.
        began_anew: As ``ArrayEnvRunner``'s.
        metrics: RLlib's.
    """

    def __init__(self, config: Any, group: Any) -> None:
        self._group, self._config = group, config
        self.task = load_task(config.task, **config.task_options)
        self.num_envs = int(config.num_trial_envs)
        self.observation_space: Box = self.task.observation_space
        self.advisor = make_advisor(config.tutor, self.task, deadline_s=config.advice.patience_s)
        use = make_use(config.advice.named_use, config.advice.use_options)
        self.core = SharedExplorer(
            place=Place(HOLDER, config.num_env_runners),
            seed=config.seed or 0,
            **explorer_options(config, self.task, self.advisor if use.acts else None),
        )
        described = self._ask("describe")
        self.core.merge([report for _, report in described])
        self._is_whole = True
        self.rollout = RolloutArrays.allocate(
            (config.rollout_steps, self.num_envs),
            self.observation_space.shape[0],
            self.task.num_actions,
            for_replay=config.value_based,
            with_advice=config.tutor != "none" and use.acts,
            with_masks=described[0][0],
        )
        self.cursor = 0
        self.num_env_steps_sampled_lifetime = 0
        self.began_anew = False
        self.metrics = MetricsLogger(root=False)
        self._finished_sum, self._finished_count = 0.0, 0
        self._weights: NDArray[np.float32] = np.empty(0, np.float32)

    def _ask(self, method: str, kwargs: Any = None) -> list[Any]:
        """Call a method of every runner; the answers are in their order."""
        answers: list[Any] = self._group.foreach_env_runner(method, kwargs=kwargs, local_env_runner=False)
        if len(answers) < self._config.num_env_runners:
            raise RuntimeError(
                f"{self._config.num_env_runners - len(answers)} of {self._config.num_env_runners} EnvRunners are lost: "
                "the trial cannot go on without them, but from its checkpoint"
            )
        return answers

    def follow(self, weights: NDArray[np.float32]) -> None:
        """Have the runners act with these parameters ``(P,)``, which the learner changes in place."""
        self._weights = weights

    @property
    def complete(self) -> bool:
        """Tell whether the rollout is full."""
        return self.cursor == self.rollout.num_steps

    def sample(self, num_vector_steps: int) -> tuple[int, int]:
        """Have all environments stepped into ``rollout``, as ``ArrayEnvRunner.sample`` does."""
        import ray

        if self.complete:
            self.cursor = 0
        start, stop = self.cursor, min(self.cursor + num_vector_steps, self.rollout.num_steps)
        common = self.core.common(is_whole=self._is_whole)
        order = Order(start, stop, self.num_env_steps_sampled_lifetime, self._weights, common)
        replies: list[Reply] = self._ask("sample_for", {"order": ray.put(order)})
        self._is_whole = False
        width = self.num_envs // len(replies)
        for place, reply in enumerate(replies):
            envs = slice(place * width, (place + 1) * width)
            next_values = reply.arrays.pop("next_values", None)
            if next_values is not None:
                self.rollout.next_values[:, envs] = next_values
            self.rollout.paste(reply.arrays, slice(start, stop), envs)
            self._finished_sum += reply.finished[0]
            self._finished_count += reply.finished[1]
        self.core.merge([reply.report for reply in replies])
        self.num_env_steps_sampled_lifetime += (stop - start) * self.num_envs
        self.cursor = stop
        return start, stop

    def return_mean(self) -> float:
        """Return the mean return of the episodes that ended since the last call; NaN where none did."""
        mean = self._finished_sum / self._finished_count if self._finished_count else float("nan")
        self._finished_sum, self._finished_count = 0.0, 0
        return mean

    def get_metrics(self) -> dict[str, Any]:
        """Return RLlib's reduced metrics since the last call."""
        return self.metrics.reduce()

    def get_state(self) -> dict[str, Any]:
        """Return everything that the next steps depend on, the runners' environments included."""
        return {
            "runners": self._ask("get_state"),
            "core": self.core.get_state(),
            "num_env_steps": self.num_env_steps_sampled_lifetime,
            "finished": (self._finished_sum, self._finished_count),
            "cursor": self.cursor,
            "rollout": self.rollout.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``."""
        restored: list[Restored] = self._ask("restore", [{"state": runner} for runner in state["runners"]])
        self.core.set_state(state["core"])
        self._is_whole = True
        self.num_env_steps_sampled_lifetime = state["num_env_steps"]
        self._finished_sum, self._finished_count = state["finished"]
        self.cursor = state["cursor"]
        self.rollout.set_state(state["rollout"])
        self.rollout.truncated[:] = np.concatenate([runner.truncated for runner in restored], axis=1)
        self.began_anew = any(runner.began_anew for runner in restored)
