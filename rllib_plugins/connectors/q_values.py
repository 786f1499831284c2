"""RLlib's DQN module that also shows the Q-values by which it explores."""

from __future__ import annotations

from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn.default_dqn_rl_module import QF_PREDS
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from tutor_service.errors import UserError


class QValuesModule(DefaultDQNTorchRLModule):
    """Add ``QF_PREDS`` to what exploring and acting greedily return; all else, random numbers included, is RLlib's."""

    _shown: Any = None

    def compute_q_values(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Compute RLlib's Q-values, and keep them."""
        outs: dict[str, Any] = super().compute_q_values(batch)
        self._shown = outs[QF_PREDS]
        return outs

    def _forward_exploration(self, batch: dict[str, Any], t: int) -> dict[str, Any]:  # type: ignore[override]
        outs: dict[str, Any] = super()._forward_exploration(batch, t)
        outs[QF_PREDS], self._shown = self._shown, None
        return outs

    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        outs: dict[str, Any] = super()._forward_inference(batch, **kwargs)
        outs[QF_PREDS], self._shown = self._shown, None
        return outs


def show_q_values(config: AlgorithmConfig) -> None:
    """Make a DQN config use ``QValuesModule``.

    Raises:
        UserError: The config has another module.
    """
    if config._rl_module_spec is not None:
        raise UserError("the config has an rl_module_spec of its own: make its module extend QValuesModule")
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=QValuesModule))
