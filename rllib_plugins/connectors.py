"""The tutor in RLlib's own EnvRunner: two connector pieces around the explorer.

Owns the passage from RLlib's batches to the core and back into episodes; decides nothing itself. Exploring only: where
``explore`` is False the pieces only keep illegal actions out, and a tutor is contacted at the first exploring step at
the earliest. RLlib throws the step away in which it resets an environment: there nobody is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn.default_dqn_rl_module import QF_PREDS
from ray.rllib.algorithms.dqn.dqn import DQNConfig
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns

from rllib_plugins import columns
from rllib_plugins.advising.advisor import Advisor
from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.advising.explorer import Decision, Explorer
from rllib_plugins.advising.trust import ReturnComparison
from rllib_plugins.advising.uses import make_use
from rllib_plugins.policies import epsilon_greedy, masked_softmax
from rllib_plugins.tasks import Task, load_task
from tutor_service.errors import UserError

SEEN = "llm_tutors_seen"
"""Key in RLlib's ``shared_data`` of what the first piece saw."""


@dataclass(slots=True)
class Seen:
    """What the environments show, before any other connector touches it.

    Attributes:
        observations: ``(n, obs_dim)`` float32, the task's flat observations.
        rewards: ``(n,)`` of the step just made; NaN where an episode just began.
        ended: ``(n,)`` whether the episode is over: the observation is its last.
        episodes: ``n`` episode ids.
    """

    observations: NDArray[np.float32]
    rewards: NDArray[np.float64]
    ended: NDArray[np.bool_]
    episodes: list[str]


