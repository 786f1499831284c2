"""Run whole updates in machine code, with no call per layer: gather, forward, loss, backward, clip, optimiser."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from rllib_plugins.algorithms.losses import (
    ALWAYS,
    Margin,
    Objective,
    Statistics,
    UpdateBatch,
    actor_critic_loss,
    add_imitation,
    add_margin,
    td_loss,
)
from rllib_plugins.array_types import Bools, Floats, Floats32, Ints
from rllib_plugins.compiled import compiled
from rllib_plugins.rollout.mlp import Network, Workspace, backward_dueling, backward_heads, both_heads, dueling
from rllib_plugins.rollout.replay import Drawn, Transitions, gather

ADAM, RMSPROP, OTHER = range(3)
"""Optimisers that are compiled, and any other."""
NO_CLIP, BY_GLOBAL_NORM, BY_NORM, BY_VALUE = range(4)
"""RLlib's ``grad_clip_by``."""
_CLIPS = {"global_norm": BY_GLOBAL_NORM, "norm": BY_NORM, "value": BY_VALUE}
_ZERO, _ONE = np.float32(0), np.float32(1)
_LEAST = np.finfo(np.float32).tiny
"""Running means of gradients below it are taken as 0. Where units are dead, gradients of exactly 0 let means decay to
subnormal numbers, which never reach 0 by themselves and are slow to compute with."""


class Optimiser(NamedTuple):
    """Describe an optimiser over one piece of memory, on torch's own state.

    Attributes:
        kind: ``ADAM``, ``RMSPROP`` or ``OTHER``, which only clips.
        first: ``(P,)`` running mean of gradients; empty for RMSprop.
        second: ``(P,)`` running mean of their squares.
        num_steps: ``(1,)`` steps so far.
        rates: Learning rate, decay of ``first`` and of ``second``, ε, weight decay, and the limit of clipping.
        clip: How gradients are clipped.
        parts: ``(Q + 1,)`` where each parameter starts, and P.
    """

    kind: int
    first: Floats32
    second: Floats32
    num_steps: Floats32
    rates: Floats
    clip: int
    parts: Ints


class QObjective(NamedTuple):
    """Weigh the parts of DQN's loss.

    Attributes:
        gamma: Discount, a ``np.float32``.
        huber: Huber's error, else the squared one.
        double_q: The online network chooses the next action.
        margin: The margin on advised actions.
    """

    gamma: np.float32
    huber: bool
    double_q: bool
    margin: Margin


class LearntTransitions(NamedTuple):
    """Hold Q of the executed actions of a batch, and their targets, ``(B,)`` each."""

    taken: Floats32
    targets: Floats32


def describe_optimiser(optimiser: torch.optim.Optimizer, config: Any, parts: Ints) -> Optimiser:
    """Describe a torch optimiser of one tensor; its state, made here where it is not yet, is shared.

    Args:
        optimiser: Adam or RMSprop; with options beyond learning rate, decays, ε and weight decay it is ``OTHER``.
        config: The algorithm's, for ``grad_clip`` and ``grad_clip_by``.
        parts: ``Optimiser.parts``.
    """
    group: dict[str, Any] = optimiser.param_groups[0]
    (whole,) = group["params"]
    empty = np.empty(0, np.float32)
    clip = NO_CLIP if config.grad_clip is None else _CLIPS[config.grad_clip_by]
    limit = 0.0 if config.grad_clip is None else float(config.grad_clip)
    is_adam = isinstance(optimiser, torch.optim.Adam)
    if any(group.get(name) for name in ("amsgrad", "maximize", "centered", "momentum", "decoupled_weight_decay")):
        rates = np.array([0.0, 0.0, 0.0, 0.0, 0.0, limit])
        return Optimiser(OTHER, empty, empty, empty, rates, clip, parts)
    state = optimiser.state[whole]
    if not state:
        state["step"] = torch.zeros(())
        for name in ("exp_avg", "exp_avg_sq") if is_adam else ("square_avg",):
            state[name] = torch.zeros_like(whole.detach())
    decays = group["betas"] if is_adam else (0.0, group["alpha"])
    return Optimiser(
        kind=ADAM if is_adam else RMSPROP,
        first=state["exp_avg"].numpy() if is_adam else empty,
        second=state["exp_avg_sq" if is_adam else "square_avg"].numpy(),
        num_steps=state["step"].numpy().reshape(1),
        rates=np.array([float(group["lr"]), *decays, group["eps"], group["weight_decay"], limit]),
        clip=clip,
        parts=parts,
    )


