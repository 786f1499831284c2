"""What following advice would gain a student, and where, measured on the student's own random draws.

Pure arrays; knows neither tutors nor learners.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NUM_FEATURES = 64
"""Random features of a state."""
MAX_LINEAR = 64
"""Longest observation whose numbers are features themselves."""
LEAST_TO_SCALE = 128
"""Steps from which the observations are scaled."""
PRIOR_MEAN_SD = 1.0
"""Prior standard deviation of the mean benefit, in standard deviations of an advantage."""
PRIOR_SPREADS = (0.1, 0.25, 0.5, 1.0)
"""The same of what a state adds to it; the one that the steps make most likely is used (empirical Bayes)."""
LEAST_INFORMED = 0.02
"""Share of the advice's variation that no habit explains, below which advice says nothing."""
LARGEST = 1e30
"""Advantages from here on, infinity among them, are no evidence."""


class Draws(NamedTuple):
    """Holds steps in which a student drew its action at random and the advice is known.

    Attributes:
        observations: ``(n, obs_dim)``.
        policy: ``(n, A)``: the probabilities that the student drew its actions by.
        actions: ``(n,)``: the actions that it drew.
        advised: ``(n,)``: the advised actions.
        advantages: ``(n,)``: of the executed actions, not standardised, in units of return.
    """

    observations: NDArray[np.float32]
    policy: Floats
    actions: NDArray[np.int64]
    advised: NDArray[np.int64]
    advantages: Floats

    @property
    def surprise(self) -> Floats:
        """Return per action whether it was drawn minus its probability, ``(n, A)``."""
        return np.eye(self.policy.shape[1])[self.actions] - self.policy

    @property
    def treatment(self) -> Floats:
        """Return whether the advised action was drawn minus its probability, t − m, ``(n,)``."""
        return (self.actions == self.advised) - self.propensity

    @property
    def propensity(self) -> Floats:
        """Return the probability with which the student draws the advised action, m, ``(n,)``."""
        return self.policy[np.arange(len(self.advised)), self.advised]

    @property
    def disputed(self) -> NDArray[np.bool_]:
        """Return where the advised action is not the student's own first choice, ``(n,)``."""
        return self.policy.argmax(axis=1) != self.advised

    def where(self, mask: NDArray[np.bool_]) -> Draws:
        """Return the steps of a mask ``(n,)``."""
        observations, policy, actions, advised, advantages = self
        return Draws(observations[mask], policy[mask], actions[mask], advised[mask], advantages[mask])


class RandomFeatures:
    """Describes a state by 1, its scaled numbers where they are few, and random ReLUs of them.

    Args:
        mean: Of the observations, ``(obs_dim,)``.
        spread: Their standard deviation, above 0.
        seed: Of the ReLUs.
    """

    def __init__(self, mean: Floats, spread: Floats, seed: int) -> None:
        self.scale = mean, spread
        rng, self._root_dim = np.random.default_rng(seed), math.sqrt(len(mean))
        self._directions = rng.normal(size=(len(mean), NUM_FEATURES)) / self._root_dim
        self._offsets = rng.normal(size=NUM_FEATURES) / 2.0

    def __call__(self, observations: NDArray[np.float32]) -> Floats:
        """Return ``(n, num_features)`` for ``(n, obs_dim)``; each kind of feature has a norm of about 1."""
        mean, spread = self.scale
        scaled = (observations - mean) / spread
        bent = np.maximum(scaled @ self._directions + self._offsets, 0.0) / math.sqrt(NUM_FEATURES / 2.0)
        linear = [scaled / self._root_dim] if len(mean) <= MAX_LINEAR else []
        return np.concatenate([np.ones((len(scaled), 1)), *linear, bent], axis=1)


class Habit:
    """Predicts an advantage by which action was drawn alone, whatever the state: A ≈ Σ_k b_k (1[a = k] − π_k).

    A student finds out by itself, within a few updates, which action is best on average, so advice is worth what it
    adds to that. Advice that is the same in every state adds nothing.

    Args:
        half_life: Steps after which one counts half.
    """

    def __init__(self, half_life: float) -> None:
        self._half_life = half_life
        self.sums: tuple[Floats, Floats, Floats] | None = None

    def add(self, surprise: Floats, treatment: Floats, advantages: Floats) -> tuple[Floats, Floats]:
        """Add steps, and return what the actions alone do not explain of two quantities.

        Args:
            surprise: ``(n, A)``: 1[a = k] − π_k.
            treatment: ``(n,)``: of the advised action.
            advantages: ``(n,)``.

        Returns:
            The remainders of ``treatment`` and of ``advantages``, ``(n,)`` each.
        """
        num_actions = surprise.shape[1]
        if self.sums is None:
            self.sums = np.zeros((num_actions, num_actions)), np.zeros(num_actions), np.zeros(num_actions)
        decay = 0.5 ** (len(advantages) / self._half_life)
        gram, with_treatment, with_advantage = self.sums
        gram = gram * decay + surprise.T @ surprise
        with_treatment = with_treatment * decay + surprise.T @ treatment
        with_advantage = with_advantage * decay + surprise.T @ advantages
        self.sums = gram, with_treatment, with_advantage
        inverse = np.linalg.pinv(gram, rcond=1e-6, hermitian=True)  # the surprises of a step sum to 0
        return treatment - surprise @ (inverse @ with_treatment), advantages - surprise @ (inverse @ with_advantage)


