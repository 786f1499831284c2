"""What the student benchmarks share: the same settings for our students and for Stable-Baselines3's, and their runs.

The peer gets what its users get from its documentation: a ``DummyVecEnv`` (without the monitoring wrapper, which would
slow it) over the task's single flat environment, and networks, batches and rates equal to ours.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.shared.cartpole import CARTPOLE

TASKS = {"blackjack": "blackjack", "cartpole": CARTPOLE}
HIDDEN = 64

SETTINGS: dict[str, dict[str, Any]] = {
    "ppo": {"lr": 3e-4, "batch": 2048, "minibatch": 64, "epochs": 10, "gamma": 0.99, "lambda_": 0.95},
    "a2c": {"lr": 7e-4, "steps": 5, "gamma": 0.99, "lambda_": 1.0},
    "dqn": {"lr": 1e-3, "batch": 64, "start": 500, "target": 500, "gamma": 0.99, "capacity": 50_000},
}
"""Settings that both sides run with: PPO's and A2C's are the peer's defaults."""


def our_hyperparameters(algorithm: str, num_envs: int, num_env_steps: int) -> dict[str, Any]:
    """``SETTINGS`` by RLlib's names."""
    s = SETTINGS[algorithm]
    if algorithm == "ppo":
        return {
            "lr": s["lr"],
            "train_batch_size_per_learner": s["batch"],
            "minibatch_size": s["minibatch"],
            "num_epochs": s["epochs"],
            "gamma": s["gamma"],
            "lambda_": s["lambda_"],
            "clip_param": 0.2,
            "vf_loss_coeff": 0.5,
            "entropy_coeff": 0.0,
            "grad_clip": 0.5,
            "optimizer": {"eps": 1e-5},
            "orthogonal_init": True,
            "model_config": {"fcnet_activation": "tanh"},
        }
    if algorithm == "a2c":
        return {
            "lr": s["lr"],
            "train_batch_size_per_learner": s["steps"] * num_envs,
            "gamma": s["gamma"],
            "lambda_": s["lambda_"],
            "entropy_coeff": 0.0,
            "vf_loss_coeff": 0.5,
            "grad_clip": 0.5,
            "standardize_advantages": False,
            "optimizer": {"type": "rmsprop", "alpha": 0.99, "eps": 1e-5},
            "orthogonal_init": True,
            "model_config": {"fcnet_activation": "tanh"},
        }
    return {
        "lr": s["lr"],
        "train_batch_size_per_learner": s["batch"],
        "num_steps_sampled_before_learning_starts": s["start"],
        "target_network_update_freq": s["target"],
        "gamma": s["gamma"],
        "epsilon": [(0, 1.0), (int(0.1 * num_env_steps), 0.05)],
        "double_q": False,
        "dueling": False,
        "grad_clip": 10,
        "replay_buffer_config": {"capacity": s["capacity"]},
        "model_config": {"fcnet_activation": "relu"},
    }


def our_config(
    algorithm: str, task: str, num_envs: int, num_env_steps: int = 40_000, seed: int = 0, **fields: Any
) -> Any:
    """A trial of ours at ``SETTINGS``."""
    from rllib_plugins.config import StudentConfig

    return StudentConfig(
        algorithm=algorithm,
        task=TASKS[task],
        num_envs=num_envs,
        num_env_steps=num_env_steps,
        seed=seed,
        hyperparameters=our_hyperparameters(algorithm, num_envs, num_env_steps),
        **fields,
    )


def peer_model(algorithm: str, task: str, num_envs: int, num_env_steps: int = 40_000, seed: int = 0) -> Any:
    """The peer at ``SETTINGS``; its logger, which would leave a folder per run, writes nothing."""
    from stable_baselines3.common.logger import Logger

    model = _make_peer(algorithm, task, num_envs, num_env_steps, seed)
    model.set_logger(Logger(folder=None, output_formats=[]))
    return model


def _make_peer(algorithm: str, task: str, num_envs: int, num_env_steps: int, seed: int) -> Any:
    import torch
    from stable_baselines3 import A2C, DQN, PPO
    from stable_baselines3.common.vec_env import DummyVecEnv

    from rllib_plugins.tasks import load_task

    torch.set_num_threads(1)
    made = load_task(TASKS[task])
    env = DummyVecEnv([made.make] * num_envs)
    s = SETTINGS[algorithm]
    common: dict[str, Any] = {"learning_rate": s["lr"], "gamma": s["gamma"], "seed": seed, "device": "cpu"}
    if algorithm == "ppo":
        return PPO(
            "MlpPolicy",
            env,
            n_steps=s["batch"] // num_envs,
            batch_size=s["minibatch"],
            n_epochs=s["epochs"],
            gae_lambda=s["lambda_"],
            policy_kwargs={"net_arch": [HIDDEN, HIDDEN]},
            **common,
        )
    if algorithm == "a2c":
        return A2C(
            "MlpPolicy",
            env,
            n_steps=s["steps"],
            gae_lambda=s["lambda_"],
            policy_kwargs={"net_arch": [HIDDEN, HIDDEN]},
            **common,
        )
    return DQN(
        "MlpPolicy",
        env,
        batch_size=s["batch"],
        buffer_size=s["capacity"],
        learning_starts=s["start"],
        train_freq=1,
        gradient_steps=1,
        target_update_interval=s["target"],
        exploration_fraction=0.1,
        exploration_initial_eps=1.0,
        exploration_final_eps=0.05,
        policy_kwargs={"net_arch": [HIDDEN, HIDDEN]},
        **common,
    )


class OurRun:
    """Our student, warmed up; each call trains on and gives env steps per second of this process's own time."""

    def __init__(self, config: Any, num_env_steps: int, warm_up: int = 1_000) -> None:
        from rllib_plugins.trial import build_algorithm, ensure_ray

        ensure_ray()
        self.algorithm = build_algorithm(config)
        self._num_env_steps = num_env_steps
        self.algorithm.train_to(warm_up)

    def __call__(self) -> float:
        """Env steps per second."""
        before, started = self.algorithm.num_env_steps, time.process_time()
        self.algorithm.train_to(before + self._num_env_steps)
        return (self.algorithm.num_env_steps - before) / (time.process_time() - started)

    def close(self) -> None:
        """Stops the student."""
        self.algorithm.stop()


class PeerRun:
    """The peer's student, warmed up."""

    def __init__(self, model: Any, num_env_steps: int, warm_up: int = 1_000) -> None:
        self.model = model
        self._num_env_steps = num_env_steps
        self.model.learn(warm_up)

    def __call__(self) -> float:
        """Env steps per second."""
        before, started = self.model.num_timesteps, time.process_time()
        self.model.learn(self._num_env_steps, reset_num_timesteps=False)
        return (self.model.num_timesteps - before) / (time.process_time() - started)

    def close(self) -> None:
        """Closes the environments."""
        self.model.env.close()
