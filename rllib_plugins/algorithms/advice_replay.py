"""Replay advice: keep the latest advised steps of a trial, and say how often they are imitated again.

A rollout's update sees a step's advice once or a few times and forgets it. Good advice is worth more: like the
demonstrations of DQfD (arXiv 1704.03732) it is replayed, but only as far as the measured effect speaks for the tutor,
only while the student does not follow it, and a bounded number of times.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.algorithms.advice import imitated_until
from rllib_plugins.rollout.arrays import NO_MASKS, RolloutArrays
from rllib_plugins.rollout.ring import ArrayRing
from rllib_plugins.uses.base import AdviceSample, Goal, Imitator

CAPACITY = 8_192
"""Advised steps kept; the oldest give way."""
BATCH = 64
"""Advised steps per gradient step."""
SETTLED_SHARE = 0.1
"""Share of remembered advice that the student need not follow for more of it to be left alone."""
MAX_PATIENCE = 256
"""Where the student follows what is drawn, the next look is four times as far off, up to so many batches; where it does
not, half as far: a student that hovers at the mark is looked at now and then."""


class AdviceMemory(ArrayRing):
    """Keep the latest advised steps of a trial.

    Args:
        obs_dim: Length of a flat observation.
        num_actions: Actions A.
        with_masks: Keep masks of legal actions.
        seed: Seed of the draws.
        capacity: Advised steps kept.
    """

    def __init__(
        self, obs_dim: int, num_actions: int, *, with_masks: bool, seed: int, capacity: int = CAPACITY
    ) -> None:
        arrays: dict[str, NDArray[Any]] = {
            "observations": np.zeros((capacity, obs_dim), np.float32),
            "advice": np.zeros((capacity, num_actions), np.float32),
        }
        if with_masks:
            arrays["legal"] = np.zeros((capacity, num_actions), bool)
        super().__init__(arrays, seed)

    def add(self, rollout: RolloutArrays, start: int = 0, stop: int | None = None) -> int:
        """Take the advised steps among the vector steps ``start`` to ``stop`` of a rollout; return their number."""
        advised = rollout.consulted[start:stop]
        sources = {"observations": rollout.observations, "advice": rollout.advice, "legal": rollout.legal}
        return self.put({name: sources[name][start:stop][advised] for name in self._arrays})  # type: ignore[index]

    def sample(self, batch_size: int) -> AdviceSample:
        """Draw steps uniformly, with replacement."""
        drawn = self._draw(batch_size)
        return AdviceSample(drawn["observations"], drawn["advice"], drawn.get("legal", NO_MASKS))


class AdviceReplay:
    """Remembers advised steps and has them imitated again.

    Args:
        memory: Where they are kept.
        max_gradient_steps: Most gradient steps in all; after them nothing is remembered any more.
        until: Probability of the advised action from which on a step is left alone.
    """

    def __init__(self, memory: AdviceMemory, max_gradient_steps: int, until: float) -> None:
        self._memory = memory
        self._goal = Goal(until, SETTLED_SHARE)
        self._gradient_steps_left = max_gradient_steps
        self._num_consultations = 0
        self._num_new = 0
        self._num_due = 0.0
        self._patience = 1

    @classmethod
    def for_rollout(cls, config: Any, rollout: RolloutArrays) -> AdviceReplay:
        """Make a trial's replay, by its config; one that does nothing where nothing is imitated again.

        Args:
            config: One of this package's algorithm configs, after ``tutoring``.
            rollout: The arrays that steps will come from.
        """
        advice = config.advice
        used = config.tutor != "none" and advice.imitation == "filtered" and advice.trust == "earned"
        wanted = used and advice.imitation_replay > 0
        *_, obs_dim = rollout.observations.shape
        *_, num_actions = rollout.logits.shape
        memory = AdviceMemory(obs_dim, num_actions, with_masks=rollout.legal is not None, seed=config.seed or 0)
        return cls(memory, advice.imitation_replay_steps if wanted else 0, imitated_until(advice))

    def add(self, rollout: RolloutArrays, num_consultations: int, start: int = 0, stop: int | None = None) -> None:
        """Remember the advised ones among the vector steps ``start`` to ``stop`` of a rollout.

        Args:
            rollout: The steps.
            num_consultations: The trial's, these steps' included: most often there is no new one to look for.
            start: First vector step.
            stop: End of the vector steps, exclusive; None: all.
        """
        if self._gradient_steps_left and num_consultations != self._num_consultations:
            self._num_consultations = num_consultations
            self._num_new += self._memory.add(rollout, start, stop)

    def learn(self, learner: Imitator, passes: float) -> None:
        """Have remembered steps imitated, in proportion to those that are new since the last call.

        Args:
            learner: Takes the gradient steps.
            passes: Times that a step is to be imitated again, in the mean.
        """
        self._num_due += self._num_new * passes
        self._num_new = 0
        while self._gradient_steps_left and self._num_due >= BATCH * self._patience:
            if not learner.imitate_again(self._memory.sample(BATCH), self._goal):
                self._num_due, self._patience = 0.0, min(4 * self._patience, MAX_PATIENCE)
                return
            self._gradient_steps_left -= 1
            self._num_due = self._num_due - BATCH if self._patience == 1 else 0.0
            self._patience = max(1, self._patience // 2)

    def get_state(self) -> dict[str, Any]:
        """Return everything that the next steps depend on."""
        return {
            "memory": self._memory.get_state(),
            "gradient_steps_left": self._gradient_steps_left,
            "num_consultations": self._num_consultations,
            "num_new": self._num_new,
            "num_due": self._num_due,
            "patience": self._patience,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``."""
        self._memory.set_state(state["memory"])
        self._gradient_steps_left = state["gradient_steps_left"]
        self._num_consultations = state["num_consultations"]
        self._num_new, self._num_due, self._patience = state["num_new"], state["num_due"], state["patience"]