class DecayedScore:
    """Tests whether a mean is above 0: z = Σx/√Σx², both decayed.

    The sum normalises itself, so rare or skewed outcomes weigh as much as they vary. A step's decay does not depend on
    how steps are cut into calls.

    Args:
        half_life: Steps after which one counts half.
    """

    def __init__(self, half_life: float) -> None:
        self._half_life = half_life
        self._sum = self._squares = 0.0

    def add(self, values: Floats) -> None:
        """Add steps, the oldest first."""
        weights = 0.5 ** (np.arange(len(values) - 1, -1, -1) / self._half_life)
        decay = 0.5 ** (len(values) / self._half_life)
        self._sum = self._sum * decay + float(weights @ values)
        self._squares = self._squares * decay**2 + float(weights**2 @ values**2)

    @property
    def z(self) -> float:
        """Return Σx/√Σx²; 0 before anything varied."""
        return self._sum / math.sqrt(self._squares) if self._squares > 1e-200 else 0.0

    @property
    def parts(self) -> tuple[float, float]:
        """Return Σx and √Σx²."""
        return self._sum, math.sqrt(self._squares)

    def get_state(self) -> dict[str, float]:
        """Return the sums."""
        return {"sum": self._sum, "squares": self._squares}

    def set_state(self, state: dict[str, float]) -> None:
        """Take over a ``get_state``."""
        self._sum, self._squares = state["sum"], state["squares"]


