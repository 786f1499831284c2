"""What a student's arithmetic allows: env steps per second of a program that does the matrix products and nothing else.

The limit of a student counts, per update and the vector steps that it belongs to,

- acting: the forward pass of each network on one row per environment, once per vector step;
- the update, for each of its minibatches: the forward pass (of DQN's target network too), and backward one product for
  each weight's gradient and one for the gradient by each layer's inputs, but not the first layer's;
- the optimiser's step: ``OPTIMISER_FLOPS`` per parameter.

A product of an m·k and a k·n matrix has 2·m·k·n floating-point operations. It is charged what it takes on this core, at
its very size and in whichever storage order of its operands is fastest, by the BLAS that numpy ships, called in a loop
of machine code on data in the cache. The optimiser is charged at the mean rate of the update's products. Environments,
activations, losses, sampling, draws and every copy are free: nothing that computes these products reaches the limit.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.shared.students import HIDDEN, SETTINGS
from rllib_plugins.array_types import Floats32
from rllib_plugins.compiled import compiled

OPTIMISER_FLOPS = {"ppo": 15, "dqn": 15, "a2c": 11}
"""Per parameter: 2 for the norm that gradients are clipped by, and 13 for Adam's step or 9 for RMSprop's, where a
square root or a division is one operation."""

_LEAST_S = 1e-3


class Product(NamedTuple):
    """A matrix product: (rows, inner) · (inner, columns)."""

    rows: int
    inner: int
    columns: int

    @property
    def flops(self) -> int:
        """Floating-point operations."""
        return 2 * self.rows * self.inner * self.columns


class Shape(NamedTuple):
    """Sizes of a student's problem and networks of two hidden layers."""

    num_envs: int
    obs_dim: int
    num_actions: int
    hidden: int = HIDDEN


@compiled
def _multiply(left: Floats32, right: Floats32, product: Floats32, times: int) -> None:
    for _ in range(times):
        np.dot(left, right, product)


def product_s(product: Product) -> float:
    """Seconds of one product, in the fastest of three storage orders of its operands."""
    left = np.ones((product.rows, product.inner), np.float32)
    right = np.ones((product.inner, product.columns), np.float32)
    out = np.empty((product.rows, product.columns), np.float32)
    orders = ((left, right), (left, right.T.copy().T), (left.T.copy().T, right))
    return min(_seconds(*operands, out) for operands in orders)


def _seconds(left: Floats32, right: Floats32, out: Floats32) -> float:
    times, taken = 1, 0.0
    while taken < _LEAST_S:
        times *= 2
        started = time.process_time()
        _multiply(left, right, out, times)
        taken = time.process_time() - started
    return taken / times


def _networks(algorithm: str, shape: Shape) -> list[tuple[int, ...]]:
    """Widths of the networks that act and learn."""
    body = (shape.obs_dim, shape.hidden, shape.hidden)
    return [(*body, shape.num_actions)] if algorithm == "dqn" else [(*body, shape.num_actions), (*body, 1)]


def _forward(networks: Sequence[tuple[int, ...]], rows: int) -> list[Product]:
    return [Product(rows, i, o) for widths in networks for i, o in itertools.pairwise(widths)]


def _backward(networks: Sequence[tuple[int, ...]], rows: int) -> list[Product]:
    by_weights = [Product(p.columns, rows, p.inner) for p in _forward(networks, rows)]
    by_inputs = [Product(rows, p.columns, p.inner) for w in networks for p in _forward([w], rows)[1:]]
    return by_weights + by_inputs


class LimitRun:
    """Measures the limit of a student at ``SETTINGS``: each call returns env steps per second."""

    def __init__(self, algorithm: str, shape: Shape) -> None:
        self._algorithm, self._shape = algorithm, shape
        self()

    def __call__(self) -> float:
        """Env steps per second."""
        settings, shape = SETTINGS[self._algorithm], self._shape
        networks = _networks(self._algorithm, shape)
        if self._algorithm == "ppo":
            vector_steps, rows = settings["batch"] // shape.num_envs, settings["minibatch"]
            num_updates = settings["epochs"] * settings["batch"] // rows
        elif self._algorithm == "a2c":
            vector_steps, rows, num_updates = settings["steps"], settings["steps"] * shape.num_envs, 1
        else:
            vector_steps, rows, num_updates = 1, settings["batch"], 1
        update = _forward(networks, rows) + _backward(networks, rows)
        if self._algorithm == "dqn":
            update += _forward(networks, rows)
        acting = _forward(networks, shape.num_envs)
        taken = {product: product_s(product) for product in {*acting, *update}}
        acting_s, update_s = (sum(taken[product] for product in products) for products in (acting, update))
        num_parameters = sum(i * o + o for w in networks for i, o in itertools.pairwise(w))
        rate = sum(product.flops for product in update) / update_s
        update_s += OPTIMISER_FLOPS[self._algorithm] * num_parameters / rate
        return vector_steps * shape.num_envs / (vector_steps * acting_s + num_updates * update_s)
