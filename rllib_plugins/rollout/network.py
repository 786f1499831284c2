"""Lean views on RLlib's default RLModules: the module's own parameters without its dictionaries.

Owns no parameters. Acting runs in numpy on the memory of the module's tensors (a batch of 8 through an MLP of 64 × 64
costs a fraction of what torch's dispatch costs), learning runs in torch through the module's own layers, so equal seeds
give the initial weights of stock RLlib, and whatever optimiser, checkpoint or ``set_state`` does to the module is seen
here. Must not know losses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tutor_service.errors import UserError

Array = NDArray[np.float32]


def _tanh(x: Array) -> None:
    np.tanh(x, out=x)


def _relu(x: Array) -> None:
    np.maximum(x, 0, out=x)


_ACTIVATIONS: dict[type[nn.Module], Callable[[Array], None]] = {nn.Tanh: _tanh, nn.ReLU: _relu}


class ArrayMLP:
    """A forward pass in numpy on the memory of torch layers.

    Args:
        layers: Linear layers and activations (tanh, relu), on the CPU in float32.

    Raises:
        UserError: If a layer is neither.
    """

    def __init__(self, layers: nn.Sequential) -> None:
        self._steps: list[tuple[Array, Array | None] | Callable[[Array], None]] = []
        for layer in layers:
            if isinstance(layer, nn.Linear):
                bias = None if layer.bias is None else layer.bias.detach().numpy()
                self._steps.append((layer.weight.detach().numpy().T, bias))
            elif type(layer) in _ACTIVATIONS:
                self._steps.append(_ACTIVATIONS[type(layer)])
            else:
                raise UserError(
                    f"the lean rollout runs MLPs with tanh or relu, not {type(layer).__name__}: "
                    "set fcnet_activation to one of them, or rollout: stock"
                )

    def __call__(self, x: Array) -> Array:
        """Outputs ``(n, out)`` for inputs ``(n, in)``; the inputs are left as they are."""
        for step in self._steps:
            if isinstance(step, tuple):
                weight, bias = step
                x = x @ weight
                if bias is not None:
                    x += bias
            else:
                step(x)
        return x


def _mlp(model: Any) -> nn.Sequential:
    """The layers of an RLlib MLP encoder or head."""
    layers = getattr(getattr(model, "net", None), "mlp", None)
    if not isinstance(layers, nn.Sequential):
        raise UserError(
            f"the lean rollout runs RLlib's MLP encoders and heads, not {type(model).__name__}: "
            "use flat observations, or set rollout: stock"
        )
    return layers


class ActorCriticView:
    """View on ``DefaultPPOTorchRLModule`` (PPO, A2C), with shared or separate encoders."""

    def __init__(self, module: Any) -> None:
        encoder = module.encoder
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        shared = getattr(encoder, "encoder", None)
        if shared is not None:
            self._trunk: nn.Sequential | None = _mlp(shared)
            self._actor, self._critic = _mlp(module.pi), _mlp(module.vf)
        else:
            self._trunk = None
            self._actor = nn.Sequential(*_mlp(encoder.actor_encoder), *_mlp(module.pi))
            self._critic = nn.Sequential(*_mlp(encoder.critic_encoder), *_mlp(module.vf))
        self._array_trunk = None if self._trunk is None else ArrayMLP(self._trunk)
        self._array_actor, self._array_critic = ArrayMLP(self._actor), ArrayMLP(self._critic)

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits ``(n, num_actions)`` and values ``(n,)``, with gradients."""
        features = observations if self._trunk is None else self._trunk(observations)
        return self._actor(features), self._critic(features).squeeze(-1)

    def act(self, observations: Array) -> tuple[Array, Array]:
        """Logits ``(n, num_actions)`` and values ``(n,)``, in numpy."""
        features = observations if self._array_trunk is None else self._array_trunk(observations)
        return self._array_actor(features), self._array_critic(features)[:, 0]

    def scores(self, observations: Array) -> Array:
        """What the greedy action maximises: logits ``(n, num_actions)``."""
        features = observations if self._array_trunk is None else self._array_trunk(observations)
        return self._array_actor(features)

    def values(self, observations: Array, legal: NDArray[np.bool_] | None) -> Array:
        """Values ``(n,)``; the mask plays no part."""
        features = observations if self._array_trunk is None else self._array_trunk(observations)
        return self._array_critic(features)[:, 0]


