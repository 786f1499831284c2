"""How often remembered advice is imitated again. Knows no loss: a learner takes the gradient steps.

A rollout's update sees a step's advice once or a few times and forgets it. Good advice is worth more: like the
demonstrations of DQfD (arXiv 1704.03732) it is replayed, but only as far as the measured effect speaks for the tutor,
only while the student does not follow it, and a bounded number of times.
"""

from __future__ import annotations

from typing import Any, Protocol

from rllib_plugins.rollout.advice_memory import AdviceMemory, AdviceSample
from rllib_plugins.rollout.arrays import RolloutArrays

BATCH = 64
"""Advised steps per gradient step."""
MAX_PATIENCE = 256
"""Where the student follows what is drawn, the next look is four times as far off, up to so many batches; where it does
not, half as far: a student that hovers at the mark is looked at now and then."""


class Imitator(Protocol):
    """A learner, as far as it matters here."""

    def imitate_again(self, sample: AdviceSample) -> bool:
        """One gradient step; False, and no step, where the student follows the advice already."""


class AdviceReplay:
    """Remembers advised steps and has them imitated again.

    Args:
        memory: Where they are kept.
        max_gradient_steps: Most gradient steps in all; after them nothing is remembered any more.
    """

    def __init__(self, memory: AdviceMemory, max_gradient_steps: int) -> None:
        self._memory = memory
        self._gradient_steps_left = max_gradient_steps
        self._num_consultations = 0
        self._num_new = 0
        self._num_due = 0.0
        self._patience = 1

    @classmethod
    def for_rollout(cls, config: Any, rollout: RolloutArrays) -> AdviceReplay:
        """A trial's replay, by its config; one that does nothing where nothing is imitated again.

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
        return cls(memory, advice.imitation_replay_steps if wanted else 0)

    def add(self, rollout: RolloutArrays, num_consultations: int, start: int = 0, stop: int | None = None) -> None:
        """Remembers the advised ones among the vector steps ``start`` to ``stop`` of a rollout.

        Args:
            rollout: The steps.
            num_consultations: The trial's, these steps' included: most often there is no new one to look for.
            start: First vector step.
            stop: Behind the last one; None: all.
        """
        if self._gradient_steps_left and num_consultations != self._num_consultations:
            self._num_consultations = num_consultations
            self._num_new += self._memory.add(rollout, start, stop)

    def learn(self, learner: Imitator, passes: float) -> None:
        """Has remembered steps imitated, in proportion to those that are new since the last call.

        Args:
            learner: Takes the gradient steps.
            passes: Times that a step is to be imitated again, in the mean.
        """
        self._num_due += self._num_new * passes
        self._num_new = 0
        while self._gradient_steps_left and self._num_due >= BATCH * self._patience:
            if not learner.imitate_again(self._memory.sample(BATCH)):
                self._num_due, self._patience = 0.0, min(4 * self._patience, MAX_PATIENCE)
                return
            self._gradient_steps_left -= 1
            self._num_due = self._num_due - BATCH if self._patience == 1 else 0.0
            self._patience = max(1, self._patience // 2)

    def get_state(self) -> dict[str, Any]:
        """Everything that the next steps depend on."""
        return {
            "memory": self._memory.get_state(),
            "gradient_steps_left": self._gradient_steps_left,
            "num_consultations": self._num_consultations,
            "num_new": self._num_new,
            "num_due": self._num_due,
            "patience": self._patience,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes a ``get_state``."""
        self._memory.set_state(state["memory"])
        self._gradient_steps_left = state["gradient_steps_left"]
        self._num_consultations = state["num_consultations"]
        self._num_new, self._num_due, self._patience = state["num_new"], state["num_due"], state["patience"]
