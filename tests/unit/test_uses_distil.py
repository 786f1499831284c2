"""Distillation: what a student asks, when it imitates, and where."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rllib_plugins.advising.advisor import AdviceBatch, Advisor
from rllib_plugins.advising.config import PAPER_ADVICE, AdviceConfig
from rllib_plugins.metrics import Source
from rllib_plugins.rollout.arrays import RolloutArrays
from rllib_plugins.tasks import load_task
from rllib_plugins.uses.base import Use, UseContext
from rllib_plugins.uses.benefit import Benefit
from rllib_plugins.uses.distil import Distillation
from rllib_plugins.uses.options import Distil, UseOptions, make_use, register_use, use_names
from rllib_plugins.uses.phase import Limits, Phase
from tutor_service.errors import UserError

NUM_STEPS, NUM_ENVS, NUM_ACTIONS = 32, 8, 2


class Told(Advisor):
    """Says what a function of the observations says."""

    def __init__(self, says) -> None:
        super().__init__(load_task("blackjack"), Source.MODEL)
        self._says = says

    def evaluate(self, observations):
        rows = np.asarray(self._says(observations), dtype=np.float64)
        source = np.where(np.isnan(rows[:, 0]), Source.MISSED, Source.MODEL).astype(np.int8)
        return AdviceBatch(rows, source, latency_ms=5.0)


class Learner:
    """Counts the gradient steps, and keeps what they were about."""

    def __init__(self, follows_after: int = 10**9) -> None:
        self.samples: list = []
        self.goals: list = []
        self._follows_after = follows_after

    def imitate_again(self, sample, goal) -> bool:
        if len(self.samples) >= self._follows_after:
            return False
        self.samples.append(sample)
        self.goals.append(goal)
        return True


class Student:
    """Draws uniformly in random states, and is paid by a function of state and action."""

    def __init__(
        self,
        says,
        pays,
        *,
        advice: AdviceConfig | None = None,
        noise: float = 0.5,
        seed: int = 0,
        is_proximal: bool = False,
    ) -> None:
        self._rng, self._pays, self._noise = np.random.default_rng(seed), pays, noise
        rollout = RolloutArrays.allocate(
            (NUM_STEPS, NUM_ENVS), 3, NUM_ACTIONS, for_replay=False, with_advice=False, with_masks=False
        )
        self.runner = SimpleNamespace(rollout=rollout, num_envs=NUM_ENVS, num_env_steps_sampled_lifetime=0, core=None)
        self.config = SimpleNamespace(
            advice=advice or AdviceConfig(),
            seed=seed,
            theta_steps=10_000.0,
            value_based=False,
            is_proximal=is_proximal,
            learns_at=lambda step: True,
        )
        self.learner = Learner()
        self.advisor = Told(says)
        use = make_use(self.config.advice.named_use, self.config.advice.use_options)
        self.use = use.make(UseContext(self.config, self.runner, self.advisor))

    def play(self, num_rollouts: int = 1) -> None:
        """Fill rollouts whose episodes are one step long, and learn from them."""
        rollout, shape = self.runner.rollout, (NUM_STEPS, NUM_ENVS)
        for _ in range(num_rollouts):
            rollout.observations[:] = np.round(self._rng.uniform(-1, 1, (*shape, 3)), 1)
            rollout.actions[:] = self._rng.integers(NUM_ACTIONS, size=shape)
            rollout.rewards[:] = self._pays(rollout.observations, rollout.actions)
            rollout.rewards[:] += self._noise * self._rng.normal(size=shape)
            rollout.terminated[:] = True
            self.runner.num_env_steps_sampled_lifetime += rollout.rewards.size
            self.use.compare(rollout.rewards - rollout.rewards.mean())
            step = self.runner.num_env_steps_sampled_lifetime
            self.use.imitate(self.learner, step, self.use.weights(step))


def named(observations):
    return (observations[..., 1] > 0).astype(int)


def first(observations):
    return np.tile([1.0, 0.0], (len(observations), 1))


def by_state(observations):
    return np.eye(2)[named(observations)]


def named_is_paid(observations, actions):
    return 1.0 * (actions == named(observations))


def other_is_paid(observations, actions):
    return 1.0 * (actions != named(observations))


def test_good_advice_is_imitated_soon():
    student = Student(by_state, named_is_paid)
    student.play(2)
    assert len(student.learner.samples) >= 200
    sample = student.learner.samples[0]
    assert (sample.advice == by_state(sample.observations)).all()
    assert student.use.gauges()["advice/trust"] == 1.0
    assert student.use.gauges()["advice/effect"] == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize("pays", [other_is_paid, lambda observations, actions: 0.0 * actions], ids=["bad", "useless"])
def test_bad_and_useless_advice_is_not_imitated(pays):
    num_imitated = 0
    for seed in range(5):
        student = Student(by_state, pays, seed=seed)
        student.play(20)
        num_imitated += bool(student.learner.samples)
    assert num_imitated <= (1 if pays is not other_is_paid else 0)


def test_one_answer_for_every_state_is_not_imitated_however_good_it_is():
    student = Student(first, lambda s, a: 1.0 * (a == 0))
    student.play(20)
    assert not student.learner.samples
    assert student.use.gauges()["advice/effect"] == pytest.approx(1.0, abs=0.3)


def test_advice_is_imitated_where_it_is_right():
    student = Student(by_state, lambda s, a: np.where(s[..., 0] > -0.3, 1.0, -1.0) * (a == named(s)), noise=0.3)
    student.play(4)
    last = np.concatenate([sample.observations for sample in student.learner.samples[-50:]])
    assert (last[:, 0] > -0.5).mean() > 0.97


def test_imitation_ends_when_evidence_turns_and_the_student_is_left_alone():
    student = Student(by_state, named_is_paid)
    student.play(2)
    student._pays = other_is_paid
    student.play(10)
    taken = len(student.learner.samples)
    student.play(10)
    assert len(student.learner.samples) == taken
    assert student.use.gauges()["advice/trust"] == 0.0


def test_a_student_that_follows_is_left_alone():
    student = Student(by_state, named_is_paid)
    student.learner = Learner(follows_after=7)
    student.play(6)
    assert len(student.learner.samples) == 7


def test_the_best_guess_is_imitated_however_soft_the_advice():
    student = Student(lambda s: 0.49 + 0.02 * by_state(s), named_is_paid)
    student.play(2)
    sample = student.learner.samples[0]
    assert (sample.advice == by_state(sample.observations)).all()


@pytest.mark.parametrize("row", [[0.5, 0.5], [np.nan, np.nan]], ids=["no guess", "missed"])
def test_what_holds_no_guess_is_neither_measured_nor_imitated(row):
    advice = AdviceConfig(probability_final=1.0)
    student = Student(lambda s: np.tile(row, (len(s), 1)), named_is_paid, advice=advice)
    student.play(4)
    assert not student.learner.samples
    assert np.isnan(student.use.gauges()["advice/effect"])
    counted = student.use.counters()
    missed = 4 * NUM_STEPS * NUM_ENVS if np.isnan(row[0]) else 0
    assert counted["advice/missed"] == missed
    assert counted["advice/consultations"] == 4 * NUM_STEPS * NUM_ENVS - missed


def test_a_budget_bounds_what_is_asked():
    student = Student(by_state, named_is_paid, advice=AdviceConfig(advice_budget=300))
    student.play(4)
    assert student.use.counters()["advice/consultations"] == 300
    assert student.learner.samples  # what was told is used further


def test_fewer_states_are_asked_about_as_p_falls_and_fewer_still_once_nothing_comes_of_it():
    advice = AdviceConfig(use="distil", use_options={"patience_steps": 2_048, "idle_share": 0.0})
    student = Student(by_state, lambda s, a: 0.0 * a, advice=advice, noise=0.0)
    student.play(8)
    asked = student.use.counters()["advice/consultations"]
    assert 0.85 * 2_048 < asked < 2_048  # P falls from 1 to 0.1 over 10,000 steps
    student.play(8)
    assert student.use.counters()["advice/consultations"] == asked


def test_a_restored_use_goes_on_as_if_never_stopped():
    one, other = Student(by_state, named_is_paid), Student(by_state, named_is_paid)
    one.play(3)
    other.use.set_state(one.use.get_state())
    other._rng.bit_generator.state = one._rng.bit_generator.state
    other.runner.num_env_steps_sampled_lifetime = one.runner.num_env_steps_sampled_lifetime
    before = len(one.learner.samples)
    for student in (one, other):
        student.play(4)
    for mine, theirs in zip(one.learner.samples[before:], other.learner.samples, strict=True):
        np.testing.assert_array_equal(mine.observations, theirs.observations)
    assert one.use.gauges() == other.use.gauges()
    assert one.use.counters() == other.use.counters()


def known(z: float, disputed_z: float = 0.0, agreement: float = math.nan) -> SimpleNamespace:
    return SimpleNamespace(
        z=z, disputed_z=disputed_z, agreement=agreement, num_steps=1_000, forget_disputes=lambda: None
    )


def advance(phase: Phase, benefit: Any, returns: list[float], num_new: int, limits: Limits) -> bool:
    return phase.update(benefit, np.array(returns, np.float64), num_new, limits)


FADING = Limits(Distil(), math.inf, 500.0, follow=True, stall_steps=1_000, fade_steps=4_000)


def fading(zs: list[float], limits: Limits = FADING) -> list[float]:
    """Return what is left of imitation after each 1,000 steps of a student that gains all the time, by evidence."""
    phase, left = Phase(), []
    advance(phase, known(0.0), [], 100, limits)
    for number, z in enumerate(zs):
        advance(phase, known(z), [10.0 * number] * 16, 1_000, limits)
        left.append(phase.strength(limits))
    return left


def test_imitation_of_a_followed_tutor_fades_where_the_students_draws_do_not_speak_for_it():
    assert fading([0.5] * 6) == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert fading([2.5] * 6) == [1.0] * 6, "they speak for it"
    assert fading([0.5, 0.5, 2.5, 2.5, 0.5]) == [1.0, 0.75, 1.0, 1.0, 1.0], "as long as they have, of late"
    assert fading([0.5] * 6, FADING._replace(fade_steps=math.inf)) == [1.0] * 6


def test_a_student_that_falls_back_is_led_again_in_full():
    phase = Phase()
    advance(phase, known(0.0), [], 100, FADING)
    for number in range(4):
        advance(phase, known(0.5), [10.0 * number] * 16, 1_000, FADING)
    assert phase.strength(FADING) == 0.25
    for _ in range(3):  # it gains no more: let go
        advance(phase, known(0.5), [30.0] * 16, 1_000, FADING)
    assert not phase.is_on and phase.strength(FADING) == 0.0
    advance(phase, known(0.5), [1.0] * 32, 1_000, FADING)
    assert phase.is_on and phase.strength(FADING) == 1.0


PLATEAU = Limits(Distil(), math.inf, 15.0, follow=True, plateau_steps=4_000)


def led(phase: Phase, means: list[float], limits: Limits = PLATEAU, z: float = 9.0) -> list[bool]:
    """Return whether the student is led after each 1,000 steps of advice that is better than its own, by its return."""
    found = []
    for mean in means:
        advance(phase, known(z, disputed_z=z), [mean - 0.1, mean + 0.1] * 8, 1_000, limits)
        found.append(phase.is_on)
    return found


@pytest.mark.parametrize("follow", [True, None])
def test_imitation_that_takes_the_student_no_further_ends_whatever_the_evidence(follow):
    phase, limits = Phase(), PLATEAU._replace(follow=follow)
    assert led(phase, [0.0, 1.0, 3.0, 3.0, 2.9, 3.0], limits) == [True] * 6
    assert led(phase, [3.0, 3.0], limits) == [False] * 2, "although it disputes what the advice says"


def led_explorer(agreements: list[float], mean: float = 1.0) -> list[bool]:
    """Return the same of an exploring student, by the share of its first choices that are the advised actions."""
    phase, limits, found = Phase(), PLATEAU._replace(explores=True), []
    for number, agreement in enumerate(agreements):
        returns = [(mean if number > 1 else 0.0) + 0.01 * number] * 16  # it creeps up all the time
        advance(phase, known(9.0, 9.0, agreement), returns, 1_000, limits)
        found.append(phase.is_on)
    return found


def test_an_explorer_is_led_for_as_long_as_it_follows_better_or_well_enough():
    assert led_explorer([0.5, 0.6, 0.7, *[0.71] * 3]) == [True] * 6
    assert led_explorer([0.5, 0.6, 0.7, *[0.71] * 4])[-2:] == [True, False], "whatever its returns"
    assert led_explorer([0.5, *[0.8] * 20]) == [True] * 21
    assert led_explorer([0.4, *(0.4 + 0.03 * number for number in range(13))]) == [True] * 14
    assert led_explorer([0.5, *[0.7] * 20], mean=5.0) == [True] * 21, "a quarter of the way to its tutor"


def test_a_student_that_gains_or_is_near_its_tutor_goes_on_being_led():
    assert led(Phase(), [0.1 * number for number in range(30)]) == [True] * 30
    assert led(Phase(), [0.0, 1.0, *[5.1] * 30]) == [True] * 32, "the way is from 1 to 15"


def test_after_a_plateau_a_student_is_led_again_once_it_has_lost_half_of_what_it_gained_and_for_twice_as_long():
    phase = Phase()
    assert not led(phase, [0.0, 1.0, 3.0, *[3.0] * 4])[-1]
    assert led(phase, [2.6, 2.3, 2.1, 1.7]) == [False, False, False, True], "the first return that was seen is 1"
    assert led(phase, [1.0, 3.0, *[3.0] * 8])[-2:] == [True, False]


LEAD = Limits(Distil(), math.inf, 15.0, follow=True, lead_steps=4_000, last_step=50_000)
"""Half of the way from the first return to the tutor's is at 8 where that is 1."""


