"""A trial that is restored where its episodes cannot be had back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rllib_plugins.trial import StudentTrial
from rllib_plugins.uses.distil import Distillation


def times_told(
    config: dict[str, Any], num_rollouts: int, num_extra_steps: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> int:
    """How often the use of advice is told that episodes begin anew between rollouts.

    Args:
        config: Of the trial.
        num_rollouts: Whole rollouts before the checkpoint.
        num_extra_steps: Env steps after them.
        folder: For the checkpoint.
        monkeypatch: The test's.
    """
    trial = StudentTrial(config=config)
    trial.step()
    trial.algorithm.train_to(num_rollouts * trial.algorithm.runner.rollout.rewards.size + num_extra_steps)
    trial.save_checkpoint(str(folder))
    trial.cleanup()
    told: list[Any] = []
    monkeypatch.setattr(Distillation, "begin_episodes", lambda use: told.append(use))
    restored = StudentTrial(config=config)
    restored.load_checkpoint(str(folder))
    restored.cleanup()
    return len(told)
