"""Decide when advice is imitated: by the tutor's own return, by evidence about it, and by the student's returns."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rllib_plugins.uses.benefit import Benefit
from rllib_plugins.uses.evidence import add_scores
from rllib_plugins.uses.options import Distil

LEAST_EVIDENCE_STEPS = 128
"""Steps before which nothing is decided."""
COMPARED_STEPS, COMPARED_EPISODES = 512, 16
"""Env steps whose episodes say by their mean return how the student is doing, and how many they are at least."""
LEAST_EPISODES = 8
"""Episodes below which it says nothing."""
FALL_ERRORS, FOLLOWED_FALL_ERRORS = 2.0, 1.0
"""Standard errors by which the return, plus that many, must lie below the return at release, minus that many, for a
student to count as fallen back; fewer for a tutor worth following."""
PATIENCE_GROWTH, MOST_GROWTHS = 2.0, 60
"""Factor on ``stall_steps`` and ``plateau_steps`` after each relapse, and the most times that it is applied."""
FOLLOWED_EVIDENCE_SHARE = 0.5
"""Share of ``evidence_left`` from which on evidence speaks for a tutor worth following while returns stand still: the
more a student follows, the less its draws tell."""
FAR_SHARE = 0.25
"""Share of the way to the tutor's return from which on a plateau is no longer far below it."""
ROUNDING = 1e-9
"""Share of the best mean return, and of a return of 1, by which another one has to be higher: less is rounding."""
FOLLOWED_SHARE = 0.8
"""Share of first choices that are the advised actions from which on an exploring student follows its tutor."""
AGREEMENT_GAIN = 0.02
"""Least growth of that share which counts as a gain."""
KEPT_SHARE = 0.5
"""Share of what a student gained by imitation below which it has fallen back after it was let go below its tutor."""
NEAR_SHARE = 0.5
"""Share of the way to the return of a tutor that can be passed from which on a student is held to it."""
ALONE_PHASES = 2.0
"""For how many times ``lead_steps`` a student that was let go below its tutor tries to do without."""


class Limits(NamedTuple):
    """Say when phases of imitation begin and end.

    Attributes:
        options: Thresholds of the evidence.
        phase_steps: Env steps after which a phase ends; infinite: evidence alone ends it.
        tutor_return: Mean return of the tutor's own play; infinite where it is not known.
        follow: Whether the tutor is known to be worth following; None: evidence decides.
        stall_steps: Env steps without a better return after which evidence may end even the phase of a followed tutor.
        plateau_steps: Env steps without a gain after which imitation ends, whatever the evidence, where the student has
            not come a quarter of the way to the tutor's return.
        explores: The returns are those of an exploring student (DQN) and may lie far below what its first choices
            reach. How often these are the advised actions says whether it gains, and whether it follows its tutor.
        lead_steps: Env steps after which a followed tutor that can be passed lets a student go that has not come half
            of the way to it; infinite: it does not.
        last_step: Env step of the trial from which on it does not, since too few are left to profit from it.
        fade_steps: Env steps over which imitation fades, once a plateau is reached or the student's draws have not
            spoken for a followed tutor for ``stall_steps`` longer than they have; infinite: it does not fade.
        is_best: The tutor plays about as well as can be: a student is not let go because it has reached that level, or
            because its draws do not speak for the tutor any more, but only where they speak against it, and only until
            it falls back.
    """

    options: Distil
    phase_steps: float
    tutor_return: float
    follow: bool | None = None
    stall_steps: float = math.inf
    plateau_steps: float = math.inf
    explores: bool = False
    lead_steps: float = math.inf
    last_step: float = math.inf
    fade_steps: float = math.inf
    is_best: bool = False

    @property
    def level(self) -> float:
        """Return the mean return from which on a student needs its tutor no more."""
        return math.inf if self.is_best else self.tutor_return

    @property
    def steps_down(self) -> float:
        """Return for how many env steps imitation goes on after a plateau is reached."""
        return self.fade_steps if self.fade_steps < math.inf else 0.0

    @property
    def fall_errors(self) -> float:
        """Return the standard errors of both means by which a student that was let go must have fallen back."""
        return FOLLOWED_FALL_ERRORS if self.follow else FALL_ERRORS


class Episodes(NamedTuple):
    """Sum up the episodes that ended in some steps.

    Attributes:
        num_steps: Env steps.
        num_episodes: Episodes that ended in them.
        returns: Sum of their returns.
        squares: Sum of the squares.
    """

    num_steps: int
    num_episodes: int
    returns: float
    squares: float

    def plus(self, other: Episodes, sign: int = 1) -> Episodes:
        """Return both together, or with ``sign`` −1 what is left without the other."""
        return Episodes(
            self.num_steps + sign * other.num_steps,
            self.num_episodes + sign * other.num_episodes,
            self.returns + sign * other.returns,
            self.squares + sign * other.squares,
        )


