"""What the student benchmarks share: the same settings for our students and for Stable-Baselines3's, and their runs.

The peer gets what its users get from its documentation: a ``DummyVecEnv`` (without the monitoring wrapper, which would
slow it) over the task's single flat environment, and networks, batches and rates equal to ours.
"""

from __future__ import annotations

import argparse
import importlib
import time
from typing import Any

from benchmarks.shared.cartpole import CARTPOLE

TASKS = {"blackjack": "blackjack", "cartpole": CARTPOLE, "cart_pole": "cart_pole", "snake": "snake"}
"""Tasks by name: ``cartpole`` steps its environments one after the other for both sides, ``cart_pole`` is ours."""
HIDDEN = 64
WARM_UP = 4_096
"""Env steps before the first that counts: by then a student has updated, and its machine code and memory are loaded."""

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


def our_config(algorithm: str, task: str, num_envs: int, hidden: int = HIDDEN, **fields: Any) -> Any:
    """A trial of ours at ``SETTINGS``; the fields are those of ``StudentConfig``."""
    from rllib_plugins.config import StudentConfig

    fields = {"num_env_steps": 40_000, "seed": 0} | fields
    hyperparameters = our_hyperparameters(algorithm, num_envs, fields["num_env_steps"])
    hyperparameters["model_config"] |= {"fcnet_hiddens": [hidden, hidden]}
    return StudentConfig(
        algorithm=algorithm, task=TASKS[task], num_envs=num_envs, hyperparameters=hyperparameters, **fields
    )


def peer_model(algorithm: str, task: str, num_envs: int, seed: int = 0, package: str = "stable_baselines3") -> Any:
    """A peer at ``SETTINGS``; its logger, which would leave a folder per run, writes nothing.

    Args:
        algorithm: By our name.
        task: One of ``TASKS``.
        num_envs: Environments.
        seed: Its seed.
        package: ``stable_baselines3``, or ``sbx``, which has no A2C.
    """
    from stable_baselines3.common.logger import Logger

    model = _make_peer(algorithm, task, num_envs, seed, importlib.import_module(package))
    model.set_logger(Logger(folder=None, output_formats=[]))
    return model


def _make_peer(algorithm: str, task: str, num_envs: int, seed: int, package: Any) -> Any:
    import torch
    from stable_baselines3.common.vec_env import DummyVecEnv

    from rllib_plugins.tasks import load_task

    torch.set_num_threads(1)
    made = load_task(TASKS[task])
    env = DummyVecEnv([made.make] * num_envs)
    s = SETTINGS[algorithm]
    common: dict[str, Any] = {"learning_rate": s["lr"], "gamma": s["gamma"], "seed": seed, "device": "cpu"}
    if algorithm == "ppo":
        return package.PPO(
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
        return package.A2C(
            "MlpPolicy",
            env,
            n_steps=s["steps"],
            gae_lambda=s["lambda_"],
            policy_kwargs={"net_arch": [HIDDEN, HIDDEN]},
            **common,
        )
    return package.DQN(
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

    def __init__(self, config: Any, num_env_steps: int, warm_up: int = WARM_UP) -> None:
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

    def __init__(self, model: Any, num_env_steps: int, warm_up: int = WARM_UP) -> None:
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


class OurCell:
    """Some seeds of one student, each trained in turn; a call gives env steps of all of them per second.

    Args:
        configs: Of the seeds' trials.
        num_env_steps: Env steps that each trains for in a call.
    """

    def __init__(self, configs: list[Any], num_env_steps: int) -> None:
        self._runs = [OurRun(config, num_env_steps) for config in configs]

    def __call__(self) -> float:
        """Env steps per second of this process's own time."""
        return len(self._runs) / sum(1.0 / run() for run in self._runs)

    def close(self) -> None:
        """Stops the students."""
        for run in self._runs:
            run.close()


def main() -> None:
    """Trains some seeds of PPO on CartPole from nothing, one after the other, as a sweep's worker does."""
    from rllib_plugins.trial import build_algorithm, ensure_ray

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--num-envs", type=int, default=8)
    parser.add_argument("--num-env-steps", type=int, default=40_000)
    parser.add_argument("--num-seeds", type=int, default=1)
    args = parser.parse_args()
    ensure_ray()
    for seed in range(args.num_seeds):
        algorithm = build_algorithm(our_config("ppo", "cart_pole", args.num_envs, seed=seed))
        algorithm.train_to(args.num_env_steps)
        print(f"seed {seed}: return_mean {algorithm.return_mean():.1f}", flush=True)
        algorithm.stop()


if __name__ == "__main__":
    main()
