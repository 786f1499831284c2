"""Mistakes in a student's configuration are named before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.algorithms.dqn.dqn import DQNConfig
from rllib_plugins.algorithms.ppo.ppo import PPOConfig
from rllib_plugins.algorithms.registry import ALGORITHMS, make_config
from rllib_plugins.config import StudentConfig
from rllib_plugins.hyperparameters import default_hyperparameters
from rllib_plugins.trial import algorithm_config, apply_hyperparameters
from tutor_service.errors import UserError


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("task", ["blackjack", "snake", "connect_four", "somewhere:Else"])
def test_default_hyperparameters_are_fields_of_the_config(algorithm, task: str):
    config = make_config(algorithm)
    apply_hyperparameters(config, default_hyperparameters(algorithm, task))


@pytest.mark.parametrize(
    ("algorithm", "field", "value"),
    [("ppo", "num_epochs", 20), ("dqn", "training_intensity", 16.0), ("a2c", "train_batch_size_per_learner", 16)],
)
def test_more_updates_are_more_passes_more_batches_or_smaller_rollouts(algorithm, field: str, value: float):
    student = StudentConfig(algorithm=algorithm, task="somewhere:Else", updates_factor=2)
    assert getattr(algorithm_config(student), field) == value


def test_an_unknown_hyperparameter_is_named_with_its_neighbour():
    with pytest.raises(UserError, match=r"gama.*'gamma'"):
        apply_hyperparameters(PPOConfig(), {"gama": 0.9})
    with pytest.raises(UserError, match=r"fcnet_hidden.*'fcnet_hiddens'"):
        apply_hyperparameters(PPOConfig(), {"model_config": {"fcnet_hidden": [8]}})


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("lr", float("nan"), "a number of at least 0"),
        ("lr", float("inf"), "a number of at least 0"),
        ("lr", -0.001, "a number of at least 0, e.g. 0.001"),
        ("gamma", 1.5, "a number from 0 to 1, e.g. 0.99"),
        ("minibatch_size", 0, "a number of at least 1"),
        ("kl_target", float("inf"), "a finite number"),
    ],
)
def test_a_hyperparameter_out_of_range_is_refused(name: str, value: float, remedy: str):
    with pytest.raises(UserError, match=rf"{name} = {value}: give {remedy}"):
        apply_hyperparameters(PPOConfig(), {name: value})


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("lr", None, "lr = None: it is a number, e.g. "),
        ("lr", True, "lr = True: it is a number"),
        ("lr", "1e-4 ", "lr = '1e-4 ': it is a number"),
        ("model_config", {"fcnet_hiddens": "64,64"}, r"model_config.fcnet_hiddens = '64,64': it is e.g. \["),
    ],
)
def test_a_hyperparameter_of_another_kind_is_refused(name: str, value: Any, shown: str):
    with pytest.raises(UserError, match=shown):
        apply_hyperparameters(PPOConfig(), {name: value})
    apply_hyperparameters(PPOConfig(), {"grad_clip": None, "lr": [[0, 0.1], [1_000, 0.01]]})


def test_hyperparameters_arrive():
    student = StudentConfig(
        algorithm="dqn",
        task="blackjack",
        num_envs=4,
        seed=7,
        hyperparameters={"lr": 0.5, "model_config": {"fcnet_hiddens": [8]}, "replay_buffer_config": {"capacity": 9}},
    )
    config = algorithm_config(student)
    assert (config.lr, config.num_envs_per_env_runner, config.seed) == (0.5, 4, 7)
    assert config.model_config["fcnet_hiddens"] == [8]
    assert config.replay_buffer_config["capacity"] == 9
    assert config.replay_buffer_config["type"] == "EpisodeReplayBuffer"


@pytest.mark.parametrize(("field", "value"), [("n_step", 3), ("num_atoms", 51), ("noisy", True)])
def test_what_the_lean_dqn_does_not_have_is_refused(field: str, value: object):
    config = DQNConfig().tutoring(task="blackjack")
    setattr(config, field, value)
    if field == "n_step":
        config.rollout_fragment_length = 4
    with pytest.raises(UserError, match=field):
        config.validate()


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_none_is_refused(temperature: float):
    config = DQNConfig().tutoring(task="blackjack")
    config.imitation_temperature = temperature
    with pytest.raises(UserError, match=f"imitation_temperature={temperature}.*above 0"):
        config.validate()


def test_env_runners_share_what_one_would_step():
    """A rollout and its updates are the same, however many processes fill it."""
    one, two = (
        algorithm_config(StudentConfig(algorithm="ppo", task="blackjack", num_env_runners=number)) for number in (0, 2)
    )
    assert (one.num_envs_per_env_runner, two.num_envs_per_env_runner) == (8, 4)
    assert one.num_trial_envs == two.num_trial_envs == 8 and one.rollout_steps == two.rollout_steps
    two.validate()
    with pytest.raises(ValidationError, match=r"updates_factor and hyperparameters\.training_intensity of a stock dqn"):
        StudentConfig(algorithm="dqn", task="blackjack", rollout="stock", updates_factor=2, num_env_runners=2)
    for use in ("pool", "handover"):
        with pytest.raises(UserError, match=f"advice.use = '{use}' with num_env_runners = 2"):
            StudentConfig(
                algorithm="ppo", task="blackjack", tutor="oracle", num_env_runners=2, advice=AdviceConfig(use=use)
            )
    with pytest.raises(ValidationError, match="num_envs_per_env_runner follows from num_envs"):
        StudentConfig(algorithm="ppo", task="blackjack", hyperparameters={"num_envs_per_env_runner": 2})


def test_distributed_and_multi_agent_are_refused_with_the_reason():
    with pytest.raises(UserError, match=r"num_env_runners=2 was set after tutoring"):
        PPOConfig().tutoring(task="blackjack").env_runners(num_env_runners=2).validate()
    for rollout in ("lean", "stock"):
        with pytest.raises(UserError, match="num_learners=1"):
            PPOConfig().learners(num_learners=1).tutoring(task="blackjack", rollout=rollout).validate()
    with pytest.raises(UserError, match="multi-agent"):
        PPOConfig().tutoring(task="blackjack").multi_agent(policies={"a", "b"}, policy_mapping_fn=str).validate()
    with pytest.raises(UserError, match="tutoring"):
        PPOConfig().environment("CartPole-v1").validate()


def test_a_rollout_holds_the_train_batch_rounded_up():
    config = PPOConfig().training(train_batch_size_per_learner=100, minibatch_size=50)
    assert config.env_runners(num_envs_per_env_runner=8).rollout_steps == 13
    assert config.env_runners(num_envs_per_env_runner=128).rollout_steps == 1


def test_a_dqn_rollout_holds_whole_fragments():
    config = DQNConfig().env_runners(rollout_fragment_length=5)
    assert config.rollout_steps == 20


def test_epsilon_follows_its_schedule():
    config = DQNConfig().training(epsilon=[(0, 1.0), (100, 0.2)])
    assert [config.epsilon_at(step) for step in (0, 50, 100, 1000)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    assert DQNConfig().training(epsilon=0.3).epsilon_at(5) == 0.3


def test_what_the_stock_rollout_would_do_otherwise_is_refused():
    fields = {"algorithm": "ppo", "task": "blackjack", "rollout": "stock"}
    fixed = AdviceConfig(trust="fixed")
    with pytest.raises(UserError, match=r"advice\.use = 'distil'.*'coin'.*'fixed'.*rollout: lean"):
        StudentConfig(**fields, tutor="oracle")
    with pytest.raises(UserError, match=r"advice\.trust = 'earned'"):
        StudentConfig(**fields, tutor="oracle", advice=AdviceConfig(use="coin"))
    with pytest.raises(UserError, match=r"advice\.use"):
        PPOConfig().tutoring(task="blackjack", tutor="oracle", rollout="stock").validate()
    assert StudentConfig(**fields, tutor="oracle", advice=fixed).advice == fixed
    assert StudentConfig(**fields).tutor == "none"