class WatchEnvironments(ConnectorV2):
    """First env-to-module piece: keeps raw observations and rewards for ``ConsultTutor``."""

    def __call__(  # noqa: D102
        self, *, batch: dict[str, Any], episodes: list[Any], shared_data: dict[str, Any] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        if shared_data is not None:
            shared_data[SEEN] = Seen(
                observations=np.stack([episode.get_observations(-1) for episode in episodes]).astype(np.float32),
                rewards=np.array([episode.get_rewards(-1) if len(episode) else np.nan for episode in episodes]),
                ended=np.array([episode.is_done for episode in episodes]),
                episodes=[episode.id_ for episode in episodes],
            )
        return batch


class ConsultTutor(ConnectorV2):
    """Module-to-env piece: replaces the actions by the core's and adds the columns of ``rllib_plugins.columns``.

    ``Columns.ACTION_LOGP`` becomes log π_old of the executed action, the centre of PPO's ratio. Earned trust is fed by
    the returns that followed heads and tails, as values are not known here.

    Args:
        input_observation_space: RLlib's.
        input_action_space: RLlib's.
        task: Name of the task.
        task_options: Its keyword arguments.
        make_advisor: From the task to its advisor; called at the first exploring step.
        advice: When to ask and what to do with advice.
        theta_steps: θ in env steps.
        seed: Seed of the core.
        gamma: Discount of the returns that trust is earned by.
        learning_starts: Env steps before which DQN learns nothing; None: the student is not DQN.
    """

    def __init__(
        self,
        input_observation_space: Any = None,
        input_action_space: Any = None,
        *,
        task: str,
        task_options: dict[str, Any],
        make_advisor: Callable[[Task], Advisor | None],
        advice: AdviceConfig,
        theta_steps: float,
        seed: int,
        gamma: float,
        learning_starts: int | None,
    ):
        super().__init__(input_observation_space, input_action_space)
        self._task = load_task(task, **task_options)
        self._make_advisor = make_advisor
        self._theta_steps, self._seed = theta_steps, seed
        self._advice = advice
        self._learning_starts = learning_starts
        self._core: Explorer | None = None
        self._comparison = ReturnComparison(gamma)
        self._num_env_steps = 0

    @property
    def core(self) -> Explorer:
        """The trial's explorer, built when it is first needed."""
        if self._core is None:
            advisor = self._make_advisor(self._task)
            self._core = Explorer(
                self._advice,
                num_actions=self._task.num_actions,
                theta_steps=self._theta_steps,
                advisor=advisor,
                seed=self._seed,
                value_based=self._learning_starts is not None,
                learning_starts=self._learning_starts or 0,
            )
        return self._core

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
        if (evidence := self._comparison.take()) is not None:
            self.core.observe(*evidence)
        acting = np.array([episode.is_reset for episode in episodes])
        decision = self._decide(rl_module, batch, seen, acting)
        if decision is None:
            self._write(batch, acting, _nobody(int(acting.sum()), self._task.num_actions), None)
            return batch
        self._num_env_steps += int(acting.sum())
        rows = np.flatnonzero(acting).tolist()
        self._comparison.add_decisions(
            [seen.episodes[row] for row in rows], decision.heads & decision.consulted, decision.eligible
        )
        self._write(batch, acting, decision, self._legal(seen.observations))
        self._log(metrics)
        return batch

    def _keep_legal(self, batch: dict[str, Any], q_values: Any, seen: Seen | None) -> None:
        """Put the best legal actions in the place of those that a greedy module chose without a mask."""
        legal = None if seen is None else self._legal(seen.observations)
        scores = batch.get(Columns.ACTION_DIST_INPUTS) if q_values is None else q_values
        if legal is not None and scores is not None:
            chosen = np.where(legal | ~legal.any(axis=1, keepdims=True), _rows(scores), -np.inf).argmax(axis=1)
            batch[Columns.ACTIONS] = {key: [chosen[row]] for row, key in enumerate(batch[Columns.ACTIONS])}

    def _legal(self, observations: NDArray[np.float32]) -> NDArray[np.bool_] | None:
        return self._task.legal_batch(observations)

    def _decide(self, rl_module: Any, batch: dict[str, Any], seen: Seen, acting: NDArray[np.bool_]) -> Decision | None:
        q_values = None
        if self._learning_starts is not None:
            q_values = _rows(batch.pop(QF_PREDS)).astype(np.float64)[acting]
        if not acting.any():
            return None
        observations = seen.observations[acting]
        legal = self._legal(observations)
        if q_values is None:
            policy = masked_softmax(_rows(batch[Columns.ACTION_DIST_INPUTS])[acting], legal)
        else:
            # The schedule counts the steps that the student took itself: a tutor must not use up its exploration.
            epsilon = rl_module.epsilon_schedule.update(self._num_env_steps - self.core.num_consultations)
            policy = epsilon_greedy(q_values, legal, float(epsilon))
        return self.core.act(observations, policy, legal=legal, q_values=q_values, step=self._num_env_steps)

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
            columns.HEADS: decision.heads & decision.consulted,
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
        for name, total in self.core.counters().items():
            metrics.log_value(tuple(name.split("/")), total, reduce="max")
        for name, value in self.core.gauges().items():
            if not np.isnan(value):
                metrics.log_value(tuple(name.split("/")), value, reduce="mean", window=1)

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        """The step counter, the core, and the returns not yet compared; empty before the first exploring step."""
        if self._core is None:
            return {}
        return {
            "num_env_steps": self._num_env_steps,
            "core": self._core.get_state(),
            "comparison": self._comparison.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes over a ``get_state``; an empty one changes nothing."""
        if not state:
            return
        self._num_env_steps = state["num_env_steps"]
        self.core.set_state(state["core"])
        self._comparison.set_state(state["comparison"])

    def merge_states(self, states: list[dict[str, Any]]) -> dict[str, Any]:
        """The state that has seen most steps; there is one EnvRunner, so at most one is not empty."""
        return max(states, key=lambda state: state.get("num_env_steps", -1), default={})


def add_tutor(
    config: AlgorithmConfig,
    *,
    task: str,
    task_options: dict[str, Any] | None = None,
    tutor: str,
    advice: AdviceConfig | None = None,
    theta_steps: float,
    make_advisor: Callable[[Task], Advisor | None] | None = None,
) -> AlgorithmConfig:
    """Put a tutor into a stock RLlib config (PPO, A2C or DQN on the new API stack); ``none`` changes nothing.

    Example:
        >>> from ray.rllib.algorithms.ppo.ppo import PPOConfig
        >>> from ray.tune.registry import register_env
        >>> from rllib_plugins.tasks import load_task
        >>> _ = register_env("flat-blackjack", lambda _: load_task("blackjack").make())
        >>> config = PPOConfig().environment("flat-blackjack").env_runners(num_env_runners=0)
        >>> config = add_tutor(config, task="blackjack", tutor="oracle", theta_steps=20_000)
        >>> config.evaluation_config["explore"]  # evaluation never asks a tutor
        False

    Args:
        config: The environment must show the task's flat observations (``Task.make``).
        task: Task by name, or as ``module:object``.
        task_options: Its keyword arguments.
        tutor: Tutor by name, or ``none``.
        advice: When to ask and what to do with advice; its use must let the tutor act. Default: the coin's defaults.
        theta_steps: θ in env steps.
        make_advisor: In place of ``tutor``: from the task to its advisor; must be picklable.

    Returns:
        ``config``, changed.

    Raises:
        UserError: Several EnvRunners or agents, a config that has connectors or a DQN module of its own, or a use of
            advice in which the tutor does not act.
    """
    advice = advice or AdviceConfig(use="coin")
    if tutor == "none" and make_advisor is None:
        return config
    if tutor != "none" and not make_use(advice.named_use, advice.use_options).on_stock:
        raise UserError(
            f"advice.use = '{advice.named_use}' needs the lean rollout; in RLlib's own EnvRunner the tutor acts: "
            "set advice.use to 'coin'."
        )
    if config.is_multi_agent:
        raise UserError("multi-agent configs are not supported: a tutor advises one student")
    if config.num_env_runners:
        raise UserError(
            f"num_env_runners={config.num_env_runners}: a trial's advice budget, stored advice and earned trust belong "
            "to one EnvRunner; set num_env_runners=0 and raise num_envs_per_env_runner"
        )
    if config._env_to_module_connector is not None or config._module_to_env_connector is not None:
        raise UserError("the config has connectors of its own: append theirs to env_pieces and tutor_pieces by hand")
    if isinstance(config, DQNConfig):
        from rllib_plugins.q_values_module import show_q_values

        show_q_values(config)
    config.env_runners(
        env_to_module_connector=env_pieces,
        module_to_env_connector=partial(
            tutor_pieces,
            task=task,
            task_options=dict(task_options or {}),
            make_advisor=make_advisor or partial(_advisor_by_name, tutor, advice.patience_s),
            advice=advice,
            theta_steps=theta_steps,
            seed=config.seed or 0,
            gamma=config.gamma,
            learning_starts=config.num_steps_sampled_before_learning_starts if isinstance(config, DQNConfig) else None,
        ),
    )
    config.evaluation(evaluation_config={**(config.evaluation_config or {}), "explore": False})
    return config


def env_pieces(env: Any = None, spaces: Any = None, device: Any = None) -> list[ConnectorV2]:
    """What belongs in front of every other env-to-module connector."""
    return [WatchEnvironments()]


def tutor_pieces(env: Any = None, spaces: Any = None, **options: Any) -> list[ConnectorV2]:
    """What belongs behind every other module-to-env connector; ``options`` are those of ``ConsultTutor``."""
    return [ConsultTutor(**options)]


def _advisor_by_name(tutor: str, deadline_s: float, task: Task) -> Advisor | None:
    from rllib_plugins.tutors import make_advisor

    return make_advisor(tutor, task, deadline_s=deadline_s)


def _rows(column: dict[Any, list[Any]]) -> NDArray[Any]:
    """A column in RLlib's form as an array ``(n, ...)``."""
    return np.stack([item for items in column.values() for item in items])


def _nobody(num_rows: int, num_actions: int) -> Decision:
    nobody = Decision.of(num_rows, num_actions)
    nobody.probabilities.fill(1.0)
    return nobody