class OptimiserView:
    """Describe a torch optimiser, anew once its state was replaced; arguments as ``describe_optimiser``'s."""

    def __init__(self, optimiser: torch.optim.Optimizer, config: Any, parts: Ints) -> None:
        self._given = optimiser, config, parts
        self._described: Optimiser | None = None
        self._state: Any = None

    def __call__(self) -> Optimiser:
        """Return the description, with the present learning rate."""
        optimiser = self._given[0]
        if self._described is None or optimiser.state is not self._state:  # which loading a checkpoint replaces
            self._described, self._state = describe_optimiser(*self._given), optimiser.state
        self._described.rates[0] = optimiser.param_groups[0]["lr"]
        return self._described


@compiled
def _clip_norm(gradient: Floats32, limit: float) -> None:
    total = np.dot(gradient, gradient)
    norm = np.sqrt(np.float64(total))
    if norm > limit:
        scale = np.float32(limit / (norm + 1e-6))
        for i in range(gradient.size):
            gradient[i] *= scale


@compiled
def descend(network: Network, optimiser: Optimiser) -> None:
    """Clip a network's gradients and take one step of Adam (Kingma & Ba 2015) or RMSprop, by torch's formulas."""
    gradient, values, limit = network.gradients, network.parameters, optimiser.rates[5]
    if optimiser.clip == BY_GLOBAL_NORM:
        _clip_norm(gradient, limit)
    elif optimiser.clip == BY_NORM:
        for i in range(len(optimiser.parts) - 1):
            _clip_norm(gradient[optimiser.parts[i] : optimiser.parts[i + 1]], limit)
    elif optimiser.clip == BY_VALUE:
        largest = np.float32(limit)
        for i in range(gradient.size):
            gradient[i] = min(max(gradient[i], -largest), largest)
    if optimiser.kind == OTHER:
        return
    rates = optimiser.rates
    decay_first, decay_second, eps = np.float32(rates[1]), np.float32(rates[2]), np.float32(rates[3])
    weight_decay = np.float32(rates[4])
    optimiser.num_steps[0] += _ONE
    if weight_decay != _ZERO:
        for i in range(gradient.size):
            gradient[i] += weight_decay * values[i]
    first, second = optimiser.first, optimiser.second
    if optimiser.kind == ADAM:
        steps = np.float64(optimiser.num_steps[0])
        rate = np.float32(rates[0] / (1.0 - rates[1] ** steps))
        correction = np.float32(np.sqrt(1.0 - rates[2] ** steps))
        for i in range(gradient.size):
            g = gradient[i]
            mean = first[i] + (g - first[i]) * (_ONE - decay_first)
            first[i] = _ZERO if abs(mean) < _LEAST else mean
            second[i] = decay_second * second[i] + (_ONE - decay_second) * g * g
            values[i] -= rate * first[i] / (np.sqrt(second[i]) / correction + eps)
    else:
        rate = np.float32(rates[0])
        for i in range(gradient.size):
            g = gradient[i]
            second[i] = decay_second * second[i] + (_ONE - decay_second) * g * g
            values[i] -= rate * g / (np.sqrt(second[i]) + eps)


@compiled
def learn(
    network: Network, batch: UpdateBatch, objective: Objective, workspace: Workspace, optimiser: Optimiser
) -> Statistics:
    """Take one gradient step of an actor-critic on a batch; the statistics are those before it."""
    logits, values = both_heads(network, batch.observations, workspace)
    by_logits, by_values = np.empty_like(logits), np.empty_like(values)
    statistics = actor_critic_loss(logits, values.reshape(-1), batch, objective, by_logits, by_values.reshape(-1))
    backward_heads(network, batch.observations, by_logits, by_values, workspace)
    descend(network, optimiser)
    return statistics


