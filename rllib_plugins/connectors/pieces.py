"""Put the tutor into RLlib's own EnvRunner, by two connector pieces around the explorer.

Owns the passage from RLlib's batches to the core and back into episodes; decides nothing itself. Exploring only: where
``explore`` is False the pieces only keep illegal actions out, and a tutor is contacted at the first exploring step at
the earliest. RLlib throws the step away in which it resets an environment: there nobody is asked. Several EnvRunners
share what they know whenever RLlib merges their connectors' states.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from ray.rllib.algorithms.dqn.default_dqn_rl_module import QF_PREDS
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns

from rllib_plugins.advising.advisor import Advisor
from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.advising.decision import Decision
from rllib_plugins.advising.explorer import Explorer
from rllib_plugins.advising.trust import ReturnComparison
from rllib_plugins.connectors import columns
from rllib_plugins.policies import epsilon_greedy, masked_softmax
from rllib_plugins.sharing.explorer import SharedExplorer
from rllib_plugins.sharing.shares import HOLDER, Place
from rllib_plugins.tasks import Task, load_task
from tutor_service.errors import UserError

SEEN = "llm_tutors_seen"
"""Key in RLlib's ``shared_data`` of what the first piece saw."""


@dataclass(slots=True)
class Seen:
    """What the environments show, before any other connector touches it.

    Attributes:
        observations: ``(n, obs_dim)`` float32, flat, as the task encodes them.
        rewards: ``(n,)`` of the step just made; NaN where an episode just began.
        ended: ``(n,)`` whether the episode is over: the observation is its last.
        episodes: ``n`` episode ids.
    """

    observations: NDArray[np.float32]
    rewards: NDArray[np.float64]
    ended: NDArray[np.bool_]
    episodes: list[str]


