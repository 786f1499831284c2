"""Tutors and students for tests: distributions looked up by the first number of the observation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from rllib_plugins.advising.advisor import AdviceBatch, Advisor
from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.metrics import Source
from rllib_plugins.rollout.arrays import RolloutArrays
from rllib_plugins.tasks import Task
from rllib_plugins.uses.base import UseContext
from rllib_plugins.uses.options import make_use


class Numbered(Task):
    """States 0, 1, 2, … that are their own observations.

    Args:
        num_actions: Size of the action space.
        legal: ``(num_states, num_actions)``; None: all actions are legal.
    """

    name = "numbered"

    def __init__(self, num_actions: int, legal=None):
        super().__init__()
        self.actions = tuple("abcdefg"[:num_actions])
        self._legal = legal

    def legal_batch(self, observations):
        return None if self._legal is None else self._legal[observations[:, 0].astype(int)]


class TableAdvisor(Advisor):
    """Advises ``rows[int(observation[0])]``.

    Args:
        rows: ``(num_states, num_actions)`` distributions; a row of NaN is missed.
        at_hand: Everything is known before it is asked for.
        keeps: What was asked for is at hand from then on.
        source: Where asked rows come from.
        invalid: Invalid answers per call.
        tokens: Tokens per call.
        legal: ``(num_states, num_actions)``; None: all actions are legal.
    """

    def __init__(
        self,
        rows,
        *,
        at_hand: bool = False,
        keeps: bool = False,
        source: Source = Source.MODEL,
        invalid: int = 0,
        tokens: int = 0,
        legal=None,
    ):
        self.rows = np.asarray(rows, dtype=np.float64)
        super().__init__(
            Numbered(self.rows.shape[1], legal), Source.SCRIPT if source == Source.SCRIPT else Source.STORE
        )
        self.keeps = keeps or at_hand
        self.source, self.invalid, self.tokens = source, invalid, tokens
        self.num_asked = 0
        if at_hand:
            self.table.put(states(*range(len(self.rows))), self.rows)

    def evaluate(self, observations):
        rows = self.rows[observations[:, 0].astype(int)]
        source = np.where(np.isnan(rows).any(axis=1), Source.MISSED, self.source).astype(np.int8)
        return AdviceBatch(rows, source, self.invalid, 12.0, self.tokens)

    def ask(self, observations):
        self.num_asked += len(observations)
        batch = super().ask(observations)
        if not self.keeps:
            self.table.clear()
        return batch


def states(*numbers: int) -> np.ndarray:
    """Observations ``(n, 1)`` of the numbered states."""
    return np.array(numbers, dtype=np.float32)[:, None]


NUM_STEPS, NUM_ENVS, NUM_STATES, THETA = 16, 8, 10, 1_000.0
SAYS = np.random.default_rng(7).dirichlet(np.ones(3), NUM_STATES)


class Visitor:
    """A student that visits numbered states at random, and a use of advice that learns nothing of its own draws.

    Args:
        use: By name.
        says: ``(NUM_STATES, 3)`` what its tutor says.
        legal: ``(NUM_STATES, 3)``; None: all actions are legal.
        **advice: Fields of ``AdviceConfig``.
    """

    def __init__(self, use: str, says: Any = SAYS, legal: Any = None, **advice: Any) -> None:
        self._rng = np.random.default_rng(0)
        rollout = RolloutArrays.allocate(
            (NUM_STEPS, NUM_ENVS), 1, 3, for_replay=False, with_advice=False, with_masks=False
        )
        self.runner = SimpleNamespace(rollout=rollout, num_env_steps_sampled_lifetime=0)
        config = SimpleNamespace(advice=AdviceConfig(use=use, **advice), seed=0, theta_steps=THETA, value_based=False)
        context = UseContext(config, self.runner, TableAdvisor(says, keeps=True, legal=legal))  # type: ignore[arg-type]
        self.use = make_use(use, config.advice.use_options).make(context)

    @property
    def step(self) -> int:
        """Env steps so far."""
        return int(self.runner.num_env_steps_sampled_lifetime)

    def play(self, num_rollouts: int = 1) -> None:
        for _ in range(num_rollouts):
            self.runner.rollout.observations[:] = self._rng.integers(NUM_STATES, size=(NUM_STEPS, NUM_ENVS, 1))
            self.runner.num_env_steps_sampled_lifetime += NUM_STEPS * NUM_ENVS
            self.use.remember()

    def targets(self, *numbers: int) -> np.ndarray:
        return self.use.targets(states(*numbers), self.step)

    def rewards(self, numbers: list[int], actions: list[int]) -> np.ndarray:
        return self.use.rewards(states(*numbers), np.array(actions), self.step)
