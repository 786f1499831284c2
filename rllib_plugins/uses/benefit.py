"""What following advice would gain a student, and where, measured on the student's own random draws.

Pure arrays; knows neither tutors nor learners.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.compiled import compiled
from rllib_plugins.uses.evidence import (
    AGREED,
    ALL,
    DISPUTED,
    INFORMED,
    LEFT,
    OVERLAP,
    SEEN,
    Draws,
    Floats,
    Sums,
    add_steps,
    z_of,
)

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


class Treated(NamedTuple):
    """Hold steps that only the regression has not used yet.

    Attributes:
        observations: ``(n, obs_dim)``.
        treatment: ``(n,)``: whether the advised action was drawn minus its probability, t − m.
        advantages: ``(n,)``.
    """

    observations: NDArray[np.float32]
    treatment: Floats
    advantages: Floats


class RandomFeatures:
    """Describe a state by 1, its scaled numbers where they are few, and random ReLUs of them.

    Args:
        mean: Of the observations, ``(obs_dim,)``.
        spread: Their standard deviation, above 0.
        seed: Of the ReLUs.
    """

    def __init__(self, mean: Floats, spread: Floats, seed: int) -> None:
        self.scale = mean, spread
        rng = np.random.default_rng(seed)
        self._directions = rng.normal(size=(len(mean), NUM_FEATURES)) / math.sqrt(len(mean))
        self._offsets = rng.normal(size=NUM_FEATURES) / 2.0

    def __call__(self, observations: NDArray[np.float32]) -> Floats:
        """Return ``(n, num_features)`` for ``(n, obs_dim)``; each kind of feature has a norm of about 1."""
        mean, spread = self.scale
        return _features(observations, mean, spread, self._directions, self._offsets)


@compiled
def _features(
    observations: NDArray[np.float32], mean: Floats, spread: Floats, directions: Floats, offsets: Floats
) -> Floats:
    num_rows, obs_dim = observations.shape
    scaled = (observations - mean) / spread
    bent = np.dot(scaled, directions)
    num_linear, root_dim = obs_dim if obs_dim <= MAX_LINEAR else 0, math.sqrt(obs_dim)
    norm = math.sqrt(len(offsets) / 2.0)
    features = np.empty((num_rows, 1 + num_linear + len(offsets)))
    for row in range(num_rows):
        features[row, 0] = 1.0
        for i in range(num_linear):
            features[row, 1 + i] = scaled[row, i] / root_dim
        for i in range(len(offsets)):
            features[row, 1 + num_linear + i] = max(bent[row, i] + offsets[i], 0.0) / norm
    return features


class Benefit:
    """Estimate the benefit of advice: δ(s) = A(s, advised) − mean A(s, other actions), by the student's policy.

    A student that samples its actions takes the advised one with a known probability m(s): each step is a randomised
    trial of the advice at no cost. With t = 1 where the advised action was drawn, the score x = (t − m)·A has mean
    m(1 − m)·δ(s), whatever error the critic makes in V(s): E[t − m | s] = 0. Its sign is that of the derivative of the
    return by the logit of the advised action: whether imitation and reward pull the same way (Du et al. 2018,
    arXiv 1812.02224). The test of the advice is that of a partially linear model (Robinson 1988): of t − m and A, only
    what the drawn action alone does not explain is compared: the same advice everywhere counts for nothing. Where
    advice helps is the regression A ≈ (t − m)·δ(s) with δ linear in features of the state
    (the R-learner of Nie & Wager 2021, arXiv 1712.04912, with known propensities), as a Bayesian ridge regression that
    draws each state towards the mean.

    Example:
        >>> import numpy as np
        >>> from rllib_plugins.uses.evidence import Draws
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
        self._sums: Sums | None = None
        self._features: RandomFeatures | None = None
        self._waiting: list[Treated] = []
        self._precision = self._moment = np.empty(0)
        self._squares = self._weight = 0.0
        self._posterior: tuple[Floats, Floats] | None = None

    @property
    def z(self) -> float:
        """Return the evidence that following advice helps beyond the best habit, in standard errors."""
        sums = self._sums
        if sums is None or sums.spreads[LEFT] <= LEAST_INFORMED * sums.spreads[OVERLAP]:
            return 0.0
        return z_of(sums.scores[INFORMED])

    @property
    def disputed_z(self) -> float:
        """Return the same where the advice is not the student's own first choice."""
        return 0.0 if self._sums is None else z_of(self._sums.scores[DISPUTED])

    @property
    def agreement(self) -> float:
        """Return the share of recent steps where the advice is the student's own first choice; NaN before the first."""
        return math.nan if self._sums is None else float(self._sums.choices[AGREED] / self._sums.choices[SEEN])

    @property
    def effect(self) -> float:
        """Return the mean benefit, weighted by m(1 − m), in units of return; NaN before there is evidence."""
        return self._effect()[0]

    @property
    def effect_se(self) -> float:
        """Return the standard error of ``effect``; NaN before there is evidence."""
        return self._effect()[1]

    def _effect(self) -> tuple[float, float]:
        """Return the mean benefit and its standard error."""
        sums = self._sums
        if sums is None or sums.spreads[OVERLAP] <= 0.0:
            return math.nan, math.nan
        total, squares = sums.scores[ALL].tolist()
        overlap = float(sums.spreads[OVERLAP])
        return total / overlap, math.sqrt(squares) / overlap

    def observe(self, draws: Draws) -> None:
        """Add steps, the oldest first; those whose advantage is NaN or absurd are left out."""
        sound = np.abs(draws.advantages) < LARGEST  # False on NaN
        if not sound.all():
            draws = draws.where(sound)
        observations, policy, actions, advised, _ = draws
        advantages = draws.advantages.astype(np.float64, copy=False)
        if not len(advantages):
            return
        self.num_steps += len(advantages)
        if self._sums is None:
            self._sums = Sums.of(policy.shape[1])
        treatment = add_steps(self._sums, policy, actions, advised, advantages, self._half_life)
        self._posterior = None
        self._waiting.append(Treated(observations, treatment, advantages))
        if self._features is None and self.num_steps >= LEAST_TO_SCALE:
            self._fix_features(np.concatenate([waiting.observations for waiting in self._waiting]))
        if self._features is not None:
            for waiting in self._waiting:
                self._regress(waiting, self._features)
            self._waiting = []

    def forget_disputes(self) -> None:
        """Begin ``disputed_z`` anew: what the student has tried since says whether advice would help it again."""
        if self._sums is not None:
            self._sums.scores[DISPUTED] = 0.0

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

    def _regress(self, steps: Treated, features: RandomFeatures) -> None:
        """Add the normal equations of A ≈ (t − m)·features·w."""
        decay = 0.5 ** (len(steps.advantages) / self._half_life)
        treated = features(steps.observations) * steps.treatment[:, None]
        self._precision = self._precision * decay + treated.T @ treated
        self._moment = self._moment * decay + treated.T @ steps.advantages
        self._squares = self._squares * decay + float(steps.advantages @ steps.advantages)
        self._weight = self._weight * decay + len(steps.advantages)

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
            "sums": None if self._sums is None else tuple(part.copy() for part in self._sums),
            "scale": None if self._features is None else self._features.scale,
            "waiting": [tuple(part.copy() for part in steps) for steps in self._waiting],
            "precision": self._precision.copy(),
            "moment": self._moment.copy(),
            "squares": self._squares,
            "weight": self._weight,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a ``get_state``."""
        self.num_steps = state["num_steps"]
        self._sums = None if state["sums"] is None else Sums(*(part.copy() for part in state["sums"]))
        self._features = (
            None if state["scale"] is None else RandomFeatures(state["scale"][0], state["scale"][1], self._seed)
        )
        self._waiting = [Treated(*parts) for parts in state["waiting"]]
        self._precision, self._moment = state["precision"].copy(), state["moment"].copy()
        self._squares, self._weight = state["squares"], state["weight"]
        self._posterior = None