def test_a_student_that_a_tutor_holds_far_below_itself_is_let_go_and_tries_for_long_to_do_without():
    phase = Phase()
    assert led(phase, [0.0, 1.0, 5.0, 6.0, 7.0], LEAD) == [True] * 4 + [False], "although it still gains"
    assert led(phase, [-9.0] * 8, LEAD) == [False] * 7 + [True], "it has lost half of what it gained, for long"
    assert led(phase, [1.0, *[5.0] * 7], LEAD) == [True] * 7 + [False], "led for twice as long"
    assert led(phase, [6.0] * 20, LEAD) == [False] * 20


def test_a_student_that_does_as_well_alone_is_not_led_again_whatever_the_evidence():
    phase = Phase()
    assert not led(phase, [0.0, 1.0, 5.0, 6.0, 7.0], LEAD)[-1]
    assert led(phase, [4.0] * 20, LEAD) == [False] * 20


@pytest.mark.parametrize(
    ("means", "limits"),
    [
        ([0.0, 1.0, *[8.5] * 20], LEAD),
        ([0.0, 1.0, *[5.0] * 20], LEAD._replace(is_best=True)),
        ([0.0, 1.0, *[5.0] * 20], LEAD._replace(last_step=3_000)),
        ([0.0, 1.0, *[5.0] * 20], LEAD._replace(tutor_return=math.inf)),
        ([0.0, 1.0, *[5.0] * 20], LEAD._replace(follow=None)),
    ],
    ids=["half way there", "a tutor that plays as well as can be", "too few steps are left", "unknown", "by evidence"],
)
def test_a_student_is_not_let_go_below_its_tutor_where(means, limits):
    assert led(Phase(), means, limits) == [True] * len(means)


