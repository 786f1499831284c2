"""Lean views on RLlib's default RLModules: the module's own parameters without its dictionaries.

Owns no parameters: equal seeds give the initial weights of stock RLlib, and whatever optimiser, checkpoint or
``set_state`` does to the module is seen here. Must not know losses.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from rllib_plugins.policies import best_values
from rllib_plugins.rollout.mlp import Array, ArrayMLP
from tutor_service.errors import UserError


def _mlp(model: Any) -> nn.Sequential:
    """The layers of an RLlib MLP encoder or head."""
    layers = getattr(getattr(model, "net", None), "mlp", None)
    if not isinstance(layers, nn.Sequential):
        raise UserError(
            f"the lean rollout runs RLlib's MLP encoders and heads, not {type(model).__name__}: "
            "use flat observations, or set rollout: stock"
        )
    return layers


def initialise_orthogonally(module: Any) -> None:
    """Gives ``DefaultPPOTorchRLModule`` orthogonal weights and biases of 0, in place.

    Gains are √2 in hidden layers, 0.01 in the policy's last, so that the first policy is nearly uniform, and 1 in the
    value's last: Andrychowicz et al. 2021 (arXiv 2006.05990), and the default of Stable-Baselines3.
    """
    gains = {id(_mlp(module.pi)[-1]): 0.01, id(_mlp(module.vf)[-1]): 1.0}
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, gains.get(id(layer), math.sqrt(2.0)))
            nn.init.zeros_(layer.bias)


class ActorCriticView:
    """View on ``DefaultPPOTorchRLModule`` (PPO, A2C), with shared or separate encoders."""

    def __init__(self, module: Any) -> None:
        encoder = module.encoder
        shared = getattr(encoder, "encoder", None)
        if shared is not None:
            self._trunk: ArrayMLP | None = ArrayMLP(_mlp(shared))
            self._actor, self._critic = ArrayMLP(_mlp(module.pi)), ArrayMLP(_mlp(module.vf))
        else:
            self._trunk = None
            self._actor = ArrayMLP([*_mlp(encoder.actor_encoder), *_mlp(module.pi)])
            self._critic = ArrayMLP([*_mlp(encoder.critic_encoder), *_mlp(module.vf)])

    def act(self, observations: Array) -> tuple[Array, Array]:
        """Logits ``(n, num_actions)`` and values ``(n,)``."""
        features = self._features(observations)
        return self._actor(features), self._critic(features)[:, 0]

    def scores(self, observations: Array) -> Array:
        """What the greedy action maximises: logits ``(n, num_actions)``."""
        return self._actor(self._features(observations))

    def values(self, observations: Array, legal: NDArray[np.bool_] | None) -> Array:
        """Values ``(n,)``; the mask plays no part."""
        return self._critic(self._features(observations))[:, 0]

    def forward(self, observations: Array) -> tuple[Array, Array]:
        """As ``act``, remembered for ``backward``."""
        features = observations if self._trunk is None else self._trunk.forward(observations)
        return self._actor.forward(features), self._critic.forward(features)[:, 0]

    def backward(self, logits: Array, values: Array) -> None:
        """Writes the parameters' gradients, given those of the last ``forward``'s logits and values."""
        if self._trunk is None:
            self._actor.backward(logits)
            self._critic.backward(values[:, None])
            return
        actor = self._actor.backward(logits, to_inputs=True)
        critic = self._critic.backward(values[:, None], to_inputs=True)
        assert actor is not None and critic is not None
        self._trunk.backward(actor + critic)

    def forward_policy(self, observations: Array) -> Array:
        """Logits ``(n, num_actions)``, remembered for ``backward_policy``."""
        return self._actor.forward(observations if self._trunk is None else self._trunk.forward(observations))

    def backward_policy(self, logits: Array) -> None:
        """Writes the gradients of the policy's parameters; the critic's stay as they are."""
        features = self._actor.backward(logits, to_inputs=self._trunk is not None)
        if self._trunk is not None:
            assert features is not None
            self._trunk.backward(features)

    def _features(self, observations: Array) -> Array:
        return observations if self._trunk is None else self._trunk(observations)


class QNetwork:
    """Encoder and heads of a Q-network, dueling (Wang et al. 2016, arXiv 1511.06581) or not."""

    def __init__(self, encoder: Any, advantage: Any, value: Any | None) -> None:
        self._trunk, self._advantage = ArrayMLP(_mlp(encoder)), ArrayMLP(_mlp(advantage))
        self._value = None if value is None else ArrayMLP(_mlp(value))

    def __call__(self, observations: Array) -> Array:
        """Q-values ``(n, num_actions)``."""
        features = self._trunk(observations)
        return _dueling(self._advantage(features), None if self._value is None else self._value(features))

    def forward(self, observations: Array) -> Array:
        """The same, remembered for ``backward``."""
        features = self._trunk.forward(observations)
        return _dueling(
            self._advantage.forward(features), None if self._value is None else self._value.forward(features)
        )

    def backward(self, q_values: Array) -> None:
        """Writes the parameters' gradients, given those of the last ``forward``'s Q-values."""
        if self._value is None:
            features = self._advantage.backward(q_values, to_inputs=True)
        else:
            total = q_values.sum(axis=1, keepdims=True)
            centred = self._advantage.backward(q_values - total / q_values.shape[1], to_inputs=True)
            value = self._value.backward(total, to_inputs=True)
            assert centred is not None and value is not None
            features = centred + value
        assert features is not None
        self._trunk.backward(features)


class QView:
    """View on ``DefaultDQNTorchRLModule`` with an expectation head (one atom)."""

    def __init__(self, module: Any) -> None:
        if module.num_atoms != 1:
            raise UserError(f"num_atoms={module.num_atoms}: the lean DQN learns expectations; set 1, or rollout: stock")
        self.online = QNetwork(module.encoder, module.af, module.vf if module.uses_dueling else None)
        self._target: QNetwork | None = None
        self._module = module

    def bind_target(self) -> None:
        """Views the target networks, once the learner has made them."""
        module = self._module
        self._target = QNetwork(
            module._target_encoder, module._target_af, module._target_vf if module.uses_dueling else None
        )

    def scores(self, observations: Array) -> Array:
        """What the greedy action maximises: Q-values ``(n, num_actions)``."""
        return self.online(observations)

    def target(self, observations: Array) -> Array:
        """The target network's Q-values ``(n, num_actions)``."""
        assert self._target is not None, "bind_target comes first"
        return self._target(observations)

    def values(self, observations: Array, legal: NDArray[np.bool_] | None) -> Array:
        """max over legal actions of Q, ``(n,)``."""
        return best_values(self.online(observations), legal)


def _dueling(advantages: Array, values: Array | None) -> Array:
    if values is None:
        return advantages
    combined: Array = advantages - advantages.mean(axis=1, keepdims=True) + values
    return combined
