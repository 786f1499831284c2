"""Students as trials: they learn, repeat themselves, survive a restore, and stay RLlib underneath."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import tree

from rllib_plugins import metrics
from rllib_plugins.advising.config import PAPER_ADVICE, AdviceConfig
from rllib_plugins.algorithms.registry import ALGORITHMS
from rllib_plugins.config import StudentConfig
from rllib_plugins.trial import StudentTrial, build_algorithm, ensure_ray, train


@pytest.fixture(scope="module", autouse=True)
def _ray():
    started = not ray.is_initialized()
    ensure_ray()
    yield
    if started:
        ray.shutdown()


def student(**fields: Any) -> StudentConfig:
    defaults = {"algorithm": "ppo", "task": "blackjack", "num_env_steps": 2_000, "eval_interval_steps": 500, "seed": 3}
    return StudentConfig(**(defaults | fields))


def run(trial: StudentTrial, count: int) -> list[dict[str, Any]]:
    """Results without what depends on the clock."""
    clock = ("env_steps_per_s", "eval/time_share", "advice/latency_ms")
    return [{k: v for k, v in trial.step().items() if k not in clock} for _ in range(count)]


def assert_same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert left.keys() == right.keys()
        different = {k: (left[k], right[k]) for k in left if not (left[k] == right[k] or left[k] != left[k])}
        assert not different


@pytest.mark.parametrize("tutor", ["none", "oracle+random:0.5"])
@pytest.mark.parametrize("use", ["distil", "coin", "clone", "kickstart", "shape", "handover", "pool", "observe"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_restored_trial_goes_on_as_if_never_stopped(algorithm, use: str, tutor: str, tmp_path: Path):
    config = student(algorithm=algorithm, tutor=tutor, advice=AdviceConfig(use=use)).model_dump()
    trial = StudentTrial(config=config)
    whole = run(trial, 5)
    trial.reset_config(config)  # the same actor, another trial: the same numbers
    halves = run(trial, 2)
    trial.save_checkpoint(str(tmp_path))
    run(trial, 1)  # what happens after the checkpoint is of no concern to it
    trial.cleanup()
    restored = StudentTrial(config=config)
    restored.load_checkpoint(str(tmp_path))
    halves += run(restored, 3)
    restored.cleanup()
    assert_same(whole, halves)
    assert [r[metrics.STEP_AXIS] for r in whole] == [0, 504, 1000, 1504, 2000]
    assert [r["done"] for r in whole] == [False] * 4 + [True]


@pytest.mark.parametrize("use", ["distil", "coin", "kickstart"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_restored_trial_goes_on_with_its_stand_in(algorithm, use: str, tmp_path: Path):
    advice = AdviceConfig(use=use, theta_frac=2.0, stand_in="ensemble", advice_budget=150)
    config = student(algorithm=algorithm, task="cart_pole", tutor="oracle", advice=advice).model_dump()
    trial = StudentTrial(config=config)
    whole = run(trial, 5)
    trial.reset_config(config)
    halves = run(trial, 3)
    trial.save_checkpoint(str(tmp_path))
    trial.cleanup()
    restored = StudentTrial(config=config)
    restored.load_checkpoint(str(tmp_path))
    halves += run(restored, 2)
    restored.cleanup()
    assert_same(whole, halves)
    assert halves[2]["advice/stand_in"] < halves[-1]["advice/stand_in"], "the model is at work after the restore"
    advised = halves[-1]["advice/consultations"] + halves[-1]["advice/stand_in"]
    assert advised > 2 * 150, "states do not come again here: without a model the budget is all that is advised"
    assert halves[-1]["advice/consultations"] - halves[-1]["advice/reused"] <= 150


def test_exploration_is_counted_alike_on_the_stock_rollout():
    algorithm = build_algorithm(
        student(algorithm="dqn", tutor="oracle", rollout="stock", advice=AdviceConfig(trust="fixed"))
    )
    algorithm.train_to(600)
    explorer = algorithm.explorer
    schedule = algorithm.env_runner.module.unwrapped().epsilon_schedule
    own_steps = algorithm.num_env_steps - explorer.num_consultations
    expected = algorithm.config.epsilon_at(own_steps)
    algorithm.stop()
    assert explorer.num_consultations > 200
    assert float(schedule.get_current_value()) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("tutor", ["none", "oracle"])
def test_a_tutor_does_not_use_up_the_students_exploration(tutor: str, monkeypatch: pytest.MonkeyPatch):
    algorithm = build_algorithm(student(algorithm="dqn", tutor=tutor, advice=AdviceConfig(use="coin")))
    asked: list[int] = []

    def epsilon_at(self: Any, steps: Any) -> Any:
        asked.extend(np.ravel(steps).tolist())  # of a student that acts alone those of a whole rollout
        return np.full(np.shape(steps), 0.5)

    monkeypatch.setattr(type(algorithm.config), "epsilon_at", epsilon_at)
    algorithm.train_to(400)
    consulted = algorithm.runner.core.num_consultations
    algorithm.stop()
    taken = [step for step in asked if step < 400]
    assert taken == sorted(taken) and taken[0] == 0
    assert 392 - consulted <= taken[-1] <= 400 - consulted
    assert (consulted > 100) == (tutor == "oracle")


@pytest.mark.parametrize("tutor", ["none", "oracle", "worst"])
def test_good_advice_is_learnt_from_before_there_is_enough_to_learn_from_otherwise(tutor: str):
    algorithm = build_algorithm(
        student(
            algorithm="dqn",
            tutor=tutor,
            advice=AdviceConfig(use="coin"),
            hyperparameters={"num_steps_sampled_before_learning_starts": 10_000},
        )
    )
    before = algorithm.learner.module.get_state()
    algorithm.train_to(600)
    after, evidence = algorithm.learner.module.get_state(), algorithm.runner.core.imitation(600).replay
    algorithm.stop()
    is_same = all(np.array_equal(a, b) for a, b in zip(tree.flatten(before), tree.flatten(after), strict=True))
    assert is_same == (tutor != "oracle")
    assert (evidence > 0) == (tutor == "oracle")


def test_a_trial_that_is_killed_leaves_no_folder_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    trial = StudentTrial(config=student().model_dump())
    run(trial, 1)
    made = list(tmp_path.iterdir())
    trial.cleanup()
    assert not made


def test_seeds_differ():
    first, second = (train(student(seed=seed, num_env_steps=500)) for seed in (0, 1))
    assert first[-1]["return_mean"] != second[-1]["return_mean"]


def test_a_trial_reports_the_contracts_names():
    result = train(student(tutor="oracle", num_env_steps=500))[-1]
    assert set(result) == {*metrics.ALL, metrics.STEP_AXIS, "done"}
    assert result["env_steps_per_s"] > 0
    assert 0 < result["advice/consultations"] <= 504
    assert -1 <= result["return_mean"] <= 1


def steps_to(config: StudentConfig, threshold: float) -> float:
    """Env steps until the greedy return reaches the threshold; what would be trained after that is left out."""
    trial = StudentTrial(config=config.model_dump())
    try:
        while True:
            result = trial.step()
            if result["eval/return_mean"] >= threshold:
                return result[metrics.STEP_AXIS]
            if result["done"]:
                return math.inf
    finally:
        trial.cleanup()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_students_learn_blackjack_untutored(algorithm):
    """Always the same action is worth −0.19 or less, the optimum −0.047."""
    results = train(student(algorithm=algorithm, num_env_steps=16_000, eval_interval_steps=2_000))
    assert max(r["eval/return_mean"] for r in results[-3:]) > -0.085


@pytest.mark.parametrize("algorithm", ["ppo", "a2c"])
def test_good_advice_makes_a_sampling_student_learn_faster(algorithm):
    untutored, tutored = (
        [
            steps_to(
                student(algorithm=algorithm, tutor=tutor, seed=seed, num_env_steps=10_000, eval_interval_steps=250),
                -0.07,
            )
            for seed in range(3)
        ]
        for tutor in ("none", "oracle")
    )
    assert np.median(tutored) < np.median(untutored)
    assert max(tutored) < math.inf


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_worst_advice_loses_the_students_trust(algorithm):
    coin = AdviceConfig(use="coin")
    fields = {"algorithm": algorithm, "tutor": "worst", "num_env_steps": 8_000, "eval_interval_steps": 4_000}
    results = train(student(**fields, advice=coin))
    assert results[-1]["advice/trust"] < 0.2
    assert results[-1]["advice/effect"] < 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_student_with_the_worst_tutor_learns_what_it_would_learn_alone(algorithm):
    alone, tutored = (train(student(algorithm=algorithm, tutor=tutor)) for tutor in ("none", "worst"))
    assert [r["eval/return_mean"] for r in tutored] == [r["eval/return_mean"] for r in alone]
    assert [r["return_mean"] for r in tutored] == [r["return_mean"] for r in alone]
    assert tutored[-1]["advice/consultations"] > 500
    assert tutored[-1]["advice/effect"] < 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_clone_comes_to_play_as_its_tutor_does_good_or_bad(algorithm):
    returns = {}
    for tutor in ("oracle", "worst"):
        config = student(algorithm=algorithm, tutor=tutor, num_env_steps=4_000, advice=AdviceConfig(use="clone"))
        returns[tutor] = train(config)[-1]["eval/return_mean"]
    assert returns["oracle"] > -0.07, "the oracle's own is -0.047"
    assert returns["worst"] < -0.5


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_clone_whose_tutor_may_not_be_asked_learns_nothing(algorithm):
    advice = AdviceConfig(use="clone", advice_budget=0)
    results = train(student(algorithm=algorithm, tutor="oracle", advice=advice))
    assert results[-1]["updates"] == 0
    assert len({r["eval/return_mean"] for r in results}) == 1


@pytest.mark.parametrize(("use", "options", "least"), [("kickstart", {}, -0.09), ("shape", {"weight": 4.0}, -0.12)])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_student_comes_to_play_as_its_tutor_does_good_or_bad(algorithm, use: str, options: dict, least: float):
    returns = {}
    for tutor in ("oracle", "worst"):
        advice = AdviceConfig(use=use, use_options=options, theta_frac=4.0)
        results = train(student(algorithm=algorithm, tutor=tutor, num_env_steps=4_000, advice=advice))
        returns[tutor] = results[-1]["eval/return_mean"]
    assert returns["oracle"] > least, "the oracle's own is -0.047"
    assert returns["worst"] < -0.3


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_tutor_that_prefers_nothing_shapes_nothing(algorithm):
    curves = [
        [
            result["eval/return_mean"]
            for result in train(student(algorithm=algorithm, tutor=tutor, advice=AdviceConfig(use="shape")))
        ]
        for tutor in ("none", "random")
    ]
    assert curves[0] == curves[1]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_observing_student_follows_what_it_sees_and_is_judged_without(algorithm):
    advice = AdviceConfig(use="observe", use_options={"dropout": 0.2}, theta_frac=2.0)
    trial = StudentTrial(
        config=student(algorithm=algorithm, tutor="oracle", num_env_steps=4_000, advice=advice).model_dump()
    )
    results = run(trial, 5)
    runner, task = trial.algorithm.runner, trial.algorithm.task
    assert runner.observation_space.shape[0] == task.observation_space.shape[0] + task.num_actions
    assert results[-1]["advice/consultations"] > 1_000
    seen = runner.rollout.observations.reshape(-1, runner.observation_space.shape[0])
    hinted = seen[seen[:, -task.num_actions :].any(axis=1)]
    assert 0 < len(hinted) < len(seen)
    turned = hinted.copy()
    turned[:, -task.num_actions :] *= -1.0
    view = trial.algorithm._view
    preference = [np.diff(view.scores(rows).copy(), axis=1)[:, 0] for rows in (hinted, turned)]
    towards = np.sign(np.diff(hinted[:, -task.num_actions :], axis=1)[:, 0])
    assert ((preference[0] - preference[1]) * towards).mean() > 0, "advice moves the student its way"
    trial.cleanup()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_student_that_its_tutor_hands_over_to_ends_alone(algorithm):
    advice = AdviceConfig(use="handover", use_options={"horizon": 2, "stages": 2})
    results = train(student(algorithm=algorithm, tutor="oracle", advice=advice, num_env_steps=3_000))
    asked = [r["advice/consultations"] for r in results]
    assert asked[1] > 0 and asked[-1] == asked[-2], "the tutor had a part and has none any more"
    assert results[-1]["advice/trust"] == 0.0
    assert results[-1]["eval/return_mean"] > -0.35


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_student_that_pools_plays_better_at_once_and_learns_to_do_without(algorithm):
    fields = {"algorithm": algorithm, "task": "cart_pole", "eval_episodes": 4, "advice": AdviceConfig(use="pool")}
    alone = train(student(**fields, num_env_steps=500))
    pooled = train(student(**fields, num_env_steps=6_000, tutor="oracle"))
    if algorithm != "dqn":  # whose first steps are random anyway
        assert alone[1]["return_mean"] < 40
        assert math.isnan(pooled[1]["return_mean"]), "in 500 env steps not one episode has ended"
    assert pooled[-1]["eval/return_mean"] > 3 * pooled[0]["eval/return_mean"]
    assert pooled[-1]["advice/probability"] == 0.0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_only_legal_moves_are_made_and_learnt(algorithm):
    """Connect Four raises on a move into a full column."""
    config = student(algorithm=algorithm, task="connect_four", tutor="random", num_env_steps=1_500, eval_episodes=20)
    results = train(config)
    assert results[-1]["advice/consultations"] > 0
    assert math.isfinite(results[-1]["eval/return_mean"])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_papers_form_and_stock_rollouts_train(algorithm):
    fields = {"algorithm": algorithm, "tutor": "oracle", "num_env_steps": 600, "eval_interval_steps": 600}
    results = train(student(**fields, rollout="stock", advice=AdviceConfig(trust="fixed")))
    assert results[-1]["advice/consultations"] > 0
    assert set(results[-1]) == {*metrics.ALL, metrics.STEP_AXIS, "done"}
    paper = train(student(algorithm=algorithm, tutor="oracle", num_env_steps=600, advice=PAPER_ADVICE))
    assert paper[-1]["advice/trust"] == 1.0


SHARED = (
    *("lr", "gamma", "lambda_", "train_batch_size_per_learner", "minibatch_size", "num_epochs", "clip_param"),
    *("vf_clip_param", "vf_loss_coeff", "entropy_coeff", "use_kl_loss", "grad_clip"),
)


def weights(algorithm: Any) -> dict[str, np.ndarray]:
    state = algorithm.learner_group._learner.module["default_policy"].get_state()
    return {name: np.array(value) for name, value in state.items()}


def test_untutored_stock_ppo_is_rllibs_own():
    """With tutor none, nothing of ours touches a number."""
    from ray.rllib.algorithms.ppo import PPOConfig as RLlibPPOConfig

    from rllib_plugins.algorithms.tutoring import TASK_ENV

    ours = build_algorithm(student(rollout="stock", hyperparameters={"train_batch_size_per_learner": 128}))
    config, start, trained = ours.config, weights(ours), weights_after(ours, 2)
    plain = (
        RLlibPPOConfig()
        .environment(TASK_ENV, env_config=config.env_config)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=config.num_envs_per_env_runner)
        .learners(num_learners=0)
        .training(**{name: getattr(config, name) for name in SHARED})
        .rl_module(model_config=config.model_config)
        .debugging(seed=config.seed)
    )
    for name, value in weights_after(plain.build_algo(), 2).items():
        np.testing.assert_array_equal(value, trained[name])
        assert "const" in name or np.abs(value - start[name]).max() > 0


def weights_after(algorithm: Any, num_iterations: int) -> dict[str, np.ndarray]:
    """RLlib draws from global random states, seeded when an algorithm is built: one at a time."""
    try:
        for _ in range(num_iterations):
            algorithm.train()
        return weights(algorithm)
    finally:
        algorithm.stop()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_lean_and_stock_start_from_the_same_weights(algorithm):
    built = [build_algorithm(student(algorithm=algorithm, rollout=rollout)) for rollout in ("lean", "stock")]
    try:
        lean, stock = map(weights, built)
        assert lean.keys() == stock.keys()
        for name in lean:
            np.testing.assert_array_equal(lean[name], stock[name])
    finally:
        for each in built:
            each.stop()


def test_a2c_is_resolved_by_tunes_registry():
    from ray.tune.registry import get_trainable_cls

    import rllib_plugins.algorithms.a2c.a2c as a2c

    a2c.register()  # the import that did it may belong to an earlier Ray session of this process
    assert get_trainable_cls("A2C") is a2c.A2C


def test_an_rllib_checkpoint_opens_without_the_trial(tmp_path: Path):
    """``Algorithm.from_checkpoint`` of RLlib gives back the whole student."""
    from ray.rllib.algorithms.algorithm import Algorithm

    algorithm = build_algorithm(student(algorithm="a2c"))
    algorithm.train_to(200)
    path = algorithm.save_to_path(tmp_path / "checkpoint")
    algorithm.train_to(400)
    opened = Algorithm.from_checkpoint(path)
    opened.train_to(400)
    try:
        for name, value in weights(algorithm).items():
            np.testing.assert_array_equal(value, weights(opened)[name])
    finally:
        algorithm.stop()
        opened.stop()