def test_a_student_that_gained_nothing_by_imitation_is_not_led_again():
    phase = Phase()
    assert not led(phase, [2.0, *[1.9] * 7])[-1]
    assert led(phase, [1.0, 0.0]) == [False] * 2


def test_after_a_plateau_imitation_fades_where_it_can():
    phase, limits, left = Phase(), PLATEAU._replace(fade_steps=4_000), []
    for _ in range(10):
        led(phase, [3.0], limits)
        left.append(phase.strength(limits))
    assert left[1:] == [1.0] * 5 + [0.75, 0.5, 0.25, 0.0]


@pytest.mark.parametrize("is_proximal", [True, False])
def test_only_students_whose_updates_are_proximal_are_let_go_slowly(is_proximal):
    """One that takes plain gradient steps forgets what it was shown."""
    advice = AdviceConfig(
        tutor_return=99.0, follow=True, use_options={"stall_steps": 512, "fade_steps": 1_024, "evidence_left": 2.9}
    )
    rollouts = iter(range(99))
    student = Student(by_state, lambda s, a: 0.0 * a + next(rollouts), advice=advice, is_proximal=is_proximal)
    student.play(8)
    goals = [goal.until for goal in student.learner.goals]
    assert max(goals) == 0.7 and (min(goals) < 0.7) == is_proximal


