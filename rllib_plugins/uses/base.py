"""Define what a use of advice is: the one place, between rollouts and learner, where advice enters learning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.advising.config import ImitationWeights
from rllib_plugins.rollout.arrays import NO_ROWS

if TYPE_CHECKING:
    from rllib_plugins.advising.advisor import Advisor
    from rllib_plugins.rollout.env_runner import ArrayEnvRunner
    from rllib_plugins.rollout.gathering import GatheredRollout

BATCH = 128
"""States per gradient step of imitation."""
SETTLED_SHARE = 0.02
"""Stop imitating a batch once the student disagrees in at most this share of it."""


class AdviceSample(NamedTuple):
    """Hold advised steps.

    Attributes:
        observations: ``(B, obs_dim)`` float32.
        advice: ``(B, A)`` float32, what to imitate.
        legal: ``(B, A)`` bool; empty where every action is always legal.
    """

    observations: NDArray[np.float32]
    advice: NDArray[np.float32]
    legal: NDArray[np.bool_]

    def where(self, mask: NDArray[np.bool_]) -> AdviceSample:
        """Return the steps of a mask ``(B,)``."""
        return AdviceSample(
            self.observations[mask], self.advice[mask], self.legal[mask] if len(self.legal) else self.legal
        )


class Goal(NamedTuple):
    """Say how far advice is imitated.

    Attributes:
        until: Probability of the advised action at which imitation of a step ends.
        settled_share: Imitation of a batch ends once the student disagrees in at most this share of it.
    """

    until: float
    settled_share: float


class Imitator(Protocol):
    """Imitate advice: what a use needs of a learner."""

    def imitate_again(self, sample: AdviceSample, goal: Goal) -> bool:
        """Take one gradient step; or return False, and take none, where the student follows the advice already.

        Args:
            sample: Advised steps.
            goal: How far they are imitated.
        """


class UseContext(NamedTuple):
    """Hold what a use works with.

    Attributes:
        config: One of this package's algorithm configs, after ``tutoring``.
        runner: Samples the rollouts; its explorer knows the tutor where the tutor acts.
        advisor: The tutor.
    """

    config: Any
    runner: ArrayEnvRunner | GatheredRollout
    advisor: Advisor | None


class Use:
    """Use a trial's advice in learning. Extend it for a use of your own; by itself it does nothing.

    Args:
        context: What it works with.

    Attributes:
        learns_from_reward: Whether the student makes its own updates, which ``compare`` follows.
    """

    learns_from_reward = True

    def __init__(self, context: UseContext) -> None:
        self._runner = context.runner

    @property
    def sets_targets(self) -> bool:
        """Return whether ``targets`` may have anything to say; where not, it need not be asked."""
        return type(self).targets is not Use.targets

    @property
    def adds_rewards(self) -> bool:
        """Return the same of ``rewards``."""
        return type(self).rewards is not Use.rewards

    def weights(self, step: int) -> ImitationWeights:
        """Return how strongly an update at an env step imitates the advised steps of its rollout."""
        return ImitationWeights()

    def targets(self, observations: NDArray[np.float32], step: int) -> NDArray[np.float32]:
        """Return what an update at an env step imitates in the states that it learns from, without a filter.

        Args:
            observations: ``(n, obs_dim)``.
            step: Env steps sampled so far.

        Returns:
            ``(n, A)``: Σ_a targets·log π is what imitation maximises; ``NO_ROWS``: there is nothing to imitate.
        """
        return NO_ROWS

    def rewards(self, observations: NDArray[np.float32], actions: NDArray[np.int64], step: int) -> NDArray[np.float32]:
        """Return what advice adds to the rewards of some steps that an update at an env step learns from.

        Args:
            observations: ``(n, obs_dim)``.
            actions: ``(n,)``, executed.
            step: Env steps sampled so far.

        Returns:
            ``(n,)``, in units of the task's reward.
        """
        return np.zeros(len(actions), np.float32)

    def remember(self, start: int = 0, stop: int | None = None) -> None:
        """Take note of vector steps ``start`` to ``stop`` of the rollout, before they are learnt from."""

    def begin_episodes(self) -> None:
        """Take note that all environments have begun an episode anew between two rollouts, out of turn."""

    def compare(self, advantages: NDArray[np.float32]) -> None:
        """Take note of what the actions of a complete rollout were worth.

        Args:
            advantages: ``(T, N)``, not standardised.
        """

    def imitate(self, learner: Imitator, step: int, weights: ImitationWeights) -> None:
        """Have advice imitated beside the student's own update, after each of them.

        Args:
            learner: Takes the gradient steps.
            step: Env steps sampled so far.
            weights: As they were before the update.
        """

    def counters(self) -> dict[str, int]:
        """Return running totals, by the names of ``metrics.COUNTERS``."""
        return self._runner.core.counters()

    def gauges(self) -> dict[str, float]:
        """Return values at this point of the trial, by the names of ``metrics.GAUGES``; NaN: nothing to say."""
        return self._runner.core.gauges()

    def get_state(self) -> dict[str, Any]:
        """Return everything that later updates depend on and the explorer does not keep."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``."""
