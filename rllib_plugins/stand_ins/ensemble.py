"""An ensemble of small networks that are fitted to a tutor's answers, each from its own start and in its own order.

Where a state is unlike those that were asked, networks differ; the least probability that any of them gives to the
action that is best by their mean says how sure all are.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from rllib_plugins.algorithms.losses import ALWAYS, add_imitation, log_softmax
from rllib_plugins.algorithms.updates import ADAM, NO_CLIP, Optimiser, descend
from rllib_plugins.array_types import Bools, Floats, Floats32, Ints
from rllib_plugins.compiled import compiled
from rllib_plugins.rollout.arrays import NO_MASKS
from rllib_plugins.rollout.mlp import (
    LINEAR,
    RELU,
    Network,
    Workspace,
    backward_heads,
    first_head,
    make_workspace,
)
from rllib_plugins.stand_ins.model import Answers, Prediction
from rllib_plugins.stand_ins.registry import Ensemble

BATCH = 64
"""Answers per gradient step."""
MOST_ROWS = 256
"""States that are looked at in one pass."""


class EnsembleModel:
    """Is the working object of ``Ensemble``.

    Args:
        options: As configured.
        obs_dim: Length of a flat observation.
        num_actions: Actions A.
        seed: Of the networks' starts and of the order of the answers.
    """

    def __init__(self, options: Ensemble, obs_dim: int, num_actions: int, seed: int) -> None:
        self._options = options
        self._num_actions = num_actions
        self._rng = np.random.default_rng(seed)
        widths = (obs_dim, options.hidden, options.hidden, num_actions)
        self._networks = [_network(widths, self._rng) for _ in range(options.members)]
        self._optimisers = [_adam(network, options.lr) for network in self._networks]
        self._workspace = make_workspace(self._networks[0], MOST_ROWS)

    def fit(self, answers: Answers) -> None:
        """Go on from the last fit, with answers that are drawn uniformly."""
        told, legal = answers.told.astype(np.float32), NO_MASKS if answers.legal is None else answers.legal
        for network, optimiser in zip(self._networks, self._optimisers, strict=True):
            drawn = self._rng.integers(len(told), size=(self._options.gradient_steps, min(BATCH, len(told))))
            _fit(network, optimiser, answers.observations, told, legal, drawn, self._workspace)

    def predict(self, observations: Floats32, legal: Bools | None) -> Prediction:
        """Return the mean of the networks' distributions, and the least probability of its best action."""
        shape = len(self._networks), len(observations), self._num_actions
        each = np.empty(shape, np.float32)
        for start in range(0, len(observations), MOST_ROWS):
            part = slice(start, start + MOST_ROWS)
            mask = NO_MASKS if legal is None else legal[part]
            for member, network in enumerate(self._networks):
                _predict(network, np.ascontiguousarray(observations[part]), mask, self._workspace, each[member, part])
        mean = each.mean(axis=0, dtype=np.float64)
        best = mean.argmax(axis=1)
        least = each[:, np.arange(len(best)), best].min(axis=0)
        return Prediction(mean / mean.sum(axis=1, keepdims=True), least.astype(np.float64))

    def get_state(self) -> dict[str, Any]:
        """Return parameters, optimisers and random state."""
        return {
            "parameters": [network.parameters.copy() for network in self._networks],
            "optimisers": [[o.first.copy(), o.second.copy(), o.num_steps.copy()] for o in self._optimisers],
            "rng": self._rng.bit_generator.state,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``."""
        for network, parameters in zip(self._networks, state["parameters"], strict=True):
            network.parameters[:] = parameters
        for optimiser, (first, second, num_steps) in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.first[:], optimiser.second[:], optimiser.num_steps[:] = first, second, num_steps
        self._rng.bit_generator.state = state["rng"]


def _network(widths: tuple[int, ...], rng: np.random.Generator) -> Network:
    """Make a network with one head and no trunk, started as torch starts linear layers."""
    layers: list[list[int]] = []
    parts: list[Floats] = []
    start = tape = 0
    for inputs, outputs in pairwise(widths):
        is_last = len(layers) == len(widths) - 2
        layers.append([inputs, outputs, start, start + inputs * outputs, LINEAR if is_last else RELU, tape])
        parts.append(rng.uniform(-1.0, 1.0, (inputs + 1) * outputs) / np.sqrt(inputs))
        start, tape = start + (inputs + 1) * outputs, tape + outputs
    parameters = np.concatenate(parts).astype(np.float32)
    sections = np.array([0, 0, len(layers), len(layers)], np.int64)
    return Network(np.array(layers, np.int64), sections, parameters, np.zeros_like(parameters))


def _adam(network: Network, lr: float) -> Optimiser:
    size = network.parameters.size
    rates = np.array([lr, 0.9, 0.999, 1e-8, 0.0, 0.0])
    first, second = np.zeros(size, np.float32), np.zeros(size, np.float32)
    return Optimiser(ADAM, first, second, np.zeros(1, np.float32), rates, NO_CLIP, np.array([0, size]))


@compiled
def _fit(
    network: Network,
    optimiser: Optimiser,
    observations: Floats32,
    told: Floats32,
    legal: Bools,
    drawn: Ints,
    workspace: Workspace,
) -> None:
    """Take one gradient step of the cross-entropy to ``told`` per row of ``drawn`` ``(num_steps, batch)``."""
    no_second = np.zeros((0, 0), np.float32)
    for step in range(len(drawn)):
        rows = drawn[step]
        batch, mask = observations[rows], legal[rows] if len(legal) else legal
        logits = first_head(network, batch, workspace)
        by_logits = np.zeros_like(logits)
        add_imitation(logits, mask, told[rows], np.float32(1), ALWAYS, by_logits)
        backward_heads(network, batch, by_logits, no_second, workspace)
        descend(network, optimiser)


@compiled
def _predict(network: Network, observations: Floats32, legal: Bools, workspace: Workspace, out: Floats32) -> None:
    """Write a network's distributions over the legal actions into ``out`` ``(n, A)``."""
    logits = first_head(network, observations, workspace)
    for row in range(len(logits)):
        log_softmax(logits, legal, row, np.float32(1), out[row])
        for action in range(out.shape[1]):
            out[row, action] = np.exp(out[row, action])
