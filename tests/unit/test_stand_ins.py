"""Stand-ins: who answers in the tutor's place, within which budget, and when its model is believed and given up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box
from hypothesis import given
from hypothesis import strategies as st

from rllib_plugins.advising.advisor import AdviceBatch, Advisor
from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.advising.explorer import Explorer
from rllib_plugins.config import StudentConfig
from rllib_plugins.metrics import AdviceCounters, RecentMean, Source
from rllib_plugins.stand_ins.explorer import StandInExplorer
from rllib_plugins.stand_ins.model import Agreement, Answers, Prediction, agrees, threshold
from rllib_plugins.stand_ins.registry import Ensemble, Kept, Modelled, make_stand_in
from rllib_plugins.stand_ins.stand_in import StandIn
from rllib_plugins.tasks import load_task
from rllib_plugins.tasks.base import Task
from rllib_plugins.uses.base import UseContext
from rllib_plugins.uses.consulting import Consultations, Visited
from rllib_plugins.uses.options import Coin
from tutor_service.errors import UserError

NUM_ACTIONS = 3


class Plane(Task):
    """Is a task whose states are points of a square, of which every action is legal."""

    name = "plane"
    actions = ("left", "middle", "right")

    @property
    def observation_space(self) -> Any:
        return Box(-1.0, 1.0, (2,))

    def legal_batch(self, observations: Any) -> None:
        return None


class Told(Advisor):
    """Says what a function of the observations says, or nothing where that is NaN; keeps all questions."""

    def __init__(self, says: Any) -> None:
        super().__init__(Plane(), Source.STORE)
        self.says = says
        self.asked: list[bytes] = []

    def evaluate(self, observations: Any) -> AdviceBatch:
        self.asked += [row.tobytes() for row in observations]
        rows = np.asarray(self.says(observations), dtype=np.float64)
        return AdviceBatch(rows, np.where(np.isnan(rows[:, 0]), Source.MISSED, Source.MODEL).astype(np.int8))


def by_side(observations: Any) -> Any:
    """Advise by the first number: below −⅓, between, above ⅓."""
    return np.eye(NUM_ACTIONS)[np.digitize(observations[:, 0], (-1 / 3, 1 / 3))]


def never(observations: Any) -> Any:
    return np.full((len(observations), NUM_ACTIONS), np.nan)


class Scripted:
    """Is a model that is right where the second number is above 0, and as confident as ``confident`` says."""

    def __init__(self, right: Any, confident: Any) -> None:
        self.right, self.confident, self.fits = right, confident, []

    def fit(self, answers: Answers) -> None:
        self.fits.append(len(answers.told))

    def predict(self, observations: Any, legal: Any) -> Prediction:
        told = by_side(observations)
        wrong = ~self.right(observations)
        told[wrong] = np.roll(told[wrong], 1, axis=1)
        return Prediction(told, self.confident(observations))

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        pass


class Rule(Modelled):
    """Has a scripted model."""

    model_config = Modelled.model_config | {"arbitrary_types_allowed": True}
    scripted: Any = None

    def model(self, obs_dim: int, num_actions: int, seed: int) -> Any:
        return self.scripted


def upper(observations: Any) -> Any:
    return observations[:, 1] > 0


def everywhere(observations: Any) -> Any:
    return np.ones(len(observations), bool)


def points(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 2)).astype(np.float32)


def modelled(right: Any, confident: Any, budget: int | None = None, **options: Any) -> tuple[StandIn, Told, Scripted]:
    scripted, tutor = Scripted(right, lambda o: confident(o).astype(float)), Told(by_side)
    return StandIn(Rule(scripted=scripted, **options), tutor, budget, seed=0), tutor, scripted


# When a model is believed


def test_a_model_is_sure_from_the_least_confidence_at_which_enough_of_its_guesses_are_right() -> None:
    confidence = np.linspace(1.0, 0.0, 100)
    agreed = np.arange(100) < 50
    found = threshold(confidence, agreed, 0.9)
    above = confidence >= found
    assert (agreed[above].sum() + 1) / (above.sum() + 2) >= 0.9
    assert above.sum() == 54, "a few wrong ones are in it"
    assert threshold(confidence, np.zeros(100, bool), 0.9) == np.inf
    assert threshold(np.ones(7), np.ones(7, bool), 0.9) == np.inf, "seven right guesses prove too little"
    assert threshold(np.ones(8), np.ones(8, bool), 0.9) == 1.0
    assert threshold(np.empty(0), np.empty(0, bool), 0.9) == np.inf


@given(st.lists(st.tuples(st.sampled_from((0.1, 0.5, 0.9)), st.booleans()), max_size=60), st.floats(0.05, 0.95))
def test_equally_confident_guesses_are_believed_together(pairs: list[tuple[float, bool]], bound: float) -> None:
    confidence, agreed = np.array([c for c, _ in pairs]), np.array([a for _, a in pairs], bool)
    found = threshold(confidence, agreed, bound)
    good = [
        level
        for level in set(confidence.tolist())
        if (agreed[confidence >= level].sum() + 1) / ((confidence >= level).sum() + 2) >= bound
    ]
    assert found == min(good, default=np.inf)


def test_a_guess_agrees_with_any_best_one_of_the_tutors_but_not_with_none() -> None:
    told = np.array([[0.6, 0.4, 0.0], [0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3], [1.0, 0.0, 0.0]])
    guess = np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    assert agrees(guess, told, None).tolist() == [False, True, False, True]
    only = np.array([[True, False, False]])
    assert agrees(guess[3:], told[3:], only).tolist() == [True], "the only legal action"


def test_few_comparisons_condemn_no_model_and_old_ones_fade() -> None:
    agreement = Agreement()
    agreement.add(np.zeros(9, bool))
    assert not agreement.is_below(0.8)
    agreement.add(np.zeros(3, bool))
    assert agreement.is_below(0.8)
    agreement.add(np.ones(600, bool))
    assert not agreement.is_below(0.95)


# The ensemble


def legal_rows(observations: Any) -> Any:
    legal = np.ones((len(observations), NUM_ACTIONS), bool)
    legal[:, 0] = observations[:, 0] < 0
    return legal


def test_networks_learn_what_the_tutor_says_and_doubt_where_it_says_nothing_that_can_be_learnt() -> None:
    model = Ensemble().model(2, NUM_ACTIONS, seed=0)
    asked, new = points(400), points(200, seed=1)
    noise = np.eye(NUM_ACTIONS)[np.random.default_rng(2).integers(NUM_ACTIONS, size=400)]
    told = np.where(upper(asked)[:, None], by_side(asked), noise)
    model.fit(Answers(asked, told, None))
    found = model.predict(new, None)
    far_above, far_below = new[:, 1] > 0.3, new[:, 1] < -0.3
    assert agrees(found.told, by_side(new), None)[far_above].mean() > 0.9
    assert found.confidence[far_above].mean() > found.confidence[far_below].mean() + 0.2
    assert np.allclose(found.told.sum(axis=1), 1.0)


def test_an_illegal_action_is_never_predicted() -> None:
    model = Ensemble(gradient_steps=20).model(2, NUM_ACTIONS, seed=0)
    asked = points(600)
    legal = legal_rows(asked)
    told = np.where(legal, by_side(asked) + 0.01, 0.0)
    told /= told.sum(axis=1, keepdims=True)
    model.fit(Answers(asked, told, legal))
    found = model.predict(asked, legal)
    assert (found.told[~legal] == 0).all() and np.allclose(found.told.sum(axis=1), 1.0)


def test_a_restored_ensemble_is_fitted_on_as_if_never_stopped() -> None:
    asked = points(100)
    answers = Answers(asked, by_side(asked), None)
    one, other = (Ensemble().model(2, NUM_ACTIONS, seed) for seed in (0, 1))
    one.fit(answers)
    other.set_state(one.get_state())
    for model in (one, other):
        model.fit(answers)
    for left, right in zip(one.predict(asked, None), other.predict(asked, None), strict=True):
        assert (left == right).all()
    assert not (Ensemble().model(2, NUM_ACTIONS, 1).predict(asked, None).told == one.predict(asked, None).told).all()


# At work


def test_what_was_asked_once_is_answered_again_free_of_the_budget() -> None:
    tutor = Told(by_side)
    stand_in, counters = StandIn(Kept(), tutor, 20, seed=0), AdviceCounters()
    first = stand_in.ask(np.repeat(points(15), 2, axis=0))
    assert first.source.tolist() == [Source.MODEL, Source.KEPT] * 15 and len(tutor.asked) == 15
    second = stand_in.ask(points(40))
    assert second.source.tolist() == [Source.KEPT] * 15 + [Source.MODEL] * 5 + [Source.UNASKED] * 20
    assert (second.probabilities[:20] == by_side(points(20))).all()
    assert np.isnan(second.probabilities[20:]).all()
    for batch in (first, second):
        batch.count(counters, RecentMean())
    assert len(tutor.asked) == 20 == counters.model_evaluations == counters.consultations - counters.reused
    assert counters.missed == counters.stand_in == 0


def test_a_tutor_that_is_away_is_missed_and_costs_no_budget() -> None:
    tutor = Told(never)
    stand_in = StandIn(Kept(), tutor, 10, seed=0)
    batch = stand_in.ask(points(30))
    assert (batch.source == Source.MISSED).sum() == 10 and (batch.source == Source.UNASKED).sum() == 20
    tutor.says = by_side
    assert (stand_in.ask(points(30)).source == Source.MODEL).sum() == 10


def test_the_model_answers_where_it_is_sure_and_the_tutor_elsewhere() -> None:
    stand_in, _, scripted = modelled(upper, upper, growth=1.2)
    stand_in.ask(points(200))
    assert scripted.fits[0] == 40, "one answer of five is held out"
    new = points(200, seed=1)
    batch = stand_in.ask(new)
    by_model = batch.source == Source.STAND_IN
    assert by_model.sum() > 70 and not by_model[~upper(new)].any()
    assert (batch.probabilities == by_side(new)).all(), "nobody is unanswered"
    checked = upper(new) & (batch.source == Source.MODEL)
    assert 1 <= checked.sum() < 0.3 * upper(new).sum()
    assert stand_in.gauges()["advice/stand_in_agreement"] == 1.0
    assert stand_in.gauges()["advice/stand_in_fitted_to"] >= 100
    assert (stand_in.answers(new) == (upper(new) | ~by_model)).all()


def test_a_model_that_is_wrong_is_given_up_and_has_another_chance_once_fitted_anew() -> None:
    always_wrong = np.array([False])

    def right(observations: Any) -> Any:
        return np.full(len(observations), not always_wrong[0])

    stand_in, _, _ = modelled(right, everywhere, check_share=0.5, growth=3)
    stand_in.ask(points(60))
    always_wrong[0] = True
    wrong = stand_in.ask(points(60, seed=1))
    assert (wrong.source == Source.MODEL).all(), "it is the tutor that answers then"
    assert stand_in.gauges()["advice/stand_in_stops"] == 1.0
    assert stand_in.gauges()["advice/stand_in_agreement"] < 0.5
    assert (stand_in.known(points(60, seed=1))[0] == by_side(points(60, seed=1))).all()
    always_wrong[0] = False
    assert (stand_in.ask(points(20, seed=2)).source == Source.MODEL).all()
    stand_in.ask(points(100, seed=3))
    assert (stand_in.ask(points(100, seed=4)).source == Source.STAND_IN).any()


def test_a_model_that_agrees_too_seldom_with_held_out_answers_never_answers() -> None:
    stand_in, tutor, scripted = modelled(upper, everywhere)
    for seed in range(5):
        assert not (stand_in.ask(points(100, seed)).source == Source.STAND_IN).any()
    assert len(scripted.fits) > 3 and len(tutor.asked) == 500


@given(st.integers(0, 150), st.integers(0, 2**31), st.sampled_from((0.05, 0.5, 1.0)))
def test_the_budget_is_never_exceeded_and_no_state_asked_about_twice(budget: int, seed: int, share: float) -> None:
    stand_in, tutor, _ = modelled(everywhere, upper, budget, check_share=share)
    for number in range(6):
        batch = stand_in.ask(points(50, seed=seed + number))
        assert len(tutor.asked) <= budget
        assert ((batch.source == Source.UNASKED) == np.isnan(batch.probabilities[:, 0])).all()
    assert len(set(tutor.asked)) == len(tutor.asked)


def test_a_part_of_the_budget_is_kept_for_checks() -> None:
    stand_in, tutor, _ = modelled(everywhere, everywhere, 100)
    for seed in range(40):
        stand_in.ask(points(100, seed))
        if seed == 0:
            assert 50 < len(tutor.asked) < 75
    assert 65 <= len(tutor.asked) <= 100, "the later, the rarer"
    unsure, told, _ = modelled(upper, everywhere, 100)
    unsure.ask(points(300))
    assert len(told.asked) == 100, "a model that is sure of nothing needs no checks"


def test_a_restored_stand_in_goes_on_as_if_never_stopped() -> None:
    def made() -> tuple[StandIn, Told]:
        tutor = Told(by_side)
        return StandIn(Ensemble(gradient_steps=50), tutor, 200, seed=0), tutor

    whole, (halved, first), (restored, second) = made()[0], made(), made()
    for seed in range(10):
        expected = whole.ask(points(60, seed))
        if seed == 5:
            second.set_state(first.get_state())
            restored.set_state(halved.get_state())
        batch = (halved if seed < 5 else restored).ask(points(60, seed))
        assert (batch.source == expected.source).all()
        assert np.array_equal(batch.probabilities, expected.probabilities, equal_nan=True)
    assert whole.gauges() == restored.gauges()
    assert (expected.source == Source.STAND_IN).any()


# In a use, and in the coin's explorer


def asking(tutor: Advisor, **advice: Any) -> Consultations:
    runner = SimpleNamespace(num_env_steps_sampled_lifetime=0)
    config = SimpleNamespace(advice=AdviceConfig(use="clone", **advice), seed=0, theta_steps=1e9, value_based=False)
    return Consultations(UseContext(config, runner, tutor))  # type: ignore[arg-type]


def visited(observations: Any) -> Visited:
    n = len(observations)
    policy = np.full((n, NUM_ACTIONS), 1 / NUM_ACTIONS)
    return Visited(observations, policy.astype(np.float32), policy, np.zeros(n, np.int64), None)


def test_more_steps_are_advised_with_a_model_than_the_budget_has_questions() -> None:
    num_told = {}
    for stand_in in ("off", "kept", "ensemble"):
        tutor = Told(by_side)
        asks = asking(tutor, stand_in=stand_in, advice_budget=100)
        num_told[stand_in], num_right = 0, 0
        for seed in range(8):
            states = points(100, seed)
            told = asks.ask(visited(states))
            num_told[stand_in] += len(told.steps)
            num_right += int((told.actions == by_side(states[told.steps]).argmax(axis=1)).sum())
        counters = asks.counters()
        assert len(tutor.asked) <= 100 and counters["advice/consultations"] - counters["advice/reused"] <= 100
        assert num_told[stand_in] == counters["advice/consultations"] + counters["advice/stand_in"]
        assert num_right > 0.85 * num_told[stand_in]
        assert (asks.known(points(100, 7)).sum(axis=1) > 0).any() == (stand_in == "ensemble")
    assert num_told["off"] == num_told["kept"] == 100
    assert num_told["ensemble"] > 400


def test_asking_has_its_stand_in_in_its_state() -> None:
    (one, _), (other, _) = ((asking(t := Told(by_side), stand_in="ensemble", advice_budget=100), t) for _ in range(2))
    for seed in range(4):
        one.ask(visited(points(100, seed)))
    other.set_state(one.get_state())
    left, right = (asks.ask(visited(points(100, 9))) for asks in (one, other))
    assert (left.steps == right.steps).all() and (left.actions == right.actions).all()
    assert one.gauges() == other.gauges() and one.counters() == other.counters()


def explorer(tutor: Advisor, **advice: Any) -> StandInExplorer:
    config = AdviceConfig(use="coin", trust="fixed", probability_cap=1.0, probability_final=1.0, **advice)
    return StandInExplorer(config, num_actions=NUM_ACTIONS, theta_steps=1e9, advisor=tutor, seed=0)


def play(core: Explorer, steps: range) -> list[Any]:
    policy = np.full((8, NUM_ACTIONS), 1 / NUM_ACTIONS)
    return [core.act(points(8, seed), policy, step=8 * seed) for seed in steps]


@pytest.mark.parametrize("reuse", ["off", "budget"])
def test_the_coin_follows_the_model_once_the_budget_is_spent(reuse: str) -> None:
    tutor = Told(by_side)
    core = explorer(tutor, stand_in="ensemble", advice_budget=81, reuse=reuse)
    decisions = play(core, range(100))
    assert len(tutor.asked) <= 81
    advised = np.concatenate([d.consulted for d in decisions])
    assert advised.sum() > 400
    assert core.counters()["advice/stand_in"] > 300
    assert core.num_consultations == core.num_tutor_steps == advised.sum()
    rows = np.concatenate([points(8, seed) for seed in range(100)])[advised]
    actions = np.concatenate([d.actions for d in decisions])[advised]
    assert (actions == by_side(rows).argmax(axis=1)).mean() > 0.85
    own = np.concatenate([d.behaviour for d in decisions])[~advised]
    assert np.allclose(own, 1 / NUM_ACTIONS), "where nobody advises the student acts by itself"


def test_the_coin_without_a_model_ends_with_its_budget_but_for_known_states() -> None:
    tutor = Told(by_side)
    core = explorer(tutor, stand_in="kept", advice_budget=61, reuse="off")
    assert sum(d.consulted.sum() for d in play(core, range(20))) == 61 == len(tutor.asked)
    assert sum(d.consulted.sum() for d in play(core, range(7))) == 56, "states that were asked about"


def test_a_restored_coin_goes_on_as_if_never_stopped() -> None:
    whole, halved, restored = (explorer(Told(by_side), stand_in="ensemble", advice_budget=80) for _ in range(3))
    expected = play(whole, range(60))
    found = play(halved, range(30))
    restored.set_state(halved.get_state())
    found += play(restored, range(30, 60))
    for left, right in zip(expected, found, strict=True):
        assert (left.actions == right.actions).all() and (left.probabilities == right.probabilities).all()
    assert whole.counters() == restored.counters()
    assert str(whole.gauges()) == str(restored.gauges())


# Bad input


@pytest.mark.parametrize(
    ("advice", "message"),
    [
        ({"stand_in": "ensembel"}, "advice.stand_in.*ensemble"),
        ({"stand_in": "ensemble", "stand_in_options": {"member": 3}}, "advice.stand_in_options.member.*members"),
        ({"stand_in": "ensemble", "stand_in_options": {"check_share": 0.0}}, "advice.stand_in_options.check_share"),
        ({"stand_in": "ensemble", "stand_in_options": {"members": 1}}, "advice.stand_in_options.members"),
        (
            {"stand_in": "ensemble", "stand_in_options": {"least_agreement": 0.95}},
            "advice.stand_in_options.least_agreement = 0.95 must be below",
        ),
        (
            {"stand_in": "ensemble", "advice_budget": 60},
            "advice.advice_budget = 60.*45 questions.*advice.stand_in_options.first_fit = 50",
        ),
        ({"use": "pool", "stand_in": "ensemble"}, "advice.stand_in = 'ensemble'.*advice.use = 'pool'"),
        ({"use": "handover", "stand_in": "kept"}, "advice.stand_in = 'kept'.*advice.use = 'handover'"),
    ],
)
def test_what_cannot_be_is_refused_by_field(advice: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        AdviceConfig(**advice)


class Sudden(Coin):
    """Acts by an explorer of its own."""

    def explorer(self) -> Any:
        return Explorer


def test_a_use_that_acts_by_an_explorer_of_its_own_keeps_it() -> None:
    assert AdviceConfig(use=f"{__name__}:Sudden", trust="fixed").trust == "fixed"
    with pytest.raises(UserError, match=r"advice\.stand_in = 'kept'.*no tutor has one under"):
        AdviceConfig(use=f"{__name__}:Sudden", stand_in="kept")


def test_rollouts_without_one_explorer_in_the_trials_process_are_refused() -> None:
    place = {"algorithm": "ppo", "task": "blackjack", "tutor": "oracle"}
    coin = AdviceConfig(use="coin", trust="fixed", stand_in="kept")
    with pytest.raises(UserError, match=r"advice.stand_in = 'kept'.*rollout: lean"):
        StudentConfig(**place, rollout="stock", advice=coin)
    with pytest.raises(UserError, match=r"advice.stand_in = 'kept'.*num_env_runners"):
        StudentConfig(**place, num_env_runners=2, advice=coin)
    StudentConfig(**place, num_env_runners=2, advice=AdviceConfig(stand_in="kept"))


def test_a_stand_in_of_ones_own_is_found_by_its_place() -> None:
    made = make_stand_in(f"{__name__}:Rule", {"check_share": 0.5})
    assert isinstance(made, Rule) and made.check_share == 0.5


def test_who_has_no_stand_in_asks_as_ever() -> None:
    asks = asking(Told(by_side))
    assert asks.get_state()["stand_in"] is None
    assert not any("stand_in" in name for name in asks.gauges())
    assert not AdviceConfig().has_stand_in
    assert load_task("blackjack")
