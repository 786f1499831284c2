"""The students' losses, each written once: its value, and its gradient by the network's outputs.

The array learners and RLlib's own path (through ``as_torch_loss``) both call these functions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rllib_plugins.array_types import Bools, Floats32, Ints
from rllib_plugins.compiled import compiled
from rllib_plugins.rollout.arrays import NO_ROWS

_ZERO, _ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)
_LEAST = np.finfo(np.float32).min
ALWAYS = np.float32(2)
"""In place of ``until``: a step is imitated however probable the advised action is."""


class UpdateBatch(NamedTuple):
    """Hold ``B`` steps of an actor-critic rollout.

    Attributes:
        observations: ``(B, obs_dim)``.
        actions: ``(B,)`` int64.
        advantages: ``(B,)``, standardised where the config says so, times ρ where advice is weighted.
        targets: ``(B,)`` value targets.
        old_logp: ``(B,)`` log π_old of the executed actions: the centre of PPO's ratio.
        old_logits: ``(B, A)`` for PPO's KL term, or ``NO_ROWS``.
        legal: ``(B, A)``, or ``NO_MASKS``.
        imitation: ``(B, A)``: Σ_a imitation·log π is what imitation maximises; or ``NO_ROWS``.
        bonus: ``(B, A)``: added to the logits, so that π is the policy of both together; or ``NO_ROWS``.
    """

    observations: Floats32
    actions: Ints
    advantages: Floats32
    targets: Floats32
    old_logp: Floats32
    old_logits: Floats32
    legal: Bools
    imitation: Floats32
    bonus: Floats32 = NO_ROWS


class Objective(NamedTuple):
    """Weigh the parts of an actor-critic loss; every field is a ``np.float32``.

    Attributes:
        clip: ε of PPO's ratio; below 0: A2C's plain policy gradient.
        vf_clip: Largest squared error of a value that has a gradient, by RLlib's rule.
        vf_coeff: Weight of the squared error of the values.
        entropy_coeff: Weight of the entropy bonus.
        kl_coeff: Weight of KL(π_old ‖ π), where a batch has ``old_logits``.
        until: Probability of the advised action from which on a step is not imitated; above 1: always.
    """

    clip: np.float32
    vf_clip: np.float32
    vf_coeff: np.float32
    entropy_coeff: np.float32
    kl_coeff: np.float32
    until: np.float32


class Statistics(NamedTuple):
    """Hold the loss of a batch and its parts, each a mean over steps, before their weights."""

    loss: float
    policy_loss: float
    vf_loss: float
    entropy: float
    kl: float


class LossGradients(NamedTuple):
    """Hold a loss and its gradients by logits ``(B, A)`` and values ``(B,)``."""

    statistics: Statistics
    by_logits: Floats32
    by_values: Floats32


class Margin(NamedTuple):
    """Weigh DQN's soft margin on advised actions; every field is a ``np.float32``.

    Attributes:
        temperature: T, in units of Q.
        until: softmax(Q/T) of the advised action from which on a step has no margin; above 1: always.
        better: Weight where the target exceeds the student's best Q.
        worse: Weight elsewhere.
    """

    temperature: np.float32
    until: np.float32
    better: np.float32
    worse: np.float32


@compiled
def log_softmax(logits: Floats32, legal: Bools, row: int, temperature: np.float32, out: Floats32) -> None:
    """Write log softmax(logits/T) over the legal actions of a row into ``out`` ``(A,)``.

    Illegal actions get the least finite float, so that 0·log π stays 0.
    """
    best, total = np.float32(-np.inf), _ZERO
    for action in range(len(out)):
        if (len(legal) == 0 or legal[row, action]) and not logits[row, action] <= best:  # NaN stays
            best = logits[row, action]
    for action in range(len(out)):
        out[action] = _LEAST
        if len(legal) == 0 or legal[row, action]:
            out[action] = max((logits[row, action] - best) / temperature, _LEAST)
            total += np.exp(out[action])
    total = np.log(total)
    for action in range(len(out)):
        if len(legal) == 0 or legal[row, action]:
            out[action] = max(out[action] - total, _LEAST)


@compiled
def actor_critic_loss(
    logits: Floats32,
    values: Floats32,
    batch: UpdateBatch,
    objective: Objective,
    by_logits: Floats32,
    by_values: Floats32,
) -> Statistics:
    """Compute the loss of PPO or A2C and its gradient.

    PPO: the clipped surrogate (Schulman et al. 2017, arXiv 1707.06347, eq. 7) around π_old; ρ is in the advantages.
    A2C: −A·log π. Both add c_v·(V − target)² − c_e·H(π) + imitation + c_k·KL(π_old ‖ π). With z the logits:
    ∂log π(a)/∂z = 1[a] − π, ∂H/∂z = −π·(log π + H), ∂(−Σ_a y_a·log π)/∂z = π·Σ_a y_a − y, ∂KL/∂z = π − π_old.

    Args:
        logits: ``(B, A)``; a batch's ``bonus`` is added in place.
        values: ``(B,)``.
        batch: The steps.
        objective: Weights of the parts.
        by_logits: Output, ``(B, A)``.
        by_values: Output, ``(B,)``.
    """
    size, num_actions = logits.shape
    if len(batch.bonus):
        logits += batch.bonus
    share = _ONE / np.float32(size)
    scratch = np.empty((3, num_actions), np.float32)
    logp, policy, old_logp = scratch[0], scratch[1], scratch[2]
    policy_loss: Any = 0.0
    vf_loss = entropy_sum = kl_sum = imitation_sum = policy_loss
    for row in range(size):
        log_softmax(logits, batch.legal, row, _ONE, logp)
        action, advantage = batch.actions[row], batch.advantages[row]
        weight = advantage
        if objective.clip >= _ZERO:
            ratio = np.exp(logp[action] - batch.old_logp[row])
            clipped = min(max(ratio, _ONE - objective.clip), _ONE + objective.clip)
            policy_loss -= min(ratio * advantage, clipped * advantage)
            beyond = ratio > _ONE + objective.clip if advantage > _ZERO else ratio < _ONE - objective.clip
            weight = _ZERO if beyond else ratio * advantage
        else:
            policy_loss -= advantage * logp[action]
        entropy = _ZERO
        for other in range(num_actions):
            policy[other] = np.exp(logp[other])
            entropy -= policy[other] * logp[other]
        entropy_sum += entropy
        for other in range(num_actions):
            gradient = policy[other] * weight - (weight if other == action else _ZERO)
            gradient += objective.entropy_coeff * policy[other] * (logp[other] + entropy)
            by_logits[row, other] = gradient * share
        if len(batch.imitation):
            total = follows = _ZERO
            for other in range(num_actions):
                total += batch.imitation[row, other]
                follows += batch.imitation[row, other] * policy[other]
            if follows < objective.until * total:
                for other in range(num_actions):
                    imitation_sum -= batch.imitation[row, other] * logp[other]
                    by_logits[row, other] += (policy[other] * total - batch.imitation[row, other]) * share
        if len(batch.old_logits):
            log_softmax(batch.old_logits, batch.legal, row, _ONE, old_logp)
            for other in range(num_actions):
                old = np.exp(old_logp[other])
                kl_sum += old * (old_logp[other] - logp[other])
                by_logits[row, other] += (policy[other] - old) * objective.kl_coeff * share
        error = values[row] - batch.targets[row]
        vf_loss += min(error * error, objective.vf_clip)
        by_values[row] = _ZERO if error * error > objective.vf_clip else error * _TWO * objective.vf_coeff * share
    policy_loss, vf_loss, entropy_mean, kl = policy_loss / size, vf_loss / size, entropy_sum / size, kl_sum / size
    loss = policy_loss + objective.vf_coeff * vf_loss - objective.entropy_coeff * entropy_mean
    loss += objective.kl_coeff * kl + imitation_sum / size
    return Statistics(loss, policy_loss, vf_loss, entropy_mean, kl)


def loss_and_gradients(logits: Floats32, values: Floats32, batch: UpdateBatch, objective: Objective) -> LossGradients:
    """Call ``actor_critic_loss`` with arrays for its outputs."""
    by_logits, by_values = np.empty_like(logits), np.empty_like(values)
    return LossGradients(
        actor_critic_loss(logits, values, batch, objective, by_logits, by_values), by_logits, by_values
    )


@compiled
def td_loss(q_values: Floats32, actions: Ints, targets: Floats32, huber: bool, by_q: Floats32) -> None:
    """Write ∂/∂Q of the mean TD error, Huber's or squared, into ``by_q`` ``(B, A)``."""
    by_q[:] = _ZERO
    for row in range(len(actions)):
        error = q_values[row, actions[row]] - targets[row]
        if not huber:
            error *= _TWO
        elif abs(error) > _ONE:  # NaN stays
            error = np.sign(error)
        by_q[row, actions[row]] = error / np.float32(len(actions))


