"""Multi-layer perceptrons in machine code, on the memory of torch parameters: forward, backward and optimiser steps.

For networks of this size (64 × 64, batches of 8 to 256) a layer takes a microsecond or ten, and what calling it from
Python costs is as much again. A network is a trunk with one or two heads on it: encoder and Q-head; or no trunk, an
actor and a critic. Products are BLAS's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg.cython_blas  # noqa: F401  # loaded before threads are limited: compiled code calls it
import torch
from torch import nn

from rllib_plugins.array_types import Floats32, Ints
from rllib_plugins.compiled import compiled, inlined
from tutor_service.errors import UserError

TRUNK, FIRST, SECOND = 0, 1, 2
"""The sections of a network."""
LINEAR, TANH, RELU = 0, 1, 2
_ACTIVATIONS: dict[type[nn.Module], int] = {nn.Tanh: TANH, nn.ReLU: RELU, nn.Identity: LINEAR}
INPUTS, OUTPUTS, WEIGHT, BIAS, ACTIVATION, TAPE = range(6)
"""Columns of ``Network.layers``."""
NO_BIAS = -1
ROWS_FOR_TRANSPOSING = 32
"""From so many rows on a weight is multiplied by as a transposed copy, which BLAS takes half the time for (64 rows and
64 × 64, the copying not counted). With fewer rows BLAS also sums in another order, so that results would differ."""

_ZERO, _ONE = np.float32(0), np.float32(1)


class Network(NamedTuple):
    """Describe a network whose parameters are in one piece of memory.

    Attributes:
        layers: ``(L, 6)``: per layer its inputs and outputs, where its weight ``(outputs, inputs)`` and bias start in
            ``parameters`` (or ``NO_BIAS``), its activation, and the outputs of all layers before it.
        sections: ``(4,)``: the first layer of each section, and L.
        parameters: ``(P,)``.
        gradients: ``(P,)``; empty where there are none.
    """

    layers: Ints
    sections: Ints
    parameters: Floats32
    gradients: Floats32


class Workspace(NamedTuple):
    """Hold what a forward pass leaves for the backward pass, for up to a number of rows.

    Attributes:
        outputs: Of every layer, one after the other.
        scratch: ``(4, rows·widest layer)``: gradients on their way back.
    """

    outputs: Floats32
    scratch: Floats32


def flatten_parameters(parameters: Sequence[nn.Parameter]) -> nn.Parameter:
    """Move parameters, and gradients made for them, into one piece of memory each.

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
        if parameter.requires_grad:
            parameter.grad = whole.grad[start:stop].view_as(parameter)
        start = stop
    return whole


def make_network(sections: Sequence[Iterable[nn.Module]]) -> Network:
    """Describe a network; its parameters are flattened where they are not yet.

    Args:
        sections: The layers of trunk, first and second head, each a linear one followed by tanh, relu or nothing.

    Raises:
        UserError: A layer that is none of these.
    """
    modules = [list(section) for section in sections]
    parameters = [p for section in modules for module in section for p in module.parameters()]
    if len({p.untyped_storage().data_ptr() for p in parameters}) > 1:
        flatten_parameters(parameters)
    layers: list[list[int]] = []
    bounds, width = [0], 0
    for section in modules:
        for module in section:
            if isinstance(module, nn.Linear):
                bias = NO_BIAS if module.bias is None else int(module.bias.storage_offset())
                weight = int(module.weight.storage_offset())
                layers.append([module.in_features, module.out_features, weight, bias, LINEAR, width])
                width += module.out_features
            elif type(module) in _ACTIVATIONS and len(layers) > bounds[-1] and layers[-1][ACTIVATION] == LINEAR:
                layers[-1][ACTIVATION] = _ACTIVATIONS[type(module)]
            else:
                raise UserError(
                    f"the lean rollout runs MLPs with tanh or relu, not {type(module).__name__}: "
                    "set fcnet_activation to one of them, or rollout: stock"
                )
        bounds.append(len(layers))
    return Network(
        np.array(layers, np.int64), np.array(bounds, np.int64), _whole(parameters[0].data), _whole(parameters[0].grad)
    )


def _whole(part: torch.Tensor | None) -> Floats32:
    """Return the memory that a tensor is a part of."""
    if part is None:
        return np.empty(0, np.float32)
    whole: Floats32 = torch.empty(0).set_(part.untyped_storage()).numpy()  # type: ignore[call-overload]
    return whole


def make_workspace(network: Network, num_rows: int) -> Workspace:
    """Allocate a workspace for batches of up to ``num_rows``."""
    widest = int(network.layers[:, [INPUTS, OUTPUTS]].max())
    outputs = int(network.layers[:, OUTPUTS].sum())
    return Workspace(np.empty(num_rows * outputs, np.float32), np.empty((4, num_rows * widest), np.float32))


