"""Lean views on RLlib's default RLModules: the module's own parameters without its dictionaries.

A view owns no parameters: equal seeds give the initial weights of stock RLlib, and whatever optimiser, checkpoint or
``set_state`` does to the module is seen here.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from rllib_plugins.array_types import Bools, Floats32
from rllib_plugins.policies import best_values
from rllib_plugins.rollout.mlp import (
    Network,
    Workspace,
    backward_dueling,
    backward_heads,
    both_heads,
    dueling,
    first_head,
    make_network,
    make_workspace,
)
from tutor_service.errors import UserError

_NOTHING = np.empty((0, 0), np.float32)


class Heads(NamedTuple):
    """Hold logits ``(n, num_actions)`` and values ``(n,)``."""

    logits: Floats32
    values: Floats32


def as_rows(observations: Floats32) -> Floats32:
    """Return observations as compiled code takes them: float32, contiguous, and its own to write."""
    if observations.dtype == np.float32 and observations.flags.carray:
        return observations  # as nearly always: numpy's own check takes five times as long
    return np.require(observations, np.float32, ["C", "W"])


def _mlp(model: Any) -> nn.Sequential:
    """Return the layers of an RLlib MLP encoder or head."""
    layers = getattr(getattr(model, "net", None), "mlp", None)
    if not isinstance(layers, nn.Sequential):
        raise UserError(
            f"the lean rollout runs RLlib's MLP encoders and heads, not {type(model).__name__}: "
            "use flat observations, or set rollout: stock"
        )
    return layers


def initialise_orthogonally(module: Any) -> None:
    """Give ``DefaultPPOTorchRLModule`` orthogonal weights and biases of 0, in place.

    Gains are √2 in hidden layers, 0.01 in the policy's last, so that the first policy is nearly uniform, and 1 in the
    value's last: Andrychowicz et al. 2021 (arXiv 2006.05990), and the default of Stable-Baselines3.
    """
    gains = {id(_mlp(module.pi)[-1]): 0.01, id(_mlp(module.vf)[-1]): 1.0}
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, gains.get(id(layer), math.sqrt(2.0)))
            nn.init.zeros_(layer.bias)


class _View:
    """Hold a network and a workspace that grows with the batches."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._num_rows = 0
        self._workspace = make_workspace(network, 0)

    def workspace(self, num_rows: int) -> Workspace:
        """Return a workspace for so many rows."""
        if num_rows > self._num_rows:
            self._num_rows, self._workspace = num_rows, make_workspace(self.network, num_rows)
        return self._workspace


class ActorCriticView(_View):
    """Run ``DefaultPPOTorchRLModule`` (PPO, A2C), with shared or separate encoders, in compiled code.

    What its methods return is overwritten by the next call.
    """

    def __init__(self, module: Any) -> None:
        encoder = module.encoder
        shared = getattr(encoder, "encoder", None)
        if shared is not None:
            sections: list[Any] = [_mlp(shared), _mlp(module.pi), _mlp(module.vf)]
        else:
            actor, critic = _mlp(encoder.actor_encoder), _mlp(encoder.critic_encoder)
            sections = [[], [*actor, *_mlp(module.pi)], [*critic, *_mlp(module.vf)]]
        super().__init__(make_network(sections))

    def act(self, observations: Floats32) -> Heads:
        """Return logits and values."""
        rows = as_rows(observations)
        logits, values = both_heads(self.network, rows, self.workspace(len(rows)))
        return Heads(logits, values[:, 0])

    def scores(self, observations: Floats32) -> Floats32:
        """Return what the greedy action maximises: logits ``(n, num_actions)``."""
        rows = as_rows(observations)
        return first_head(self.network, rows, self.workspace(len(rows)))

    def values(self, observations: Floats32, legal: Bools | None) -> Floats32:
        """Return values ``(n,)``; the mask plays no part."""
        return self.act(observations).values

    def backward_policy(self, observations: Floats32, by_logits: Floats32) -> None:
        """Write the gradients of the policy's parameters for the last pass over ``observations``.

        The critic's stay as they are.
        """
        backward_heads(self.network, as_rows(observations), by_logits, _NOTHING, self._workspace)


class QNetwork(_View):
    """Run encoder and heads of a Q-network, dueling (Wang et al. 2016, arXiv 1511.06581) or not, in compiled code."""

    def __init__(self, encoder: Any, advantage: Any, value: Any | None) -> None:
        super().__init__(make_network([_mlp(encoder), _mlp(advantage), [] if value is None else _mlp(value)]))

    def __call__(self, observations: Floats32) -> Floats32:
        """Return Q-values ``(n, num_actions)``."""
        rows = as_rows(observations)
        return dueling(self.network, rows, self.workspace(len(rows)))

    def backward_comparison(self, observations: Floats32, by_q: Floats32) -> None:
        """Write the gradients of a loss that compares actions, for the last pass over ``observations``."""
        backward_dueling(self.network, as_rows(observations), by_q, False, self._workspace)


class QView:
    """Run ``DefaultDQNTorchRLModule`` with an expectation head (one atom)."""

    def __init__(self, module: Any) -> None:
        if module.num_atoms != 1:
            raise UserError(f"num_atoms={module.num_atoms}: the lean DQN learns expectations; set 1, or rollout: stock")
        self.online = QNetwork(module.encoder, module.af, module.vf if module.uses_dueling else None)
        self._module = module

    def make_target(self) -> QNetwork:
        """Return the target networks, once the learner has made them."""
        module = self._module
        return QNetwork(module._target_encoder, module._target_af, module._target_vf if module.uses_dueling else None)

    def scores(self, observations: Floats32) -> Floats32:
        """Return what the greedy action maximises: Q-values ``(n, num_actions)``."""
        return self.online(observations)

    def values(self, observations: Floats32, legal: Bools | None) -> Floats32:
        """Return max over legal actions of Q, ``(n,)``."""
        return best_values(self.online(observations), legal)