def test_a_phase_begins_by_evidence_and_lasts_while_evidence_does():
    phase, limits = Phase(), Limits(Distil(), math.inf, math.inf)
    assert not advance(phase, known(2.9), [], 50, limits)
    assert advance(phase, known(3.1), [], 50, limits)
    assert not advance(phase, known(2.1), [7.0] * 40, 10_000, limits) and phase.is_on
    advance(phase, known(1.9), [7.0] * 40, 100, limits)
    assert not phase.is_on


def test_a_student_that_falls_back_is_helped_again():
    phase, limits = Phase(), Limits(Distil(), 100.0, math.inf)
    advance(phase, known(3.1), [], 50, limits)
    advance(phase, known(3.1), [5.0, 5.2] * 20, 100, limits)
    assert not phase.is_on
    assert not advance(phase, known(3.1), [5.1, 5.3] * 20, 100, limits)
    assert advance(phase, known(3.1), [1.0, 1.2] * 20, 100, limits)


def test_disputes_that_go_against_the_advice_end_a_phase():
    phase, limits = Phase(), Limits(Distil(), math.inf, math.inf)
    advance(phase, known(3.1), [], 50, limits)
    advance(phase, known(3.1, -2.1), [], 50, limits)
    assert not phase.is_on


def test_a_tutor_is_followed_while_the_student_is_below_what_the_tutor_reaches_itself():
    phase, limits = Phase(), Limits(Distil(), math.inf, tutor_return=4.0)
    assert not advance(phase, known(9.0), [1.0, 1.2] * 3, 50, limits), "too few episodes to say where the student is"
    assert advance(phase, known(9.0), [1.0, 1.2], 50, limits)
    advance(phase, known(9.0), [3.0, 3.2] * 8, 500, limits)
    assert phase.is_on
    advance(phase, known(9.0), [3.9, 4.1] * 8, 600, limits)
    assert not phase.is_on
    assert not advance(phase, known(9.0, disputed_z=9.0), [4.2, 4.4] * 8, 600, limits)