class WatchEnvironments(ConnectorV2):
    """First env-to-module piece: keeps raw observations and rewards for ``ConsultTutor``.

    Args:
        input_observation_space: RLlib's.
        input_action_space: RLlib's.
        encode: From an observation of the environment to a flat one of the task; None: they are the same.
    """

    def __init__(
        self,
        input_observation_space: Any = None,
        input_action_space: Any = None,
        *,
        encode: Callable[[Any], NDArray[np.float32]] | None = None,
    ):
        super().__init__(input_observation_space, input_action_space)
        self._encode = encode or np.asarray

    def __call__(  # noqa: D102
        self, *, batch: dict[str, Any], episodes: list[Any], shared_data: dict[str, Any] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        if shared_data is not None:
            shared_data[SEEN] = Seen(
                observations=np.stack([self._encode(episode.get_observations(-1)) for episode in episodes]).astype(
                    np.float32
                ),
                rewards=np.array([episode.get_rewards(-1) if len(episode) else np.nan for episode in episodes]),
                ended=np.array([episode.is_done for episode in episodes]),
                episodes=[episode.id_ for episode in episodes],
            )
        return batch


class Tutoring(NamedTuple):
    """Say how a student on RLlib's own EnvRunner is tutored.

    Attributes:
        task: Name of the task.
        task_options: Its keyword arguments.
        make_advisor: From the task to its advisor; called at the first exploring step.
        advice: When to ask and what to do with advice.
        theta_steps: θ in env steps.
        seed: Seed of the core.
        gamma: Discount of the returns that trust is earned by.
        learning_starts: Env steps before which DQN learns nothing; None: the student is not DQN.
    """

    task: str
    task_options: dict[str, Any]
    make_advisor: Callable[[Task], Advisor | None]
    advice: AdviceConfig
    theta_steps: float
    seed: int
    gamma: float
    learning_starts: int | None


class ConsultTutor(ConnectorV2):
    """Module-to-env piece: replaces the actions by the core's and adds ``columns``.

    ``Columns.ACTION_LOGP`` becomes log π_old of the executed action, the centre of PPO's ratio. Earned trust is fed by
    the returns that followed heads and tails, as values are not known here.

    Args:
        input_observation_space: RLlib's.
        input_action_space: RLlib's.
        tutoring: How the student is tutored.
    """

    def __init__(self, input_observation_space: Any = None, input_action_space: Any = None, *, tutoring: Tutoring):
        super().__init__(input_observation_space, input_action_space)
        self._tutoring = tutoring
        self._task = load_task(tutoring.task, **tutoring.task_options)
        self._core: Explorer | None = None
        self._shared: SharedExplorer | None = None
        self._comparison = ReturnComparison(tutoring.gamma)
        self._num_taken: dict[str, int] = {}
        self._num_env_steps = 0
        self._evaluates = False
        self._logged: dict[str, int] = {}

    def join(self, place: Place) -> None:
        """Become one of a trial's several runners, or what holds their common knowledge."""
        self._shared = SharedExplorer(place=place, **self._explorer_options())
        self._core, self._logged = self._shared, self._shared.own_counters

    def only_evaluate(self) -> None:
        """Belong to an EnvRunner for evaluation: what trials know is of no concern to it."""
        self._evaluates = True

    @property
    def core(self) -> Explorer:
        """The trial's explorer, built when it is first needed."""
        if self._core is None:
            self._core = Explorer(**self._explorer_options())
        return self._core

    def _explorer_options(self) -> dict[str, Any]:
        tutoring = self._tutoring
        return {
            "config": tutoring.advice,
            "num_actions": self._task.num_actions,
            "theta_steps": tutoring.theta_steps,
            "advisor": tutoring.make_advisor(self._task),
            "seed": tutoring.seed,
            "value_based": tutoring.learning_starts is not None,
            "learning_starts": tutoring.learning_starts or 0,
        }

    @property
    def _step(self) -> int:
        """Return the env steps of the trial."""
        return self._num_env_steps if self._shared is None else self._shared.num_trial_steps

    def __call__(  # noqa: D102
        self,
        *,
        rl_module: Any,
        batch: dict[str, Any],
        episodes: list[Any],
        explore: bool | None = None,
        shared_data: dict[str, Any] | None = None,
        metrics: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        if not explore or shared_data is None:
            self._keep_legal(batch, batch.pop(QF_PREDS, None), (shared_data or {}).get(SEEN))
            return batch
        seen: Seen = shared_data[SEEN]
        self._comparison.add_rewards(seen.episodes, seen.rewards, seen.ended)
        if self._shared is None:
            self._compare()
        acting = np.array([episode.is_reset for episode in episodes])
        decision = self._decide(rl_module, batch, seen, acting)
        if decision is None:
            self._write(batch, acting, Decision.of(0, self._task.num_actions), None)
            return batch
        self._num_env_steps += int(acting.sum())
        rows = np.flatnonzero(acting).tolist()
        self._comparison.add_decisions([seen.episodes[row] for row in rows], decision.consulted, decision.eligible)
        self._write(batch, acting, decision, self._task.legal_batch(seen.observations))
        self._log(metrics)
        return batch

    def _compare(self) -> None:
        """Feed earned trust with the episodes that have ended."""
        if (evidence := self._comparison.take()) is not None:
            self.core.observe(*evidence)

    def _keep_legal(self, batch: dict[str, Any], q_values: Any, seen: Seen | None) -> None:
        """Put the best legal actions in the place of those that a greedy module chose without a mask."""
        legal = None if seen is None else self._task.legal_batch(seen.observations)
        scores = batch.get(Columns.ACTION_DIST_INPUTS) if q_values is None else q_values
        if legal is not None and scores is not None:
            chosen = np.where(legal | ~legal.any(axis=1, keepdims=True), _rows(scores), -np.inf).argmax(axis=1)
            batch[Columns.ACTIONS] = {key: [chosen[row]] for row, key in enumerate(batch[Columns.ACTIONS])}

    def _decide(self, rl_module: Any, batch: dict[str, Any], seen: Seen, acting: NDArray[np.bool_]) -> Decision | None:
        q_values = None
        if self._tutoring.learning_starts is not None:
            q_values = _rows(batch.pop(QF_PREDS)).astype(np.float64)[acting]
        if not acting.any():
            return None
        observations = seen.observations[acting]
        legal = self._task.legal_batch(observations)
        if q_values is None:
            policy = masked_softmax(_rows(batch[Columns.ACTION_DIST_INPUTS])[acting], legal)
        else:
            # The schedule counts the steps that the student took itself: a tutor must not use up its exploration.
            epsilon = rl_module.epsilon_schedule.update(self._step - self.core.num_consultations)
            policy = epsilon_greedy(q_values, legal, float(epsilon))
        return self.core.act(observations, policy, legal=legal, q_values=q_values, step=self._step)

    def _write(
        self,
        batch: dict[str, Any],
        acting: NDArray[np.bool_],
        decision: Decision,
        legal: NDArray[np.bool_] | None,
    ) -> None:
        """Columns in RLlib's form: a list of one item under each episode's key. Idle rows get zeros."""
        keys = list(batch[Columns.ACTIONS])
        values: dict[str, NDArray[Any]] = {
            Columns.ACTIONS: decision.actions,
            columns.POLICY_LOGP: decision.policy_logp,
            columns.BEHAVIOUR_LOGP: decision.behaviour_logp,
            columns.ELIGIBLE: decision.eligible,
            columns.CONSULTED: decision.consulted,
            columns.ADVICE: decision.advice,
        }
        if Columns.ACTION_LOGP in batch:
            values[Columns.ACTION_LOGP] = decision.policy_logp
        for column, acted in values.items():
            array = np.zeros((len(keys), *acted.shape[1:]), dtype=acted.dtype)
            array[acting] = acted
            batch[column] = {key: [array[row]] for row, key in enumerate(keys)}
        if legal is not None:
            batch[columns.LEGAL] = {key: [legal[row]] for row, key in enumerate(keys)}

    def _log(self, metrics: Any) -> None:
        if metrics is None:
            return
        if self._shared is None:
            for name, total in self.core.counters().items():
                metrics.log_value(tuple(name.split("/")), total, reduce="max")
        else:
            counters = self._shared.own_counters
            for name, total in counters.items():
                metrics.log_value(tuple(name.split("/")), total - self._logged[name], reduce="lifetime_sum")
            self._logged = counters
        for name, value in self.core.gauges().items():
            if not np.isnan(value):
                metrics.log_value(tuple(name.split("/")), value, reduce="mean", window=1)

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        """Return what is needed to go on; empty before the first exploring step of an EnvRunner that is the only one.

        A single runner returns step counter, core and pending returns; one of several returns its report; the holder
        returns the shared state.
        """
        if self._shared is not None:
            return self._report(self._shared) if self._shared.place.number != HOLDER else self._common(self._shared)
        if self._core is None:
            return {}
        return {
            "num_env_steps": self._num_env_steps,
            "core": self._core.get_state(),
            "comparison": self._comparison.get_state(),
        }

    def _report(self, shared: SharedExplorer) -> dict[str, Any]:
        return {
            "report": shared.report(),
            "num_runners": shared.place.num_runners,
            "first_finished": self._comparison.first_finished,
            "finished": self._comparison.finished,
        }

    def _common(self, shared: SharedExplorer, *, with_grants: bool = False) -> dict[str, Any]:
        common = shared.common(is_whole=True)
        return {
            "common": common if with_grants else common._replace(grants={}),
            "finished": self._comparison.finished,
            "num_taken": dict(self._num_taken),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``; an empty one changes nothing.

        Raises:
            UserError: The state is of a trial with another number of EnvRunners.
        """
        if not state or self._evaluates:
            return
        if (self._shared is None) == ("common" in state):
            raise UserError(
                "the checkpoint is of a trial with num_env_runners=0 and the config has several, or the reverse: "
                "set num_env_runners to what it was"
            )
        if self._shared is None:
            self._num_env_steps = state["num_env_steps"]
            self.core.set_state(state["core"])
            self._comparison.set_state(state["comparison"])
        elif self._shared.place.number != HOLDER:
            self._shared.hear(state["common"])
            self._comparison.drop(state["num_taken"].get(self._shared.life, 0))
            self._logged = self._shared.own_counters
        elif state["common"].life != self._shared.life:
            self._shared.restore(state["common"])
            self._comparison.add_finished(state["finished"])

    def merge_states(self, states: list[dict[str, Any]]) -> dict[str, Any]:
        """Merge what several runners report; of the only one, return its state."""
        reported = sorted((s for s in states if "report" in s), key=lambda s: int(s["report"].number))
        if self._shared is None and reported:
            self.join(Place(HOLDER, reported[0]["num_runners"]))
        if self._shared is None:
            return max(states, key=lambda state: state.get("num_env_steps", -1), default={})
        self._shared.merge([state["report"] for state in reported])
        for state in reported:
            life, first = state["report"].tally.life, state["first_finished"]
            taken = max(self._num_taken.get(life, 0), first)
            self._comparison.add_finished(state["finished"][taken - first :])
            self._num_taken[life] = first + len(state["finished"])
        self._compare()
        return self._common(self._shared, with_grants=True)


def _rows(column: dict[Any, list[Any]]) -> NDArray[Any]:
    """A column in RLlib's form as an array ``(n, ...)``."""
    return np.stack([item for items in column.values() for item in items])