class Benefit:
    """Estimates the benefit of advice: δ(s) = A(s, advised) − mean A(s, other actions), by the student's policy.

    A student that samples its actions takes the advised one with a known probability m(s): each step is a randomised
    trial of the advice at no cost. With t = 1 where the advised action was drawn, the score x = (t − m)·A has mean
    m(1 − m)·δ(s), whatever error the critic makes in V(s): E[t − m | s] = 0. Its sign is that of the derivative of the
    return by the logit of the advised action: whether imitation and reward pull the same way (Du et al. 2018,
    arXiv 1812.02224). The test of the advice is that of a partially linear model (Robinson 1988): of t − m and A, only
    what the drawn action alone does not explain is compared, so that advice which is one habit is no advice. Where
    advice helps is the regression A ≈ (t − m)·δ(s) with δ linear in features of the state
    (the R-learner of Nie & Wager 2021, arXiv 1712.04912, with known propensities), as a Bayesian ridge regression that
    draws each state towards the mean.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> states = rng.uniform(-1, 1, (2_000, 1)).astype(np.float32)
        >>> drew = rng.random(2_000) < 0.5
        >>> gained = np.where(drew, states[:, 0], 0.0)          # the advice is right where the state is above 0
        >>> benefit = Benefit(half_life=10_000, seed=0)
        >>> advised, policy = np.arange(2_000) % 2, np.full((2_000, 2), 0.5)
        >>> benefit.observe(Draws(states, policy, np.where(drew, advised, 1 - advised), advised, gained))
        >>> benefit.helps(np.array([[-0.8], [0.8]], np.float32), caution=1.0).tolist()
        [False, True]

    Args:
        half_life: Steps after which evidence counts half.
        seed: Of the features.

    Attributes:
        num_steps: Steps observed so far.
    """

    def __init__(self, half_life: float, seed: int) -> None:
        self.num_steps = 0
        self._half_life = half_life
        self._seed = seed
        self._all, self._disputed, self._informed = (DecayedScore(half_life) for _ in range(3))
        self._habit = Habit(half_life)
        self._left = 0.0
        self._overlap = 0.0
        self._features: RandomFeatures | None = None
        self._waiting: list[Draws] = []
        self._precision = self._moment = np.empty(0)
        self._squares = self._weight = 0.0
        self._posterior: tuple[Floats, Floats] | None = None

    @property
    def z(self) -> float:
        """Return the evidence that following advice helps beyond the best habit, in standard errors."""
        return self._informed.z if self._left > LEAST_INFORMED * self._overlap else 0.0

    @property
    def disputed_z(self) -> float:
        """Return the same where the advice is not the student's own first choice."""
        return self._disputed.z

    @property
    def effect(self) -> float:
        """Return the mean benefit, weighted by m(1 − m), in units of return; NaN before there is evidence."""
        return self._all.parts[0] / self._overlap if self._overlap > 0 else math.nan

    @property
    def effect_se(self) -> float:
        """Return the standard error of ``effect``; NaN before there is evidence."""
        return self._all.parts[1] / self._overlap if self._overlap > 0 else math.nan

    def observe(self, draws: Draws) -> None:
        """Add steps, the oldest first; those whose advantage is NaN or absurd are left out."""
        sound = np.abs(draws.advantages) < LARGEST  # False on NaN
        if not sound.all():
            draws = draws.where(sound)
        num_new = len(draws.advantages)
        if not num_new:
            return
        self.num_steps += num_new
        treatment = draws.treatment
        scores = treatment * draws.advantages
        self._all.add(scores)
        self._disputed.add(np.where(draws.disputed, scores, 0.0))
        informed, unexplained = self._habit.add(draws.surprise, treatment, draws.advantages)
        self._informed.add(informed * unexplained)
        spread = draws.propensity * (1.0 - draws.propensity)
        weights = 0.5 ** (np.arange(num_new - 1, -1, -1) / self._half_life)
        decay = 0.5 ** (num_new / self._half_life)
        self._overlap = self._overlap * decay + float(weights @ spread)
        self._left = self._left * decay + float(weights @ informed**2)
        self._waiting.append(draws)
        self._posterior = None
        if self._features is None and self.num_steps >= LEAST_TO_SCALE:
            self._fix_features(np.concatenate([waiting.observations for waiting in self._waiting]))
        if self._features is not None:
            for waiting in self._waiting:
                self._regress(waiting, self._features)
            self._waiting = []

    def forget_disputes(self) -> None:
        """Begin ``disputed_z`` anew: what the student has tried since says whether advice would help it again."""
        self._disputed = DecayedScore(self._half_life)

    def helps(self, observations: NDArray[np.float32], caution: float) -> NDArray[np.bool_]:
        """Return where advice is expected to help, ``(n,)``: mean of δ(s) above ``caution`` standard deviations.

        Args:
            observations: ``(n, obs_dim)``.
            caution: Below 0: where it is not shown to harm; that is everywhere before there is evidence.
        """
        if self._features is None or self._squares <= 0.0:
            return np.full(len(observations), caution < 0.0)
        if self._posterior is None:
            self._posterior = self._solve()
        mean, root = self._posterior
        features = self._features(observations)
        return np.asarray(features @ mean > caution * np.sqrt(((features @ root) ** 2).sum(axis=1)))

    def _fix_features(self, observations: NDArray[np.float32]) -> None:
        """Choose the features by the first steps: what they are must not change under the sums."""
        spread = observations.std(axis=0, dtype=np.float64)
        mean = observations.mean(axis=0, dtype=np.float64)
        self._features = RandomFeatures(mean, np.where(spread > 1e-6, spread, 1.0), self._seed)
        size = self._features(observations[:1]).shape[1]
        self._precision, self._moment = np.zeros((size, size)), np.zeros(size)

    def _regress(self, draws: Draws, features: RandomFeatures) -> None:
        """Add the normal equations of A ≈ (t − m)·features·w."""
        decay = 0.5 ** (len(draws.advantages) / self._half_life)
        treated = features(draws.observations) * draws.treatment[:, None]
        self._precision = self._precision * decay + treated.T @ treated
        self._moment = self._moment * decay + treated.T @ draws.advantages
        self._squares = self._squares * decay + float(draws.advantages @ draws.advantages)
        self._weight = self._weight * decay + len(draws.advantages)

    def _solve(self) -> tuple[Floats, Floats]:
        """Return the posterior mean of w and a root of its covariance, in standard deviations of an advantage."""
        moment = self._moment / math.sqrt(self._squares / self._weight)
        most_likely, best = -math.inf, (moment, self._precision)
        for spread in PRIOR_SPREADS:
            prior = np.full(len(moment), 1.0 / spread**2)
            prior[0] = 1.0 / PRIOR_MEAN_SD**2
            lower = np.linalg.cholesky(self._precision + np.diag(prior))
            root = np.linalg.inv(lower).T
            whitened = root.T @ moment
            log_volume = float(np.log(np.diag(lower)).sum()) - 0.5 * float(np.log(prior).sum())
            log_likelihood = 0.5 * float(whitened @ whitened) - log_volume
            if log_likelihood > most_likely:
                most_likely, best = log_likelihood, (root @ whitened, root)
        return best

    def get_state(self) -> dict[str, Any]:
        """Return everything that later answers depend on."""
        return {
            "num_steps": self.num_steps,
            "all": self._all.get_state(),
            "disputed": self._disputed.get_state(),
            "informed": self._informed.get_state(),
            "habit": self._habit.sums,
            "overlap": self._overlap,
            "left": self._left,
            "scale": None if self._features is None else self._features.scale,
            "waiting": [tuple(part.copy() for part in draws) for draws in self._waiting],
            "precision": self._precision.copy(),
            "moment": self._moment.copy(),
            "squares": self._squares,
            "weight": self._weight,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``."""
        self.num_steps = state["num_steps"]
        self._all.set_state(state["all"])
        self._disputed.set_state(state["disputed"])
        self._informed.set_state(state["informed"])
        self._habit.sums = state["habit"]
        self._overlap, self._left = state["overlap"], state["left"]
        self._features = (
            None if state["scale"] is None else RandomFeatures(state["scale"][0], state["scale"][1], self._seed)
        )
        self._waiting = [Draws(*parts) for parts in state["waiting"]]
        self._precision, self._moment = state["precision"].copy(), state["moment"].copy()
        self._squares, self._weight = state["squares"], state["weight"]
        self._posterior = None