def test_a_student_is_judged_by_its_latest_steps_and_by_enough_episodes():
    phase, limits = Phase(), Limits(Distil(), math.inf, tutor_return=1.0)
    for _ in range(20):  # short episodes: the latest 512 steps have enough
        advance(phase, known(0.0), [0.0] * 10, 100, limits)
    assert sum(part.num_episodes for part in phase.latest) == 60
    for _ in range(4):  # long ones: the latest 16
        advance(phase, known(0.0), [0.0] * 4, 5_000, limits)
    assert sum(part.num_episodes for part in phase.latest) == 16


def test_a_tutor_that_plays_no_better_than_the_student_is_not_followed():
    phase, limits = Phase(), Limits(Distil(), math.inf, tutor_return=0.9)
    assert not advance(phase, known(9.0), [1.0, 1.2] * 40, 5_000, limits)


def test_a_tutor_known_to_be_worth_following_is_followed_without_evidence_until_the_student_is_where_it_is():
    phase, limits = Phase(), Limits(Distil(), math.inf, tutor_return=4.0, follow=True)
    assert advance(phase, known(-5.0), [1.0, 1.2] * 4, 50, limits)
    advance(phase, known(-5.0, disputed_z=-5.0), [3.0, 3.2] * 8, 600, limits)
    assert phase.is_on, "doubts are for the states in which they arise"
    advance(phase, known(-5.0), [3.9, 4.1] * 8, 600, limits)
    assert not phase.is_on
    assert not advance(phase, known(9.0), [4.2, 4.4] * 8, 600, limits)
    assert advance(phase, known(-5.0), [2.0, 2.2] * 8, 600, limits), "it fell back"


