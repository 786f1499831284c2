"""Where a student's time goes, by stages that do not overlap: the process's own time within named methods.

Each method is wrapped for the length of a run. A stage that is entered within another one belongs to the outer one;
what is in no stage is the ``rest``.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

LEAN = {
    "environments": ["rllib_plugins.tasks.flat:NativeVectorEnv.step", "rllib_plugins.tasks.flat:TurnsVectorEnv.step"],
    "networks": [
        "rllib_plugins.rollout.env_runner:act",
        "rllib_plugins.rollout.network:ActorCriticView.act",
        "rllib_plugins.rollout.network:ActorCriticView.scores",
        "rllib_plugins.rollout.network:QNetwork.__call__",
    ],
    "update": [
        "rllib_plugins.algorithms.ppo.learner:learn",
        "rllib_plugins.algorithms.ppo.learner:learn_in_passes",
        "rllib_plugins.algorithms.dqn.learner:learn_transitions",
    ],
    "who acts": ["rllib_plugins.advising.explorer:Explorer.act_into"],
    "batches": [
        "rllib_plugins.algorithms.ppo.learner:make_update_batch",
        "rllib_plugins.algorithms.a2c.learner:make_update_batch",
        "rllib_plugins.rollout.replay:ArrayReplayBuffer.add",
        "rllib_plugins.rollout.replay:ArrayReplayBuffer.draw",
    ],
}
STOCK = {
    "environments": ["ray.rllib.env.env_runner:EnvRunner._try_env_step"],
    "networks": [
        "ray.rllib.core.rl_module.rl_module:RLModule.forward_exploration",
        "ray.rllib.core.rl_module.rl_module:RLModule.forward_train",
        "ray.rllib.core.learner.torch.torch_learner:TorchLearner.compute_gradients",
    ],
    "optimiser": ["ray.rllib.core.learner.torch.torch_learner:TorchLearner.apply_gradients"],
    "who acts": ["ray.rllib.connectors.connector_pipeline_v2:ConnectorPipelineV2.__call__"],
    "batches": [
        "ray.rllib.connectors.env_to_module.env_to_module_pipeline:EnvToModulePipeline.__call__",
        "ray.rllib.connectors.learner.learner_connector_pipeline:LearnerConnectorPipeline.__call__",
        "ray.rllib.utils.replay_buffers.episode_replay_buffer:EpisodeReplayBuffer.add",
        "ray.rllib.utils.replay_buffers.episode_replay_buffer:EpisodeReplayBuffer.sample",
    ],
}


@contextmanager
def timed(stages: dict[str, list[str]]) -> Iterator[dict[str, float]]:
    """Collects the process's seconds spent in each stage while the context is open.

    Args:
        stages: Methods, as ``module:Class.method``, or functions, as ``module:function``, by stage.
    """
    spent = dict.fromkeys(stages, 0.0)
    open_stages: list[str] = []
    undo: list[tuple[Any, str, Any]] = []
    for stage, paths in stages.items():
        for path in paths:
            owner, name = _find(path)
            undo.append((owner, name, owner.__dict__[name]))
            setattr(owner, name, _timed(owner.__dict__[name], stage, spent, open_stages))
    try:
        yield spent
    finally:
        for owner, name, original in undo:
            setattr(owner, name, original)


def _find(path: str) -> tuple[Any, str]:
    module, _, attribute = path.partition(":")
    owner: Any = importlib.import_module(module)
    *classes, name = attribute.split(".")
    for part in classes:
        owner = getattr(owner, part)
    return owner, name


def _timed(
    function: Callable[..., Any], stage: str, spent: dict[str, float], open_stages: list[str]
) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if open_stages:
            return function(*args, **kwargs)
        open_stages.append(stage)
        started = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            spent[stage] += time.process_time() - started
            open_stages.pop()

    return run
