"""Environments that this project adds to Gymnasium, registered when this package is imported.

Knows Gymnasium and numpy; must not know tasks, tutors or students.
"""

from __future__ import annotations

import gymnasium as gym

gym.register(
    id="LLMTutors/ConnectFour-v0",
    entry_point="rllib_plugins.envs.connect_four:ConnectFourEnv",
    vector_entry_point="rllib_plugins.envs.connect_four_vector:ConnectFourVectorEnv",
)
gym.register(
    id="LLMTutors/Snake-v0",
    entry_point="rllib_plugins.envs.snake:SnakeEnv",
    vector_entry_point="rllib_plugins.envs.snake_vector:SnakeVectorEnv",
)
