"""Put a tutor into RLlib's own algorithms: a config's connectors, and its EnvRunners where there are several."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn.dqn import DQNConfig
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import COMPONENT_ENV_TO_MODULE_CONNECTOR, COMPONENT_MODULE_TO_ENV_CONNECTOR
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from rllib_plugins.advising.advisor import Advisor
from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.connectors.pieces import ConsultTutor, Tutoring, WatchEnvironments
from rllib_plugins.sharing.shares import Place
from rllib_plugins.tasks import Task, load_task
from rllib_plugins.uses.options import make_use
from tutor_service.errors import UserError

Factory = Callable[..., Any]
"""What RLlib calls a connector's function: from env, spaces and device, or some of them, to a piece or several."""


class TutoredEnvRunner(SingleAgentEnvRunner):
    """RLlib's EnvRunner with a tutor that knows which of a trial's runners it is in. Extend it for one of your own."""

    def __init__(self, *, config: AlgorithmConfig, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        pieces: Any = self._module_to_env
        for piece in pieces.connectors:
            if not isinstance(piece, ConsultTutor):
                continue
            if self.config.in_evaluation:
                piece.only_evaluate()
            elif self.config.num_env_runners:
                piece.join(Place(self.worker_index, self.config.num_env_runners))

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return RLlib's state; one of several runners adds an entry for every connector that has no state.

        RLlib leaves those out, and merges the n-th entry of what is left by the n-th connector.
        """
        state: dict[str, Any] = super().get_state(*args, **kwargs)
        if not self.worker_index:
            return state
        pipelines: Any = (
            (COMPONENT_ENV_TO_MODULE_CONNECTOR, self._env_to_module),
            (COMPONENT_MODULE_TO_ENV_CONNECTOR, self._module_to_env),
        )
        for name, pipeline in pipelines:
            if name in state:
                names = [type(piece).__name__ for piece in pipeline.connectors]
                state[name] = {piece: state[name].get(piece, {}) for piece in names}
        return state


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
        config: The environment must show the task's flat observations (``Task.make``), or its own raw ones, unless the
            task takes its mask from the environment (infos, a dictionary observation or ``action_masks()``). Connectors
            of the config are kept, between the tutor's first and last piece.
        task: Task by name, or as ``module:object``.
        task_options: Its keyword arguments.
        tutor: Tutor by name, or ``none``.
        advice: When to ask and what to do with advice; its use must let the tutor act. Default: the coin's defaults.
        theta_steps: θ in env steps.
        make_advisor: In place of ``tutor``: from the task to its advisor; must be picklable.

    Returns:
        ``config``, changed.

    Raises:
        UserError: A second tutor, several agents, a DQN module or an EnvRunner of the config's own that does not extend
            this package's, or a use of advice in which the tutor does not act.
    """
    advice = advice or AdviceConfig(use="coin")
    if tutor == "none" and make_advisor is None:
        return config
    if tutor != "none" and not make_use(advice.named_use, advice.use_options).on_stock:
        raise UserError(
            f"advice.use = '{advice.named_use}' needs the lean rollout; in RLlib's own EnvRunner the tutor acts: "
            "set advice.use to 'coin'."
        )
    if tutor != "none" and advice.has_stand_in:
        raise UserError(f"advice.stand_in = '{advice.stand_in}' works in the lean rollout: leave it out.")
    if config.is_multi_agent:
        raise UserError("multi-agent configs are not supported: a tutor advises one student")
    if getattr(config._module_to_env_connector, "func", None) is tutor_pieces:
        raise UserError("the config has a tutor already: call add_tutor once")
    runner = config.env_runner_cls or TutoredEnvRunner
    if not issubclass(runner, TutoredEnvRunner):
        raise UserError(f"env_runner_cls={runner.__name__}: make it extend rllib_plugins.connectors.TutoredEnvRunner")
    if isinstance(config, DQNConfig):
        from rllib_plugins.connectors.q_values import show_q_values

        show_q_values(config)
    config.env_runners(
        env_runner_cls=runner,
        sample_timeout_s=None,  # an answer of the tutor may take longer than RLlib would wait for steps
        env_to_module_connector=partial(
            env_pieces, config._env_to_module_connector, task=task, task_options=dict(task_options or {})
        ),
        module_to_env_connector=partial(
            tutor_pieces,
            config._module_to_env_connector,
            tutoring=Tutoring(
                task=task,
                task_options=dict(task_options or {}),
                make_advisor=make_advisor or partial(_advisor_by_name, tutor, advice.patience_s),
                advice=advice,
                theta_steps=theta_steps,
                seed=config.seed or 0,
                gamma=config.gamma,
                learning_starts=(
                    config.num_steps_sampled_before_learning_starts if isinstance(config, DQNConfig) else None
                ),
            ),
        ),
    )
    config.evaluation(evaluation_config={**(config.evaluation_config or {}), "explore": False})
    return config


def env_pieces(
    others: Factory | None,
    env: Any = None,
    spaces: Any = None,
    device: Any = None,
    *,
    task: str,
    task_options: dict[str, Any],
) -> list[ConnectorV2]:
    """Return the tutor's piece in front of a config's own env-to-module pieces.

    Args:
        others: Makes the config's own.
        env: RLlib's.
        spaces: RLlib's.
        device: RLlib's.
        task: Name of the task.
        task_options: Its keyword arguments.

    Raises:
        UserError: The environment shows neither what the student of the task sees nor what the task shows.
    """
    shown = getattr(env, "single_observation_space", None)
    if shown is None and spaces:
        shown = spaces[INPUT_ENV_SINGLE_SPACES][0]
    encode = None if shown is None else _encoder(load_task(task, **task_options), shown)
    return [WatchEnvironments(encode=encode), *_own_pieces(others, env, spaces, device)]


def _encoder(task: Task, shown: Any) -> Callable[[Any], Any] | None:
    """Return what makes a task's flat observations of those that an environment shows; None: nothing is to be done."""
    if shown == task.observation_space:
        return None
    if task.mask_source is None and shown == task.raw_observation_space:
        return task.encode
    needed = f"{task.observation_space} (load_task('{task.name}').make())"
    if task.mask_source is None:
        needed += f" or {task.raw_observation_space}"
    raise UserError(f"the environment shows {shown}: to be tutored in '{task.name}' it must show {needed}")


def tutor_pieces(
    others: Factory | None, env: Any = None, spaces: Any = None, *, tutoring: Tutoring
) -> list[ConnectorV2]:
    """Return the tutor's piece behind a config's own module-to-env pieces."""
    return [*_own_pieces(others, env, spaces), ConsultTutor(tutoring=tutoring)]


def _own_pieces(factory: Factory | None, *given: Any) -> list[ConnectorV2]:
    """Call a config's connector function with as many arguments as it takes."""
    if factory is None:
        return []
    kinds = [parameter.kind for parameter in inspect.signature(factory).parameters.values()]
    takes_all = inspect.Parameter.VAR_POSITIONAL in kinds
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    made = factory(*given[: None if takes_all else sum(kind in positional for kind in kinds)])
    return [made] if isinstance(made, ConnectorV2) else list(made)


def _advisor_by_name(tutor: str, deadline_s: float, task: Task) -> Advisor | None:
    from rllib_plugins.tutors import make_advisor

    return make_advisor(tutor, task, deadline_s=deadline_s)