def test_a_student_is_not_let_go_at_the_level_of_a_tutor_that_plays_as_well_as_can_be():
    phase, limits = Phase(), Limits(Distil(), math.inf, tutor_return=4.0, follow=True, stall_steps=1_000, is_best=True)
    limits = limits._replace(fade_steps=1_000)
    advance(phase, known(9.0), [1.0, 1.2] * 4, 50, limits)
    for _ in range(40):
        advance(phase, known(0.0), [4.2, 4.4] * 8, 600, limits)
    assert phase.strength(limits) == 1.0, "its returns stand still, and its draws say nothing"
    advance(phase, known(-2.1), [4.2, 4.4] * 8, 600, limits)
    assert not phase.is_on, "they speak against the tutor"
    assert advance(phase, known(0.0), [3.6, 3.8] * 8, 600, limits), "it fell back, if only a little"


def test_the_advice_of_a_tutor_that_plays_as_well_as_can_be_is_imitated_in_all_states(monkeypatch):
    def helps(*_):
        raise AssertionError("nobody asks where it helps")

    monkeypatch.setattr(Benefit, "helps", helps)
    student = Student(by_state, named_is_paid, advice=AdviceConfig(tutor_return=99.0, follow=True, tutor_is_best=True))
    student.play(4)
    assert student.use._phase.is_on and student.use.gauges()["advice/trust"] == 1.0


def test_a_student_nobody_has_seen_yet_is_taken_to_be_below_a_tutor_worth_following():
    phase, limits = Phase(), Limits(Distil(), math.inf, tutor_return=4.0, follow=True)
    assert advance(phase, known(0.0), [], 50, limits)
    advance(phase, known(0.0), [3.9, 4.1] * 8, 600, limits)
    assert not advance(phase, known(0.0), [], 50, limits), "after a phase it has been seen"


def test_a_tutor_known_not_to_be_worth_following_is_never_followed():
    phase, limits = Phase(), Limits(Distil(), math.inf, tutor_return=4.0, follow=False)
    assert not advance(phase, known(9.0, disputed_z=9.0), [1.0, 1.2] * 40, 5_000, limits)


STALLING = Limits(Distil(), math.inf, tutor_return=4.0, follow=True, stall_steps=1_000)


def test_a_tutor_worth_following_is_let_go_once_neither_returns_nor_draws_speak_for_it():
    phase = Phase()
    advance(phase, known(0.0), [], 100, STALLING)
    for mean in (1.0, 1.5, 2.0):
        advance(phase, known(-1.0), [mean, mean + 0.1] * 8, 600, STALLING)
    assert phase.is_on, "the student gains"
    for _ in range(20):
        advance(phase, known(1.1), [2.0, 2.1] * 8, 600, STALLING)
    assert phase.is_on, "its draws speak for the advice"
    advance(phase, known(0.9), [2.0, 2.1] * 8, 600, STALLING)
    assert not phase.is_on
    shown, by_evidence = Phase(), STALLING._replace(follow=None)
    assert advance(shown, known(3.1), [1.0, 1.2] * 8, 600, by_evidence)
    advance(shown, known(1.9), [2.0, 2.1] * 8, 100, by_evidence)
    assert not shown.is_on, "of any other, its draws alone decide"


def test_advice_that_draws_speak_for_keeps_the_benefit_of_the_doubt_while_returns_stand_still(monkeypatch):
    cautions = set()

    class Noted(Benefit):
        def helps(self, observations, caution):
            cautions.add(caution)
            return super().helps(observations, caution)

    monkeypatch.setattr("rllib_plugins.uses.distil.Benefit", Noted)
    advice = AdviceConfig(tutor_return=99.0, follow=True, use_options={"stall_steps": 256})
    student = Student(by_state, named_is_paid, advice=advice)
    student.play(12)
    assert student.use._benefit.z > 3.0 and cautions == {-2.0}


def test_a_student_that_was_let_go_too_early_is_helped_again_and_let_go_later():
    phase = Phase()
    advance(phase, known(2.5), [], 100, STALLING)
    for _ in range(3):
        advance(phase, known(0.5), [2.0, 2.2] * 8, 600, STALLING)
    assert not phase.is_on
    assert advance(phase, known(0.5), [1.5, 1.7] * 8, 600, STALLING)
    for _ in range(3):
        advance(phase, known(0.5), [2.0, 2.2] * 8, 600, STALLING)
    assert phase.is_on, "this time it takes twice as long"
    for _ in range(2):
        advance(phase, known(0.5), [2.0, 2.2] * 8, 600, STALLING)
    assert not phase.is_on, "nothing speaks for the advice any longer, and nothing against it"
    assert advance(phase, known(0.5), [1.5, 1.7] * 8, 600, STALLING)