class QView:
    """View on ``DefaultDQNTorchRLModule`` with an expectation head (one atom), dueling or not."""

    def __init__(self, module: Any) -> None:
        if module.num_atoms != 1:
            raise UserError(f"num_atoms={module.num_atoms}: the lean DQN learns expectations; set 1, or rollout: stock")
        self._trunk, self._advantage = _mlp(module.encoder), _mlp(module.af)
        self._value = _mlp(module.vf) if module.uses_dueling else None
        trained = [self._trunk, self._advantage] + ([] if self._value is None else [self._value])
        self.parameters = [p for net in trained for p in net.parameters()]
        self._array = self._array_nets(module.encoder, module.af, module.vf if module.uses_dueling else None)
        self._array_target: tuple[ArrayMLP, ArrayMLP, ArrayMLP | None] | None = None
        self.module = module

    def bind_target(self) -> None:
        """Views the target networks, once the learner has made them."""
        module = self.module
        self._array_target = self._array_nets(
            module._target_encoder, module._target_af, module._target_vf if module.uses_dueling else None
        )

    @staticmethod
    def _array_nets(encoder: Any, advantage: Any, value: Any) -> tuple[ArrayMLP, ArrayMLP, ArrayMLP | None]:
        return ArrayMLP(_mlp(encoder)), ArrayMLP(_mlp(advantage)), None if value is None else ArrayMLP(_mlp(value))

    @staticmethod
    def _run(nets: tuple[ArrayMLP, ArrayMLP, ArrayMLP | None], observations: Array) -> Array:
        trunk, advantage, value = nets
        features = trunk(observations)
        q_values = advantage(features)
        if value is not None:
            q_values = q_values - q_values.mean(axis=1, keepdims=True) + value(features)
        return q_values

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Q-values ``(n, num_actions)``, with gradients."""
        features = self._trunk(observations)
        q_values: torch.Tensor = self._advantage(features)
        if self._value is not None:
            q_values = q_values - q_values.mean(dim=-1, keepdim=True) + self._value(features)
        return q_values

    def scores(self, observations: Array) -> Array:
        """Q-values ``(n, num_actions)``, in numpy."""
        return self._run(self._array, observations)

    def target(self, observations: Array) -> Array:
        """The target network's Q-values ``(n, num_actions)``, in numpy."""
        assert self._array_target is not None, "bind_target comes first"
        return self._run(self._array_target, observations)

    def values(self, observations: Array, legal: NDArray[np.bool_] | None) -> Array:
        """max over legal actions of Q, ``(n,)``."""
        return best(self.scores(observations), legal)


def best(q_values: Array, legal: NDArray[np.bool_] | None) -> Array:
    """max over legal actions, ``(n,)``; where no action is legal (a finished game) over all of them."""
    if legal is None:
        return q_values.max(axis=1)
    return np.where(legal | ~legal.any(axis=1, keepdims=True), q_values, -np.inf).max(axis=1).astype(np.float32)


def masked_softmax(logits: Array, legal: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """Probabilities ``(n, num_actions)`` of logits, 0 on illegal actions."""
    z = logits.astype(np.float64)
    if legal is not None:
        z[~legal] = -np.inf
    z -= z.max(axis=1, keepdims=True)
    np.exp(z, out=z)
    z /= z.sum(axis=1, keepdims=True)
    return z


def greedy(scores: Array, legal: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """All probability on the legal action of highest score, ``(n, num_actions)``."""
    chosen = (scores if legal is None else np.where(legal, scores, -np.inf)).argmax(axis=1)
    probabilities = np.zeros(scores.shape)
    probabilities[np.arange(len(scores)), chosen] = 1.0
    return probabilities


def epsilon_greedy(q_values: Array, legal: NDArray[np.bool_] | None, epsilon: float) -> NDArray[np.float64]:
    """1 − ε on the best legal action and ε spread over the legal ones, ``(n, num_actions)``."""
    probabilities = greedy(q_values, legal) * (1.0 - epsilon)
    if legal is None:
        probabilities += epsilon / q_values.shape[1]
    else:
        probabilities += epsilon * legal / legal.sum(axis=1, keepdims=True)
    return probabilities
