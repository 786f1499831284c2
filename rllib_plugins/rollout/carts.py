"""CartPole as a student plays it by itself: whole vector steps, the environments' included, in one call."""

from __future__ import annotations

from typing import NamedTuple

from rllib_plugins.compiled import compiled
from rllib_plugins.envs.cart_pole_rules import push
from rllib_plugins.rollout.acting import Actor, Episodes, Steps, act, note
from rllib_plugins.rollout.arrays import NO_MASKS
from rllib_plugins.tasks.cart_pole_vector import Carts, begin


class Played(NamedTuple):
    """Say how far carts were played.

    Attributes:
        stop: The vector step to go on with.
        is_cut: An episode was cut off in the one before it.
        is_used_up: A cart has no start left.
        is_sound: All distributions were valid.
    """

    stop: int
    is_cut: bool
    is_used_up: bool
    is_sound: bool


@compiled
def play(actor: Actor, steps: Steps, start: int, stop: int, carts: Carts, episodes: Episodes) -> Played:
    """Make vector steps from ``start`` on, up to ``stop`` or until Python has something to do.

    That is once an episode was cut off, whose last observation is then in ``carts.finals``, and once a cart has used
    up its starts.

    Args:
        actor: What the student acts by.
        steps: Output.
        start: First vector step.
        stop: End of the vector steps, exclusive.
        carts: The environments; every cart has a start left.
        episodes: Output.
    """
    for t in range(start, stop):
        is_sound = act(actor, steps, t, carts.observations, NO_MASKS)
        push(carts.states, carts.lengths, steps.actions[t], carts.finals, steps.terminated[t], steps.truncated[t])
        has_more = True
        for row in range(len(carts.lengths)):
            if steps.terminated[t, row] or steps.truncated[t, row]:
                has_more = begin(carts, row) and has_more
            for i in range(carts.states.shape[1]):
                carts.observations[row, i] = carts.states[row, i]
        num_cut = note(steps, t, carts.observations, carts.finals, carts.rewards, episodes)
        if num_cut or not has_more or not is_sound:
            return Played(t + 1, num_cut > 0, not has_more, is_sound)
    return Played(stop, False, False, True)
