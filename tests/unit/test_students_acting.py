"""Vector steps in machine code do what the slow, obvious form of them does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rllib_plugins.policies import best_values, epsilon_greedy, masked_softmax
from rllib_plugins.rollout.acting import Episodes, Steps, explore, note, softmax
from rllib_plugins.rollout.arrays import NO_MASKS, RolloutArrays
from rllib_plugins.tasks import load_task
from rllib_plugins.tasks.base import Task
from rllib_plugins.tasks.cart_pole_vector import NUM_STARTS

SHAPES = st.tuples(st.integers(1, 5), st.integers(2, 9), st.integers(0, 10_000), st.booleans())


def drawn(shape: tuple[int, int, int, bool]) -> tuple[np.ndarray, np.ndarray | None]:
    """Scores with ties, and masks; of some rows no action is legal."""
    num_rows, num_actions, seed, is_masked = shape
    rng = np.random.default_rng(seed)
    scores = rng.normal(scale=3.0, size=(num_rows, num_actions)).round(1).astype(np.float32)
    return scores, rng.random((num_rows, num_actions)) < 0.5 if is_masked else None


@settings(max_examples=80, deadline=None)
@given(SHAPES)
def test_softmax_is_numpys(shape: tuple[int, int, int, bool]):
    logits, legal = drawn(shape)
    with np.errstate(invalid="ignore"):
        expected = masked_softmax(logits, legal)
    for row, probabilities in enumerate(expected):
        out = np.empty(logits.shape[1])
        softmax(logits, NO_MASKS if legal is None else legal, row, out)
        np.testing.assert_allclose(out, probabilities, rtol=1e-14)


@settings(max_examples=80, deadline=None)
@given(SHAPES, st.floats(0.0, 1.0))
def test_exploring_is_numpys(shape: tuple[int, int, int, bool], epsilon: float):
    q_values, legal = drawn(shape)
    if legal is not None:
        legal[legal.sum(axis=1) == 0, 0] = True
    expected, values = epsilon_greedy(q_values, legal, epsilon), best_values(q_values, legal)
    for row, probabilities in enumerate(expected):
        out = np.empty(q_values.shape[1])
        value = explore(q_values, NO_MASKS if legal is None else legal, row, epsilon, out)
        assert value == values[row]
        np.testing.assert_array_equal(out, probabilities)


def test_a_finished_game_has_a_value_all_the_same():
    q_values, legal = np.array([[1.0, 3.0, 2.0]], np.float32), np.zeros((1, 3), bool)
    assert explore(q_values, legal, 0, 0.1, np.empty(3)) == best_values(q_values, legal)[0] == 3.0


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_q_value_that_is_nan_is_not_hidden(place: int):
    q_values, out = np.array([[1.0, 3.0, 2.0]], np.float32), np.empty(3)
    q_values[0, place] = np.nan
    assert np.isnan(explore(q_values, NO_MASKS, 0, 0.0, out))
    assert out.argmax() == place


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_logit_that_is_nan_leaves_no_probability(place: int):
    logits, out = np.array([[1.0, 3.0, 2.0]], np.float32), np.empty(3)
    logits[0, place] = np.nan
    softmax(logits, NO_MASKS, 0, out)
    assert np.isnan(out).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(0, 10_000), st.booleans())
def test_what_a_step_led_to_is_noted(num_envs: int, seed: int, for_replay: bool):
    rng = np.random.default_rng(seed)
    rollout = RolloutArrays.allocate((4, num_envs), 2, 3, for_replay=for_replay, with_advice=False, with_masks=False)
    steps, episodes = Steps.of(rollout), Episodes(np.zeros(num_envs), np.zeros(2))
    running, finished = np.zeros(num_envs), []
    for t in range(4):
        rollout.terminated[t], rollout.truncated[t] = rng.random((2, num_envs)) < 0.3
        ended = rollout.terminated[t] | rollout.truncated[t]
        following, final = rng.normal(size=(2, num_envs, 2)).astype(np.float32)
        rewards = rng.integers(-3, 4, size=num_envs) / 2.0
        num_cut = note(steps, t, following, final, rewards, episodes)
        assert num_cut == (rollout.truncated[t] & ~rollout.terminated[t]).sum()
        running += rewards
        finished += running[ended].tolist()
        running[ended] = 0.0
        np.testing.assert_array_equal(rollout.rewards[t], rewards)
        if rollout.next_observations is not None:
            expected = np.where(ended[:, None], final, following)
            np.testing.assert_array_equal(rollout.next_observations[t], expected)
    np.testing.assert_array_equal(episodes.running, running)
    assert episodes.finished.tolist() == [sum(finished), len(finished)]


def runner(algorithm: str, task: str, num_envs: int = 3) -> Any:
    from rllib_plugins.config import StudentConfig
    from rllib_plugins.trial import algorithm_config

    config = StudentConfig(algorithm=algorithm, task=task, num_envs=num_envs, seed=5)
    built = algorithm_config(config)
    return built.env_runner_cls(config=built)


def play_slowly(played: Any, num_steps: int) -> dict[str, np.ndarray]:
    """What a fresh runner like ``played`` would do, by numpy and an environment that is stepped from Python."""
    config, task, n = played.config, played.task, played.num_envs
    env = Task.make_vec(task, n, played.seed)
    observations, _ = env.reset(seed=played.seed)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(played.seed).spawn(2)[0]))
    rows: dict[str, list[np.ndarray]] = {"observations": [], "actions": [], "rewards": [], "behaviour": []}
    for t in range(num_steps):
        scores = played._view.scores(observations).copy()
        legal = task.legal_batch(observations)
        if config.value_based:
            policy = epsilon_greedy(scores, legal, float(config.epsilon_at(t * n)))
        else:
            policy = masked_softmax(scores, legal)
        edges = policy.cumsum(axis=1)
        actions = (edges <= rng.random(n)[:, None] * edges[:, -1:]).sum(axis=1)
        rows["observations"].append(observations)
        rows["actions"].append(actions)
        rows["behaviour"].append(policy[np.arange(n), actions].astype(np.float32))
        observations, rewards, *_ = env.step(actions)
        rows["rewards"].append(rewards)
    return {name: np.stack(parts) for name, parts in rows.items()}


@pytest.mark.parametrize("task", ["cart_pole", "blackjack", "connect_four", "examples.frozen_lake:FrozenLakeTask"])
@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_a_student_plays_what_it_would_play_from_python(algorithm: str, task: str):
    played = runner(algorithm, task)
    num_steps = played.rollout.num_steps
    expected = play_slowly(played, num_steps)
    played.sample(num_steps // 2)
    played.sample()
    for name, rows in expected.items():
        np.testing.assert_array_equal(getattr(played.rollout, name), rows.astype(getattr(played.rollout, name).dtype))
    assert played.num_env_steps_sampled_lifetime == num_steps * played.num_envs


def test_an_episode_that_ends_without_its_last_observation_is_not_passed_over(monkeypatch: pytest.MonkeyPatch):
    played = runner("ppo", "blackjack")
    step = played.env.step
    monkeypatch.setattr(played.env, "step", lambda actions: (*step(actions)[:4], {}))
    with pytest.raises(KeyError, match="final_obs"):
        played.sample()


def test_carts_go_on_when_their_starts_are_used_up_and_from_a_checkpoint():
    task = load_task("cart_pole")
    ours, theirs = task.make_vec(2, 7), Task.make_vec(task, 2, 7)
    np.testing.assert_array_equal(ours.reset(seed=7)[0], theirs.reset(seed=7)[0])
    num_ended = 0
    for step in range(12 * 2 * NUM_STARTS):
        if step % 50 == 49:
            again = task.make_vec(2, 0)
            again.restore(ours.save())
            ours = again
        one, other = ours.step(np.ones(2, np.int64)), theirs.step(np.ones(2, np.int64))
        for mine, its in zip(one[:4], other[:4], strict=True):
            np.testing.assert_array_equal(mine, its)
        num_ended += int(one[2].sum())
    assert num_ended > 2 * NUM_STARTS
