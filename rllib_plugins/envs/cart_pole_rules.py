"""Gymnasium's CartPole in machine code: the same numbers, to the last bit, for a vector of carts."""

from __future__ import annotations

import math

from rllib_plugins.array_types import Bools, Floats, Floats32, Ints
from rllib_plugins.compiled import compiled

MAX_STEPS = 500
"""Length at which ``CartPole-v1`` cuts an episode."""
START = 0.05
"""Largest absolute value of each of the four numbers that an episode starts with."""

_GRAVITY, _POLE_MASS, _FORCE, _TAU_S = 9.8, 0.1, 10.0, 0.02
_TOTAL_MASS = _POLE_MASS + 1.0
_HALF_LENGTH = 0.5
_POLE_MOMENT = _POLE_MASS * _HALF_LENGTH
_WIDEST_ANGLE = 12 * 2 * math.pi / 360
_FARTHEST = 2.4


@compiled
def push(
    states: Floats,
    lengths: Ints,
    actions: Ints,
    observations: Floats32,
    terminated: Bools,
    truncated: Bools,
) -> int:
    """Push every cart for one step; each step pays 1.

    Args:
        states: ``(n, 4)`` place, speed, angle and angular speed; changed in place.
        lengths: ``(n,)`` steps of the running episodes; changed in place.
        actions: ``(n,)``, 0 to the left and 1 to the right.
        observations: Output, ``(n, 4)``.
        terminated: Output, ``(n,)``.
        truncated: Output, ``(n,)``.

    Returns:
        The number of episodes that ended; −1, and nothing is done, where an action is neither 0 nor 1.
    """
    num_ended = 0
    for row in range(len(states)):
        if actions[row] < 0 or actions[row] > 1:
            return -1
    for row in range(len(states)):
        x, speed, angle, spin = states[row, 0], states[row, 1], states[row, 2], states[row, 3]
        force = _FORCE if actions[row] == 1 else -_FORCE
        cosine, sine = math.cos(angle), math.sin(angle)
        temp = (force + _POLE_MOMENT * (spin * spin) * sine) / _TOTAL_MASS
        spin_change = (_GRAVITY * sine - cosine * temp) / (
            _HALF_LENGTH * (4.0 / 3.0 - _POLE_MASS * (cosine * cosine) / _TOTAL_MASS)
        )
        speed_change = temp - _POLE_MOMENT * spin_change * cosine / _TOTAL_MASS
        states[row, 0] = x = x + _TAU_S * speed
        states[row, 1] = speed + _TAU_S * speed_change
        states[row, 2] = angle = angle + _TAU_S * spin
        states[row, 3] = spin + _TAU_S * spin_change
        lengths[row] += 1
        terminated[row] = abs(x) > _FARTHEST or abs(angle) > _WIDEST_ANGLE
        truncated[row] = lengths[row] >= MAX_STEPS
        num_ended += terminated[row] or truncated[row]
        for i in range(4):
            observations[row, i] = states[row, i]
    return num_ended
