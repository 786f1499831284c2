"""Multi-layer perceptrons in numpy on the memory of torch parameters: forward, and backward by the chain rule.

For networks of this size (64 × 64, batches of 8 to 256) a kernel runs for a few microseconds, and what dispatching and
recording it costs in PyTorch is several times that. Owns no parameters: it reads and writes the module's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tutor_service.errors import UserError

Array = NDArray[np.float32]
Activation = Literal["tanh", "relu", "linear"]
_ACTIVATIONS: dict[type[nn.Module], Activation] = {nn.Tanh: "tanh", nn.ReLU: "relu", nn.Identity: "linear"}


def flatten_parameters(parameters: Sequence[nn.Parameter]) -> nn.Parameter:
    """Moves parameters, and gradients made for them, into one piece of memory each.

    An optimiser then has one tensor to step and clipping one norm to take. The parameters stay what they were to
    everything else: views of the whole, which checkpoints and ``load_state_dict`` copy from and into.

    Args:
        parameters: Of one dtype, on the CPU.

    Returns:
        The whole, with its gradient.
    """
    whole = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in parameters]))
    whole.grad = torch.zeros_like(whole)
    start = 0
    for parameter in parameters:
        stop = start + parameter.numel()
        parameter.data = whole.data[start:stop].view_as(parameter)
        parameter.grad = whole.grad[start:stop].view_as(parameter)
        start = stop
    return whole


@dataclass(slots=True)
class _Dense:
    """One layer: y = activation(x·Wᵀ + b). Gradients are views of the parameters' own, or None."""

    weight: Array
    bias: Array | None
    activation: Activation
    weight_gradient: Array | None
    bias_gradient: Array | None


class ArrayMLP:
    """A perceptron on the memory of torch layers.

    Args:
        layers: Linear layers, each followed by tanh, relu or nothing, on the CPU in float32.

    Raises:
        UserError: If a layer is none of these.
    """

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        self._layers: list[_Dense] = []
        self._tape: list[Array] = []
        for layer in layers:
            if isinstance(layer, nn.Linear):
                bias = layer.bias
                self._layers.append(
                    _Dense(
                        weight=layer.weight.detach().numpy(),
                        bias=None if bias is None else bias.detach().numpy(),
                        activation="linear",
                        weight_gradient=None if layer.weight.grad is None else layer.weight.grad.numpy(),
                        bias_gradient=None if bias is None or bias.grad is None else bias.grad.numpy(),
                    )
                )
            elif type(layer) in _ACTIVATIONS and self._layers and self._layers[-1].activation == "linear":
                self._layers[-1].activation = _ACTIVATIONS[type(layer)]
            else:
                raise UserError(
                    f"the lean rollout runs MLPs with tanh or relu, not {type(layer).__name__}: "
                    "set fcnet_activation to one of them, or rollout: stock"
                )

    def __call__(self, x: Array) -> Array:
        """Outputs ``(n, out)`` for inputs ``(n, in)``; the inputs are left as they are."""
        for layer in self._layers:
            x = _apply(layer, x)
        return x

    def forward(self, x: Array) -> Array:
        """The same, remembered for ``backward``."""
        self._tape = [x]
        for layer in self._layers:
            x = _apply(layer, x)
            self._tape.append(x)
        return x

    def backward(self, gradient: Array, *, to_inputs: bool = False) -> Array | None:
        """Writes the parameters' gradients (in place of what was there) for the last ``forward``.

        Args:
            gradient: ∂loss/∂outputs, ``(n, out)``.
            to_inputs: Go on to the inputs.

        Returns:
            ∂loss/∂inputs ``(n, in)``, or None.
        """
        for index in range(len(self._layers) - 1, -1, -1):
            layer, inputs, outputs = self._layers[index], self._tape[index], self._tape[index + 1]
            if layer.activation == "tanh":
                gradient = gradient * (1.0 - outputs * outputs)
            elif layer.activation == "relu":
                gradient = gradient * (outputs > 0)
            assert layer.weight_gradient is not None, "gradients are made by flatten_parameters, before the view"
            np.matmul(gradient.T, inputs, out=layer.weight_gradient)
            if layer.bias_gradient is not None:
                gradient.sum(axis=0, out=layer.bias_gradient)
            if index or to_inputs:
                gradient = gradient @ layer.weight
        return gradient if to_inputs else None


def _apply(layer: _Dense, x: Array) -> Array:
    y: Array = x @ layer.weight.T
    if layer.bias is not None:
        y += layer.bias
    if layer.activation == "tanh":
        np.tanh(y, out=y)
    elif layer.activation == "relu":
        np.maximum(y, 0, out=y)
    return y