@compiled
def _output(network: Network, outputs: Floats32, layer: int, num_rows: int) -> Floats32:
    start, width = network.layers[layer, TAPE] * num_rows, network.layers[layer, OUTPUTS]
    return outputs[start : start + width * num_rows].reshape(num_rows, width)


@compiled
def _weight(network: Network, memory: Floats32, layer: int) -> Floats32:
    start, num_in, num_out = (
        network.layers[layer, WEIGHT],
        network.layers[layer, INPUTS],
        network.layers[layer, OUTPUTS],
    )
    return memory[start : start + num_in * num_out].reshape(num_out, num_in)


@inlined
def _tanh(x: np.float32) -> np.float32:
    """Return tanh by a rational function as in Eigen, which vectorises; within 3e-7."""
    x = np.float32(7.90531110763549805) if x > np.float32(7.90531110763549805) else x
    x = np.float32(-7.90531110763549805) if x < np.float32(-7.90531110763549805) else x
    square = x * x
    p = np.float32(-2.76076847742355e-16) * square + np.float32(2.00018790482477e-13)
    p = p * square + np.float32(-8.60467152213735e-11)
    p = p * square + np.float32(5.12229709037114e-08)
    p = p * square + np.float32(1.48572235717979e-05)
    p = p * square + np.float32(6.37261928875436e-04)
    p = p * square + np.float32(4.89352455891786e-03)
    q = np.float32(1.19825839466702e-06) * square + np.float32(1.18534705686654e-04)
    q = q * square + np.float32(2.26843463243900e-03)
    q = q * square + np.float32(4.89352518554385e-03)
    return x * p / q


@compiled
def _multiply(x: Floats32, weight: Floats32, y: Floats32) -> None:
    """Write x·weightᵀ, ``(n, out)``, into ``y``."""
    if len(x) < ROWS_FOR_TRANSPOSING:
        np.dot(x, weight.T, y)
        return
    transposed = np.empty((weight.shape[1], weight.shape[0]), np.float32)
    for i in range(transposed.shape[0]):
        for j in range(transposed.shape[1]):
            transposed[i, j] = weight[j, i]
    np.dot(x, transposed, y)


@compiled
def _activate(y: Floats32, bias: Floats32, activation: int) -> None:
    """Add ``bias`` ``(out,)`` to each row of ``y`` and apply the activation, in place."""
    for row in range(len(y)):
        values = y[row]
        if activation == TANH:
            for i in range(len(bias)):
                values[i] = _tanh(values[i] + bias[i])
        elif activation == RELU:
            for i in range(len(bias)):
                value = values[i] + bias[i]
                values[i] = _ZERO if value < _ZERO else value
        else:
            for i in range(len(bias)):
                values[i] += bias[i]


@compiled
def forward(network: Network, section: int, inputs: Floats32, workspace: Workspace) -> Floats32:
    """Run a section on inputs ``(n, in)``; return its outputs ``(n, out)``, which are in the workspace."""
    x = inputs
    for layer in range(network.sections[section], network.sections[section + 1]):
        y = _output(network, workspace.outputs, layer, len(x))
        _multiply(x, _weight(network, network.parameters, layer), y)
        start, width = network.layers[layer, BIAS], y.shape[1]
        bias = np.zeros(width, np.float32) if start == NO_BIAS else network.parameters[start : start + width]
        _activate(y, bias, network.layers[layer, ACTIVATION])
        x = y
    return x


@compiled
def backward(
    network: Network, section: int, inputs: Floats32, gradient: Floats32, workspace: Workspace, to_inputs: bool
) -> Floats32:
    """Write the gradients of a section's parameters, in place of what was there, after its ``forward``.

    Args:
        network: The network.
        section: ``TRUNK``, ``FIRST`` or ``SECOND``.
        inputs: What the section ran on, ``(n, in)``.
        gradient: ∂loss/∂outputs, ``(n, out)``; overwritten.
        workspace: That of ``forward``; the heads use other parts of it than the trunk does.
        to_inputs: Go on to the inputs.

    Returns:
        ∂loss/∂inputs ``(n, in)``, in the workspace; without ``to_inputs`` nothing of use.
    """
    first, num_rows = network.sections[section], len(inputs)
    for layer in range(network.sections[section + 1] - 1, first - 1, -1):
        x = inputs if layer == first else _output(network, workspace.outputs, layer - 1, num_rows)
        y, by_y = _output(network, workspace.outputs, layer, num_rows).reshape(-1), gradient.reshape(-1)
        activation, bias = network.layers[layer, ACTIVATION], network.layers[layer, BIAS]
        if activation == TANH:
            for i in range(by_y.size):
                by_y[i] *= _ONE - y[i] * y[i]
        elif activation == RELU:
            for i in range(by_y.size):
                by_y[i] = by_y[i] if y[i] > _ZERO else _ZERO
        np.dot(gradient.T, x, _weight(network, network.gradients, layer))
        if bias != NO_BIAS:
            by_bias = network.gradients[bias : bias + gradient.shape[1]]
            by_bias[:] = _ZERO
            for row in range(num_rows):
                for i in range(by_bias.size):
                    by_bias[i] += gradient[row, i]
        if layer > first or to_inputs:
            part = workspace.scratch[(layer - first) % 2 + (2 if section == SECOND else 0)]
            by_x = part[: num_rows * x.shape[1]].reshape(num_rows, x.shape[1])
            np.dot(gradient, _weight(network, network.parameters, layer), by_x)
            gradient = by_x
    return gradient