@compiled
def _copy_rows(source: Any, steps: Ints, target: Any) -> Any:
    """Copy rows ``steps`` of an array, where it has any, to the first ones of another; return these."""
    if len(source) == 0:
        return target[:0]
    for row in range(len(steps)):
        target[row] = source[steps[row]]
    return target[: len(steps)]


@compiled
def learn_in_passes(
    network: Network,
    batch: UpdateBatch,
    orders: Ints,
    size: int,
    objective: Objective,
    workspace: Workspace,
    optimiser: Optimiser,
) -> None:
    """Pass over a batch in minibatches of ``size`` steps, the last of which may be smaller, in each of some orders.

    Args:
        network: Actor and critic.
        batch: ``n`` steps.
        orders: ``(num_passes, n)`` permutations.
        size: Steps per minibatch.
        objective: Weights of the loss.
        workspace: For ``size`` rows.
        optimiser: Takes the steps.
    """
    own = UpdateBatch(
        np.empty_like(batch.observations[:size]),
        np.empty_like(batch.actions[:size]),
        np.empty_like(batch.advantages[:size]),
        np.empty_like(batch.targets[:size]),
        np.empty_like(batch.old_logp[:size]),
        np.empty_like(batch.old_logits[:size]),
        np.empty_like(batch.legal[:size]),
        np.empty_like(batch.imitation[:size]),
        np.empty_like(batch.bonus[:size]),
    )
    for turn in range(len(orders)):
        for start in range(0, orders.shape[1], size):
            steps = orders[turn, start : start + size]
            minibatch = UpdateBatch(
                _copy_rows(batch.observations, steps, own.observations),
                _copy_rows(batch.actions, steps, own.actions),
                _copy_rows(batch.advantages, steps, own.advantages),
                _copy_rows(batch.targets, steps, own.targets),
                _copy_rows(batch.old_logp, steps, own.old_logp),
                _copy_rows(batch.old_logits, steps, own.old_logits),
                _copy_rows(batch.legal, steps, own.legal),
                _copy_rows(batch.imitation, steps, own.imitation),
                _copy_rows(batch.bonus, steps, own.bonus),
            )
            learn(network, minibatch, objective, workspace, optimiser)


@compiled
def _best_legal(scores: Floats32, legal: Bools, row: int) -> int:
    best = -1
    for action in range(scores.shape[1]):
        is_legal = len(legal) == 0 or legal[row, action]
        if is_legal and (best < 0 or scores[row, action] > scores[row, best]):
            best = action
    return max(best, 0)


@compiled
def td_targets(
    network: Network, target: Network, batch: Transitions, gamma: np.float32, double_q: bool, workspace: Workspace
) -> Floats32:
    """Return r + γ·Q_target(s', a*), ``(B,)``, a* the best legal action by the online (double) or target network."""
    following = dueling(target, batch.next_observations, workspace)
    chooser = dueling(network, batch.next_observations, workspace) if double_q else following
    targets = batch.rewards.copy()
    for row in range(len(targets)):
        if not batch.terminated[row]:
            targets[row] += gamma * following[row, _best_legal(chooser, batch.next_legal, row)]
    return targets


@compiled
def learn_transitions(
    network: Network,
    target: Network,
    drawn: Drawn,
    objective: QObjective,
    workspace: Workspace,
    optimiser: Optimiser,
) -> LearntTransitions:
    """Take one gradient step of DQN on a batch of a replay buffer; what is returned is from before it."""
    batch = gather(drawn)
    targets = td_targets(network, target, batch, objective.gamma, objective.double_q, workspace)
    q_values = dueling(network, batch.observations, workspace)
    by_q = np.empty_like(q_values)
    td_loss(q_values, batch.actions, targets, objective.huber, by_q)
    if objective.margin.better > _ZERO:
        advised = np.where(batch.consulted, batch.actions, -1)
        add_margin(q_values, batch.legal, advised, targets, objective.margin, by_q)
    if len(batch.imitation):
        add_imitation(q_values, batch.legal, batch.imitation, objective.margin.temperature, ALWAYS, by_q)
    backward_dueling(network, batch.observations, by_q, True, workspace)
    descend(network, optimiser)
    taken = np.empty_like(targets)
    for row in range(len(taken)):
        taken[row] = q_values[row, batch.actions[row]]
    return LearntTransitions(taken, targets)
