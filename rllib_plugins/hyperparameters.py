"""Hold the default hyperparameters per algorithm and task, by RLlib's own names.

They are tuned for the untutored student, so that no tutor wins against a straw man; a tutored student uses the same.

Where they come from. Blackjack: a random search over learning rate, batch, γ, λ, entropy, optimiser, target network and
ε-schedule, untutored, 30 000 env steps, 3 seeds each, evaluated exactly every 1 000 env steps; the settings with the
largest mean return over training are kept (PPO: 20 settings, its own defaults were best; A2C: 24; DQN: 12, of which
the best that makes one update per vector step). Snake (``features``) and Connect Four (PPO and DQN; random opponent):
the same search, 12 settings over 20 000 and 9 over 30 000 env steps, 2 seeds each, 20 evaluations, beside the config's
defaults, which were best for PPO on Snake. A2C on Connect Four: against the greedy opponent, seeds 100 and 101, 100,000
env steps, where it ended above the config's defaults. DQN's imitation_temperature there, which makes no difference
without a tutor: among 0.2, 0.1, 0.03 and 0.01, on the same seeds. CartPole: 10 settings over 15,000 env steps, seeds
100 and 101, 31 evaluations, the defaults among them. Other tasks: those defaults, not searched.
"""

from __future__ import annotations

from typing import Any

from rllib_plugins.algorithms.registry import Algorithm

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
    ("a2c", "snake"): {
        "lr": 5e-3,
        "train_batch_size_per_learner": 80,
        "gamma": 0.9,
        "lambda_": 0.95,
        "entropy_coeff": 0.01,
        "standardize_advantages": True,
    },
    ("dqn", "snake"): {
        "lr": 2.5e-3,
        "target_network_update_freq": 100,
        "epsilon": [(0, 1.0), (1_000, 0.02)],
        "double_q": False,
    },
    ("ppo", "cart_pole"): {
        "lr": 2.5e-3,
        "train_batch_size_per_learner": 1_024,
        "minibatch_size": 128,
        "num_epochs": 10,
        "gamma": 0.99,
        "lambda_": 0.95,
        "entropy_coeff": 0.0,
    },
    ("a2c", "cart_pole"): {
        "lr": 2e-3,
        "train_batch_size_per_learner": 128,
        "gamma": 0.99,
        "lambda_": 1.0,
        "entropy_coeff": 0.0,
        "standardize_advantages": True,
    },
    ("dqn", "cart_pole"): {
        "lr": 2.3e-3,
        "train_batch_size_per_learner": 64,
        "gamma": 0.98,
        "target_network_update_freq": 1_000,
        "num_steps_sampled_before_learning_starts": 1_000,
        "epsilon": [(0, 1.0), (1_500, 0.02)],
        "double_q": False,
        "dueling": True,
    },
    ("ppo", "connect_four"): {
        "lr": 2.5e-3,
        "minibatch_size": 128,
        "num_epochs": 4,
        "gamma": 0.9,
    },
    ("a2c", "connect_four"): {
        "lr": 2e-3,
        "gamma": 0.9,
        "lambda_": 0.95,
        "standardize_advantages": True,
    },
    ("dqn", "connect_four"): {
        "lr": 5e-4,
        "gamma": 0.95,
        "target_network_update_freq": 1_000,
        "epsilon": [(0, 1.0), (1_000, 0.05)],
        "double_q": False,
        "dueling": True,
        "imitation_temperature": 0.03,
    },
}


def default_hyperparameters(algorithm: Algorithm, task: str) -> dict[str, Any]:
    """Return what an algorithm's config is changed by on a task; nothing for a task that was not searched.

    Args:
        algorithm: dqn, ppo or a2c.
        task: Name of the task.
    """
    return dict(_PER_TASK.get((algorithm, task), {}))