def test_a_student_is_not_given_back_to_advice_that_was_seen_to_harm_it():
    phase = Phase()
    advance(phase, known(2.5), [], 100, STALLING)
    for _ in range(2):
        advance(phase, known(2.5), [2.0, 2.2] * 8, 600, STALLING)
    advance(phase, known(2.5, disputed_z=-2.5), [2.0, 2.2] * 8, 600, STALLING)
    assert not phase.is_on
    assert not advance(phase, known(0.0), [1.5, 1.7] * 8, 600, STALLING)


def test_a_tutor_worth_following_is_imitated_where_no_reward_says_anything():
    silent = Student(by_state, lambda s, a: 0.0 * a, advice=AdviceConfig(tutor_return=1.0, follow=True), noise=0.0)
    silent.play(2)
    assert silent.learner.samples
    alone = Student(by_state, lambda s, a: 0.0 * a, noise=0.0)
    alone.play(2)
    assert not alone.learner.samples


@pytest.mark.parametrize("num_missed_rollouts", [2, 30])
def test_a_tutor_worth_following_that_is_away_at_first_is_followed_once_it_answers(num_missed_rollouts):
    away = [True]
    student = Student(
        lambda s: np.full((len(s), 2), np.nan) if away[0] else by_state(s),
        lambda s, a: 0.0 * a,
        advice=AdviceConfig(tutor_return=1.0, follow=True),
    )
    student.play(num_missed_rollouts)
    assert student.use.counters()["advice/missed"] > 0 and not student.learner.samples
    away[0] = False
    student.play(2)
    assert student.learner.samples


# What a config may say


def test_distillation_is_the_default_and_the_coins_fields_choose_the_coin():
    assert AdviceConfig().use == "distil"
    assert AdviceConfig(trust="fixed").use == "coin"
    assert AdviceConfig(reuse="off").use == "coin"
    assert PAPER_ADVICE.use == "coin"
    assert AdviceConfig(advice_budget=5, theta_frac=0.2).use == "distil"
    assert use_names() == ("clone", "coin", "distil", "handover", "kickstart", "observe", "pool", "shape")


def test_a_config_that_was_written_out_is_read_back():
    for advice in (AdviceConfig(), AdviceConfig(trust="fixed"), PAPER_ADVICE):
        assert AdviceConfig(**advice.model_dump()) == advice


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"use": "distill"}, r"advice\.use 'distill'.*distil"),
        ({"use": "distil", "imitation": "all"}, r"advice\.imitation = 'all'.*'coin'"),
        ({"use": "distil", "reuse_options": {"budget": 1}}, r"advice\.reuse_options.*'coin'"),
        ({"follow": True}, r"advice\.follow = true needs advice\.tutor_return"),
        ({"tutor_is_best": True}, r"advice\.tutor_is_best = true.*advice\.follow"),
        ({"use_options": {"untill": 0.5}}, r"advice\.use_options\.untill.*until"),
        ({"use_options": {"until": 1.5}}, r"advice\.use_options\.until"),
        ({"use_options": {"evidence": 1.0}}, r"evidence_left = 2\.0 must be below evidence = 1\.0"),
        ({"use": "coin", "use_options": {"until": 0.5}}, r"advice\.use_options\.until"),
    ],
)
def test_what_a_use_cannot_honour_is_refused_by_field(fields, message):
    with pytest.raises(UserError, match=message):
        AdviceConfig(**fields)


class Nothing(UseOptions):
    """Make nothing of advice."""

    def make(self, context: UseContext) -> Use:
        return Use(context)


def test_a_use_of_ones_own_is_named_by_its_path_or_registered():
    assert AdviceConfig(use=f"{__name__}:Nothing").named_use == f"{__name__}:Nothing"
    assert isinstance(make_use(f"{__name__}:Nothing", {}), Nothing)
    with pytest.raises(ValueError, match="registered already"):
        register_use("coin", Nothing)
    assert isinstance(Student(by_state, named_is_paid).use, Distillation)
