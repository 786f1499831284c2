"""CartPole as a task: the second game of the student benchmarks, which knows no tutor of its own."""

from __future__ import annotations

from typing import Any, ClassVar

from rllib_plugins.tasks import Task

CARTPOLE = "benchmarks.shared.cartpole:CartPole"
"""Name of the task in a ``StudentConfig``."""


class CartPole(Task):
    """Gymnasium's ``CartPole-v1``, one environment after the other: no array code, so that peers step the same."""

    name = "cartpole"
    env_id = "CartPole-v1"
    env_kwargs: ClassVar[dict[str, Any]] = {}
    rules = "Balance a pole on a cart. Push the cart left or right so that the pole stays upright."
    actions = ("left", "right")

    def describe(self, observation: Any) -> str:
        """Position, speed, angle and angular speed."""
        x, v, angle, spin = (float(number) for number in observation)
        return f"Cart at {x:.2f} moving {v:.2f}; pole at {angle:.3f} turning {spin:.2f}."
