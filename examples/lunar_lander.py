"""Gymnasium's LunarLander in words; needs `pip install box2d`. Try `--task examples.lunar_lander:LunarLanderTask`."""

from types import SimpleNamespace

import numpy as np
from gymnasium.envs.box2d.lunar_lander import heuristic

from rllib_plugins.tasks import Task

DISCRETE = SimpleNamespace(unwrapped=SimpleNamespace(continuous=False), continuous=False)


class LunarLanderTask(Task):
    """The environment unpickles by its constructor: a restored trial begins fresh episodes."""

    name = "lunar_lander"
    env_id = "LunarLander-v3"
    actions = ("wait", "left", "main", "right")
    num_env_steps = 200_000
    hint = "Keep upright, steer towards the middle, and fire the main engine when you fall fast."
    rules = "Land softly on the pad at x 0, y 0. left and right fire the side engines and turn you, main pushes up."

    def describe(self, o):
        """Position, speed, angle and legs."""
        legs = f"legs down: {int(o[6] + o[7])}"
        return f"x {o[0]:.2f}, y {o[1]:.2f}, speed {o[2]:.2f} {o[3]:.2f}, angle {o[4]:.2f} {o[5]:+.2f}, {legs}"

    def oracle(self, observation):
        """Gymnasium's own controller."""
        return np.eye(4)[heuristic(DISCRETE, observation)]
