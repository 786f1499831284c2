"""Rollouts that are looked at together."""

from __future__ import annotations

import numpy as np
import pytest

from rllib_plugins.rollout.arrays import RolloutArrays
from rllib_plugins.uses.window import Window


def rollout_of(num_steps: int, num_envs: int) -> RolloutArrays:
    return RolloutArrays.allocate(
        (num_steps, num_envs), 3, 2, for_replay=True, with_advice=True, with_masks=True, with_bonus=True
    )


def fill(rollout: RolloutArrays, rng: np.random.Generator) -> np.ndarray:
    for name in ("observations", "logits", "rewards"):
        getattr(rollout, name)[:] = rng.normal(size=getattr(rollout, name).shape)
    rollout.actions[:] = rng.integers(2, size=rollout.actions.shape)
    rollout.terminated[:] = rng.random(rollout.terminated.shape) < 0.2
    rollout.legal[:] = rng.random(rollout.legal.shape) < 0.5
    return rng.normal(size=rollout.rewards.shape).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "least"), [((5, 8), 256), ((2, 32), 512), ((32, 8), 256), ((300, 1), 256), ((7, 128), 2_048)]
)
def test_a_window_holds_whole_rollouts_in_order(shape: tuple[int, int], least: int):
    rng, rollout = np.random.default_rng(0), rollout_of(*shape)
    window = Window(rollout)
    for _ in range(2):
        seen: dict[str, list[np.ndarray]] = {}
        is_full = False
        while not is_full:
            advantages = fill(rollout, rng)
            is_full = window.add(rollout, advantages)
            for name in ("observations", "logits", "actions", "rewards", "terminated", "legal"):
                seen.setdefault(name, []).append(getattr(rollout, name).copy())
            seen.setdefault("advantages", []).append(advantages)
        assert least <= window.advantages.size < least + rollout.rewards.size
        assert (window.advantages == np.concatenate(seen.pop("advantages"))).all()
        for name, parts in seen.items():
            assert (getattr(window.rollout, name) == np.concatenate(parts)).all(), name


def test_returns_are_those_of_whole_episodes_whatever_windows_they_lie_in():
    rng, rollout = np.random.default_rng(1), rollout_of(2, 32)
    window, running, expected, found = Window(rollout), np.zeros(32), [], []
    for _ in range(24):
        is_full = window.add(rollout, fill(rollout, rng))
        for rewards, ended in zip(rollout.rewards, rollout.terminated, strict=True):
            running += rewards
            expected.extend(running[ended])
            running[ended] = 0.0
        if is_full:
            found.extend(window.finished_returns())
    assert found == pytest.approx(expected) and len(found) > 100


@pytest.mark.parametrize("shape", [(5, 8), (32, 8)])
def test_the_return_of_an_episode_that_was_cut_off_between_rollouts_is_in_no_other_s(shape: tuple[int, int]):
    rollout = rollout_of(*shape)
    window, advantages = Window(rollout), np.zeros(shape, np.float32)
    rollout.rewards[:] = 1.0
    num_paid = 3
    for _ in range(num_paid):
        if window.add(rollout, advantages):
            assert window.finished_returns().size == 0
    window.begin_episodes()
    rollout.rewards[:], rollout.terminated[-1] = 0.0, True
    found: list[float] = []
    while not found:
        if window.add(rollout, advantages):
            found = window.finished_returns().tolist()
    assert set(found) <= {0.0, float(num_paid * shape[0])} and found.count(0.0) >= shape[1]


@pytest.mark.parametrize("shape", [(5, 8), (32, 8)])
def test_a_restored_window_goes_on_as_if_never_stopped(shape: tuple[int, int]):
    rng, rollout = np.random.default_rng(2), rollout_of(*shape)
    window = Window(rollout)
    for _ in range(10):
        if window.add(rollout, fill(rollout, rng)):
            window.finished_returns()
    again = rollout_of(*shape)
    again.set_state(rollout.get_state())
    restored = Window(again)
    restored.set_state(window.get_state())
    for _ in range(20):
        advantages = fill(rollout, rng)
        again.set_state(rollout.get_state())
        is_full = window.add(rollout, advantages)
        assert restored.add(again, advantages) == is_full
        if is_full:
            assert restored.finished_returns().tolist() == window.finished_returns().tolist()
            assert (restored.advantages == window.advantages).all()
            assert (restored.rollout.observations == window.rollout.observations).all()
