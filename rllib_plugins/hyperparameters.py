"""Default hyperparameters per algorithm and task, by RLlib's own names. Knows no Ray.

They are tuned for the untutored student, so that no tutor wins against a straw man; a tutored student uses the same.

Where they come from. Blackjack: a random search over learning rate, batch, γ, λ, entropy, optimiser, target network and
ε-schedule, untutored, 30 000 env steps, 3 seeds each, evaluated exactly every 1 000 env steps; the settings with the
largest mean return over training are kept (PPO: 20 settings, its own defaults were best; A2C: 24; DQN: 12, of which
the best that makes one update per vector step). Other tasks: the defaults of the algorithm's config, not searched.
"""

from __future__ import annotations

from typing import Any

from rllib_plugins.config import Algorithm

_PER_TASK: dict[tuple[Algorithm, str], dict[str, Any]] = {
    ("a2c", "blackjack"): {
        "lr": 7e-4,
        "train_batch_size_per_learner": 40,
        "gamma": 0.95,
        "lambda_": 0.95,
        "entropy_coeff": 0.01,
        "standardize_advantages": True,
    },
    ("dqn", "blackjack"): {
        "lr": 1e-3,
        "train_batch_size_per_learner": 64,
        "gamma": 1.0,
        "target_network_update_freq": 200,
        "num_steps_sampled_before_learning_starts": 200,
        "epsilon": [(0, 1.0), (7_500, 0.02)],
        "double_q": False,
        "dueling": True,
        "td_error_loss_fn": "mse",
    },
}


def default_hyperparameters(algorithm: Algorithm, task: str) -> dict[str, Any]:
    """What an algorithm's config is changed by on a task; nothing for a task that was not searched.

    Args:
        algorithm: dqn, ppo or a2c.
        task: Name of the task.
    """
    return dict(_PER_TASK.get((algorithm, task), {}))