@compiled
def add_margin(
    q_values: Floats32,
    legal: Bools,
    advised: Ints,
    targets: Floats32,
    margin: Margin,
    by_q: Floats32,
) -> float:
    """Add ∂/∂Q of the mean soft margin on advised actions, T·log Σ_a exp(Q(s, a)/T) − Q(s, a_T).

    It is T times the cross-entropy to softmax(Q/T), over legal actions, and its gradient is softmax(Q/T) − 1[a = a_T].

    Args:
        q_values: ``(B, A)``.
        legal: ``(B, A)``, or ``NO_MASKS``.
        advised: ``(B,)`` advised actions; −1 where a step has none.
        targets: ``(B,)`` targets of Q(s, a_T).
        margin: Weights.
        by_q: Output, ``(B, A)``, added to.

    Returns:
        The mean margin, weighted.
    """
    size, num_actions = q_values.shape
    share, loss = _ONE / np.float32(size), 0.0
    logp = np.empty(num_actions, np.float32)
    for row in range(size):
        if advised[row] < 0:
            continue
        log_softmax(q_values, legal, row, margin.temperature, logp)
        if np.exp(logp[advised[row]]) < margin.until:
            best = np.float32(-np.inf)
            for action in range(num_actions):
                if len(legal) == 0 or legal[row, action]:
                    best = max(best, q_values[row, action])
            weight = (margin.better if targets[row] > best else margin.worse) * share
            loss -= weight * margin.temperature * logp[advised[row]]
            for action in range(num_actions):
                by_q[row, action] += weight * np.exp(logp[action])
            by_q[row, advised[row]] -= weight
    return loss


@compiled
def add_imitation(
    logits: Floats32, legal: Bools, advice: Floats32, temperature: np.float32, until: np.float32, by_logits: Floats32
) -> int:
    """Add T·∂/∂logits of the mean cross-entropy of softmax(logits/T) to the advice; all arrays ``(B, A)``.

    A step has no part in it once the student follows the advice with probability ``until``. Imitation without end would
    make it certain of what the tutor says: then nothing contrasts with the advice, and a mediocre tutor's student
    neither explores nor finds out.

    Returns:
        The number of steps that have a part in it.
    """
    share, num_open = _ONE / np.float32(len(logits)), 0
    logp = np.empty(logits.shape[1], np.float32)
    for row in range(len(logits)):
        log_softmax(logits, legal, row, temperature, logp)
        total = follows = _ZERO
        for action in range(len(logp)):
            total += advice[row, action]
            follows += advice[row, action] * np.exp(logp[action])
        if follows < until * total:
            num_open += 1
            for action in range(len(logp)):
                by_logits[row, action] += (np.exp(logp[action]) * total - advice[row, action]) * share
    return num_open