@compiled
def backward_heads(
    network: Network, observations: Floats32, by_first: Floats32, by_second: Floats32, workspace: Workspace
) -> None:
    """Write all gradients of a network; a second head that is not there, or whose gradient is empty, gets none.

    Args:
        network: The network.
        observations: ``(n, obs_dim)`` of the last forward pass.
        by_first: ∂loss/∂outputs of the first head, ``(n, out)``; overwritten.
        by_second: Of the second head, ``(n, out)`` or ``(0, 0)``; overwritten.
        workspace: That of the forward pass.
    """
    num_trunk = network.sections[FIRST]
    features = observations if num_trunk == 0 else _output(network, workspace.outputs, num_trunk - 1, len(observations))
    by_features = backward(network, FIRST, features, by_first, workspace, num_trunk > 0)
    if len(by_second):
        also = backward(network, SECOND, features, by_second, workspace, num_trunk > 0)
        if num_trunk > 0:
            by_features += also
    if num_trunk > 0:
        backward(network, TRUNK, observations, by_features, workspace, False)


@compiled
def both_heads(network: Network, observations: Floats32, workspace: Workspace) -> tuple[Floats32, Floats32]:
    """Return the outputs of both heads, ``(n, out)`` each, which are in the workspace."""
    features = forward(network, TRUNK, observations, workspace)
    return forward(network, FIRST, features, workspace), forward(network, SECOND, features, workspace)


@compiled
def first_head(network: Network, observations: Floats32, workspace: Workspace) -> Floats32:
    """Return the outputs of the first head, ``(n, out)``, which are in the workspace."""
    return forward(network, FIRST, forward(network, TRUNK, observations, workspace), workspace)


@compiled
def dueling(network: Network, observations: Floats32, workspace: Workspace) -> Floats32:
    """Return Q ``(n, A)`` of a Q-network; with a second head A − mean A + V (Wang et al. 2016, arXiv 1511.06581)."""
    features = forward(network, TRUNK, observations, workspace)
    q_values = forward(network, FIRST, features, workspace).copy()
    if network.sections[SECOND + 1] > network.sections[SECOND]:
        state_values = forward(network, SECOND, features, workspace)
        for row in range(len(q_values)):
            mean = _ZERO
            for action in range(q_values.shape[1]):
                mean += q_values[row, action]
            shift = state_values[row, 0] - mean / np.float32(q_values.shape[1])
            for action in range(q_values.shape[1]):
                q_values[row, action] += shift
    return q_values


@compiled
def backward_dueling(
    network: Network, observations: Floats32, by_q: Floats32, moves_values: bool, workspace: Workspace
) -> None:
    """Write all gradients of a Q-network, given ∂loss/∂Q ``(n, A)``, which is overwritten.

    Args:
        network: The network.
        observations: ``(n, obs_dim)`` of the last ``dueling``.
        by_q: ∂loss/∂Q.
        moves_values: The loss depends on V. One that compares actions does not, and what rounding leaves of its
            gradient by V would be a full step to Adam.
        workspace: That of ``dueling``.
    """
    by_value = np.zeros((0, 0), np.float32)
    if network.sections[SECOND + 1] > network.sections[SECOND]:
        by_value = np.zeros((len(by_q), 1), np.float32)
        for row in range(len(by_q)):
            total = _ZERO
            for action in range(by_q.shape[1]):
                total += by_q[row, action]
            if moves_values:
                by_value[row, 0] = total
            for action in range(by_q.shape[1]):
                by_q[row, action] -= total / np.float32(by_q.shape[1])
    backward_heads(network, observations, by_q, by_value, workspace)