NO_EPISODES = Episodes(0, 0, 0.0, 0.0)


@dataclass(slots=True)
class Phase:
    """Decide when advice is imitated, by evidence about it and by the student's own returns.

    A tutor whose own play is known to be worse than the student's is not followed: advice that beats a beginner's
    actions can still lead nowhere, and a student that is held at its tutor's level does not pass it. Whether a student
    still needs a tutor that is worth following is tried out: imitation ends, and begins again, for longer, if the
    student falls back. Nor does it pass a tutor that its network cannot follow all the way: each answer is better than
    the student's own, and yet imitating them takes it no further. So imitation ends on a plateau far below the tutor,
    too; behind a tutor that can be passed, once it has been led for long and is not half way there, and early enough
    in its training: it then tries for long to do without, since its values are at first those of a led student.

    Attributes:
        num_total: Steps so far.
        is_on: Advice is imitated.
        num_steps: Steps of the present phase so far.
        num_phases: Phases begun so far.
        num_idle: Steps since the last phase ended, or since the beginning.
        latest: The latest rollouts since the last phase began or ended.
        total: Their sum, kept since it is asked for at every rollout.
        reached: Mean return below which the student has fallen back since the last phase; NaN: there is no such.
        is_exhausted: The last phase ended below the tutor's return, whatever the evidence.
        num_alone: For how many steps no phase may begin.
        first: First mean return in the present phase.
        best: Highest mean return in the present phase; of an exploring student, highest agreement.
        best_at: ``num_steps`` when it was seen.
        agreement: Share of recent first choices that are the advised actions.
        num_unsupported: For how many steps more, of late, evidence has not spoken for a followed tutor than it has.
    """

    num_total: int = 0
    is_on: bool = False
    num_steps: int = 0
    num_phases: int = 0
    num_idle: int = 0
    latest: list[Episodes] = field(default_factory=list)
    total: Episodes = NO_EPISODES
    reached: float = math.nan
    is_exhausted: bool = False
    num_alone: float = 0.0
    first: float = math.nan
    best: float = -math.inf
    best_at: int = 0
    agreement: float = math.nan
    num_unsupported: int = 0

    def update(self, benefit: Benefit, new_returns: NDArray[np.float64], num_new: int, limits: Limits) -> bool:
        """Take note of new steps; return whether a phase begins.

        Args:
            benefit: What is known about the advice; forgets its disputes when a phase ends.
            new_returns: ``(n,)``, of the episodes that ended since the last call.
            num_new: Steps since the last call.
            limits: When phases begin and end.
        """
        self._note(new_returns, num_new)
        self.num_total += num_new
        options = limits.options
        if self.is_on:
            self.num_steps += num_new
            self.agreement = benefit.agreement
            self._note_gain(limits)
            is_held_below = self._is_held_below(limits)
            if is_held_below or self._overdue(limits) >= limits.steps_down:
                gained = self._bound(0.0) - self.first
                self._end(benefit, self.first + KEPT_SHARE * gained if gained > 0.0 else math.nan)
                self.is_exhausted, self.num_alone = True, ALONE_PHASES * limits.lead_steps if is_held_below else 0.0
                return False
            is_harmful = min(benefit.z, benefit.disputed_z) < -options.evidence_left
            if limits.follow and not limits.is_best:
                unsupported = num_new if benefit.z < options.evidence_left else -num_new
                self.num_unsupported = max(0, self.num_unsupported + unsupported)
            has_stalled = self._steps_since_gain() >= self._patience(limits.stall_steps)
            least = options.evidence_left * (FOLLOWED_EVIDENCE_SHARE if limits.follow else 1.0)
            is_unsupported = benefit.z < least and not limits.is_best
            is_refuted = (is_unsupported or is_harmful) and (has_stalled or not limits.follow)
            is_passed = self._bound(1.0) >= limits.level  # False on NaN
            is_over = self.num_steps >= limits.phase_steps or not self.strength(limits)
            if is_refuted or is_passed or is_over:
                is_useless = is_refuted and not limits.is_best and (is_harmful or not limits.follow)
                self._end(benefit, math.nan if is_useless else self._bound(-limits.fall_errors))
            return False
        self.num_idle += num_new
        if self.num_idle < self.num_alone:
            return False
        if limits.follow and not self.num_phases and self.total.num_episodes < LEAST_EPISODES:
            return self._begin(limits)
        if limits.follow is False or (limits.level < math.inf and not self._bound(2.0) < limits.level):
            return False
        if self.num_phases == 0:
            begins = bool(limits.follow) or (benefit.num_steps >= LEAST_EVIDENCE_STEPS and benefit.z > options.evidence)
        else:
            is_wanted = benefit.disputed_z > options.evidence and not self.is_exhausted
            begins = is_wanted or self._has_fallen(limits)
        return begins and self._begin(limits)

    def strength(self, limits: Limits) -> float:
        """Return how much of the goal of imitation is left, in [0, 1].

        A student that draws its actions may be held below its tutor's return for as long as it imitates. One that is
        let go at once forgets; one that is let go slowly learns to do without.
        """
        if not self.is_on:
            return 0.0
        overdue = max(0.0, self.num_unsupported - self._patience(limits.stall_steps), self._overdue(limits))
        return max(0.0, 1.0 - overdue / limits.fade_steps)

    def _is_held_below(self, limits: Limits) -> bool:
        """Say whether a student has been led for long, and is far below a tutor that it might pass by itself."""
        if not limits.follow or limits.level == math.inf or self.num_total > limits.last_step:
            return False
        is_far = self._bound(0.0) < self._on_the_way(NEAR_SHARE, limits)  # False on NaN
        return is_far and self.num_steps >= self._patience(limits.lead_steps)

    def _overdue(self, limits: Limits) -> float:
        """Return for how many env steps a plateau has lasted longer than it may; below 0: it may last on.

        It may, for as long as it likes, where the student has come a quarter of the way to its tutor's return, or
        explores and follows its tutor.
        """
        is_near = self._bound(0.0) >= self._on_the_way(FAR_SHARE, limits)  # False on NaN
        if is_near or (limits.explores and self.agreement >= FOLLOWED_SHARE):
            return -math.inf
        return self._steps_since_gain() - self._patience(limits.plateau_steps)

    def _on_the_way(self, share: float, limits: Limits) -> float:
        """Return the mean return at a share of the way from the first of the phase to the tutor's; NaN before it."""
        return self.first + share * (limits.tutor_return - self.first)

    def _patience(self, steps: float) -> float:
        """Return after how many env steps without a sign of gain something ends: more after each relapse."""
        return steps * PATIENCE_GROWTH ** min(self.num_phases - 1, MOST_GROWTHS)

    def _note_gain(self, limits: Limits) -> None:
        """Take note of the best of the phase: one that tries its own actions may not come all the way."""
        mean = self._bound(0.0)
        if math.isnan(self.first):
            self.first = mean
        least = AGREEMENT_GAIN if limits.explores else ROUNDING * max(1.0, abs(mean))
        value = self.agreement if limits.explores else mean
        if value > self.best + least:  # False on NaN
            self.best, self.best_at = value, self.num_steps

    def _steps_since_gain(self) -> int:
        """Return for how many env steps the student has gained no more; 0 where too few episodes say how it does."""
        return 0 if math.isnan(self._bound(0.0)) else self.num_steps - self.best_at

    def _has_fallen(self, limits: Limits) -> bool:
        """Say whether the student has fallen back since it was let go."""
        return self._bound(limits.fall_errors) < self.reached  # False on NaN

    def _begin(self, limits: Limits) -> bool:
        """Begin a phase."""
        self.is_on, self.num_steps, self.is_exhausted = True, 0, False
        self.first, self.best, self.best_at, self.num_unsupported = math.nan, -math.inf, 0, 0
        self._forget()
        self.num_phases += 1
        return True

    def _end(self, benefit: Benefit, reached: float) -> None:
        """End the phase; imitation begins again where the student falls below ``reached``, if that is not NaN."""
        self.is_on, self.num_idle, self.num_alone, self.reached = False, 0, 0.0, reached
        self._forget()
        benefit.forget_disputes()

    def _forget(self) -> None:
        """Begin anew with the episodes."""
        self.latest, self.total = [], NO_EPISODES

    def _note(self, new_returns: NDArray[np.float64], num_new: int) -> None:
        """Add a rollout, and drop those that are no longer compared."""
        totals = np.zeros(2)
        add_scores(totals, new_returns, math.inf)
        new = Episodes(num_new, len(new_returns), *totals.tolist())
        self.latest.append(new)
        self.total = self.total.plus(new)
        while True:
            rest = self.total.plus(self.latest[0], -1)
            if rest.num_steps < COMPARED_STEPS or rest.num_episodes < COMPARED_EPISODES:
                return
            self.latest.pop(0)
            self.total = rest

    def _bound(self, num_errors: float) -> float:
        """Return the mean return plus so many standard errors; NaN of too few episodes."""
        played = self.total
        if played.num_episodes < LEAST_EPISODES:
            return math.nan
        mean = played.returns / played.num_episodes
        variance = max(played.squares / played.num_episodes - mean**2, 0.0)
        return mean + num_errors * math.sqrt(variance / played.num_episodes)
