"""Arrays of the lean rollout: advantages, the replay ring, the rollout's own shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rllib_plugins.rollout.arrays import RolloutArrays, flat
from rllib_plugins.rollout.gae import generalised_advantages
from rllib_plugins.rollout.replay import ArrayReplayBuffer, gather


def rollout(num_steps: int = 5, num_envs: int = 3, *, for_replay: bool = True) -> RolloutArrays:
    return RolloutArrays.allocate(
        (num_steps, num_envs), 2, 4, for_replay=for_replay, with_advice=True, with_masks=False
    )


def advantages(
    rewards: np.ndarray, values: np.ndarray, following: np.ndarray, ended: tuple, gamma: float, lambda_: float
) -> np.ndarray:
    """Advantages of (T, N) arrays; ``ended``: terminated and truncated."""
    arrays = RolloutArrays.allocate(rewards.shape, 1, 2, for_replay=False, with_advice=False, with_masks=False)
    arrays.rewards[:], arrays.values[:], arrays.next_values[:] = rewards, values, following
    arrays.terminated[:], arrays.truncated[:] = ended
    return generalised_advantages(arrays, gamma, lambda_)


def test_an_advantage_by_hand():
    """Two steps, then a truncation; the second environment terminates at once."""
    estimated = advantages(
        np.array([[1.0, 2.0], [3.0, 4.0]]),
        np.array([[0.5, 0.25], [1.5, 1.0]]),
        np.array([[1.5, 9.0], [2.0, 9.0]]),
        ([[False, True], [False, True]], [[False, False], [True, False]]),
        0.9,
        0.8,
    )
    last = 3.0 + 0.9 * 2.0 - 1.5
    first = 1.0 + 0.9 * 1.5 - 0.5 + 0.9 * 0.8 * last
    np.testing.assert_allclose(estimated, [[first, 2.0 - 0.25], [last, 4.0 - 1.0]], rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 1.0))
def test_lambda_one_gives_the_return_and_zero_the_td_error(seed: int, gamma: float):
    rng = np.random.default_rng(seed)
    rewards, values = rng.normal(size=(2, 6, 1)).astype(np.float32)
    terminated = np.zeros((6, 1), bool)
    terminated[5] = True
    following = np.concatenate([values[1:], np.full((1, 1), 1e6, np.float32)])
    common = (rewards, values, following, (terminated, False), gamma)
    returns = np.zeros(1)
    for t in reversed(range(6)):
        returns = rewards[t] + gamma * returns
    np.testing.assert_allclose(advantages(*common, 1.0)[0], returns - values[0], rtol=1e-4, atol=1e-4)
    td_error = rewards[0] + gamma * values[1] - values[0]
    np.testing.assert_allclose(advantages(*common, 0.0)[0], td_error, rtol=1e-4, atol=1e-5)


def test_an_episode_does_not_see_the_next_one():
    zeros, ended = np.zeros((3, 1)), [[False], [True], [False]]
    for cut in ((ended, False), (False, ended)):
        estimated = advantages(np.array([[0.0], [0.0], [100.0]]), zeros, zeros, cut, 1.0, 1.0)
        assert estimated[:, 0].tolist() == [0.0, 0.0, 100.0]


def fill(arrays: RolloutArrays, start: int) -> None:
    numbers = np.arange(start, start + arrays.actions.size).reshape(arrays.actions.shape)
    arrays.actions[:] = numbers
    arrays.rewards[:] = numbers
    arrays.observations[:] = numbers[..., None]
    assert arrays.next_observations is not None
    arrays.next_observations[:] = numbers[..., None] + 0.5


@settings(max_examples=30, deadline=None)
@given(st.integers(4, 40), st.integers(1, 6))
def test_the_ring_holds_the_newest(capacity: int, num_blocks: int):
    buffer, arrays = ArrayReplayBuffer(capacity, 2, seed=0), rollout(num_steps=1)
    for block in range(num_blocks):
        fill(arrays, 3 * block)
        buffer.add(arrays, 0, 1)
    total = 3 * num_blocks
    assert len(buffer) == min(total, capacity)
    batch = gather(buffer.draw(500))
    assert batch.actions.min() >= max(0, total - capacity)
    assert batch.actions.max() < total
    np.testing.assert_array_equal(batch.observations[:, 0], batch.actions)
    np.testing.assert_array_equal(batch.next_observations[:, 1], batch.actions + 0.5)
    np.testing.assert_array_equal(batch.rewards, batch.actions)


def test_a_batch_is_gathered_as_it_was_drawn():
    rng, arrays, buffer = np.random.default_rng(0), rollout(), ArrayReplayBuffer(40, 2, seed=1)
    fill(arrays, 0)
    arrays.terminated[:] = rng.random(arrays.terminated.shape) < 0.5
    arrays.consulted[:] = rng.random(arrays.terminated.shape) < 0.5
    buffer.add(arrays, 0, 5)
    drawn = buffer.draw(30)
    legal = rng.random((30, 4)) < 0.5
    batch = gather(drawn._replace(legal=legal))
    for name in drawn.kept._fields:
        rows = flat(getattr(arrays, name))[drawn.places]
        np.testing.assert_array_equal(getattr(batch, name), rows, err_msg=name)
    np.testing.assert_array_equal(batch.legal, legal)
    assert len(batch.next_legal) == len(batch.imitation) == 0


def test_replay_draws_every_transition_alike():
    buffer, arrays = ArrayReplayBuffer(15, 2, seed=0), rollout()
    fill(arrays, 0)
    buffer.add(arrays, 0, 5)
    counts = np.bincount(gather(buffer.draw(30_000)).actions, minlength=15)
    assert ((counts - 2000) ** 2 / 2000).sum() < 36  # χ² with 14 degrees of freedom, p ≈ 0.001


def test_a_restored_buffer_draws_the_same():
    arrays, one, other = rollout(), ArrayReplayBuffer(12, 2, seed=3), ArrayReplayBuffer(12, 2, seed=4)
    fill(arrays, 0)
    one.add(arrays, 0, 5)
    one.draw(7)
    other.set_state(one.get_state())
    one.add(arrays, 1, 2)
    other.add(arrays, 1, 2)
    np.testing.assert_array_equal(one.draw(50).places, other.draw(50).places)


def test_flat_parts_of_a_rollout_are_views_in_order():
    arrays = rollout()
    fill(arrays, 0)
    part = flat(arrays.observations[1:3])
    assert part[:, 0].tolist() == [3, 4, 5, 6, 7, 8]
    part[:] = -1
    assert arrays.observations[1, 0, 0] == -1


@pytest.mark.parametrize("name", ["actions", "advice", "heads"])
def test_a_rollout_state_is_a_copy(name: str):
    arrays, other = rollout(), rollout()
    state = arrays.get_state()
    getattr(arrays, name)[:] = 1
    other.set_state(state)
    assert not getattr(other, name).any()
    assert arrays.num_steps == 5 and arrays.num_envs == 3
