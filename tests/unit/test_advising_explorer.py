"""The explorer's promises: accounting, budgets, misses, determinism, restore."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rllib_plugins.advising.config import AdviceConfig, ImitationWeights
from rllib_plugins.advising.explorer import Explorer
from rllib_plugins.metrics import COUNTERS, GAUGES, Source
from tests.unit.advising_fakes import TableAdvisor, states
from tutor_service.errors import UserError

UNIFORM = np.full((10, 4), 0.25)
ALWAYS = {"probability_initial": 1.0, "probability_final": 1.0, "trust": "fixed"}


def make_core(advisor, *, seed=3, value_based=False, theta_steps=100.0, **advice):
    return Explorer(
        AdviceConfig(**advice),
        num_actions=4,
        theta_steps=theta_steps,
        advisor=advisor,
        seed=seed,
        value_based=value_based,
    )


def student(n):
    return np.full((n, 4), 0.25)


def run(core, num_steps, *, start=0, num_envs=6, num_states=10):
    rng = np.random.default_rng(99)
    visits = rng.integers(0, num_states, (start + num_steps, num_envs))
    policies = rng.dirichlet(np.ones(4), (start + num_steps, num_envs))
    q_values = rng.normal(size=(start + num_steps, num_envs, 4))
    return [
        core.act(states(*visits[t]), policies[t], q_values=q_values[t], step=t * num_envs)
        for t in range(start, start + num_steps)
    ]


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        for field in ("actions", "behaviour_logp", "policy_logp", "heads", "eligible", "consulted", "advice"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


def test_decision_shapes_and_types():
    for advisor in (None, TableAdvisor(UNIFORM, at_hand=True)):
        core = make_core(advisor)
        decision = core.act(states(1, 2, 3), student(3), step=0)
        assert decision.actions.dtype == np.int64
        assert decision.behaviour_logp.dtype == decision.policy_logp.dtype == np.float32
        assert decision.heads.dtype == decision.eligible.dtype == decision.consulted.dtype == bool
        assert decision.advice.dtype == np.float32 and decision.advice.shape == (3, 4)
        assert tuple(core.counters()) == COUNTERS
        assert set(core.gauges()) <= set(GAUGES)


def test_student_draws_are_the_same_with_and_without_tutor():
    alone = run(make_core(None), 50)
    tutored = run(make_core(TableAdvisor(UNIFORM, at_hand=True)), 50)
    num_tails = 0
    for a, b in zip(alone, tutored, strict=True):
        tails = ~b.heads
        num_tails += tails.sum()
        np.testing.assert_array_equal(a.actions[tails], b.actions[tails])
    assert num_tails > 50


def test_untutored_is_on_policy():
    for decision in run(make_core(None), 5):
        np.testing.assert_array_equal(decision.behaviour_logp, decision.policy_logp)
        assert not (decision.heads | decision.eligible | decision.consulted).any() and not decision.advice.any()


@pytest.mark.parametrize(
    "reuse, value_based",
    [*((reuse, student) for reuse in ("off", "budget", "decay") for student in (False, True)), ("q_change", True)],
)
def test_same_seed_same_decisions_and_restore(reuse, value_based):
    def fresh(advisor):
        return make_core(advisor, reuse=reuse, value_based=value_based, theta_steps=400, advice_budget=150)

    rng = np.random.default_rng(0)
    advantages = rng.normal(size=(2, 60))
    coins = rng.random((2, 60)) < 0.5
    advisor = TableAdvisor(UNIFORM, at_hand=True)
    core = fresh(advisor)
    first = run(core, 20)
    core.observe(advantages[0], coins[0], np.ones(60, bool))
    middle = pickle.loads(pickle.dumps(core.get_state()))
    rest = run(core, 40, start=20)
    core.observe(advantages[1], coins[1], np.ones(60, bool))

    again = fresh(advisor)
    assert_same(first, run(again, 20))
    restored = fresh(advisor)
    run(restored, 7)  # whatever it did before must not show
    restored.set_state(middle)
    assert_same(rest, run(restored, 40, start=20))
    restored.observe(advantages[1], coins[1], np.ones(60, bool))
    assert restored.counters() == core.counters()
    np.testing.assert_equal(restored.gauges(), core.gauges())
    np.testing.assert_equal(restored.get_state(), core.get_state())


def test_restore_takes_along_what_the_advisor_has_at_hand():
    core = make_core(TableAdvisor(UNIFORM, keeps=True), reuse="off")
    run(core, 10)
    restored = make_core(TableAdvisor(UNIFORM, keeps=True), reuse="off")
    restored.set_state(pickle.loads(pickle.dumps(core.get_state())))
    assert_same(run(core, 20, start=10), run(restored, 20, start=10))
    assert core.counters() == restored.counters()


def test_empty_state_is_tolerated():
    core, other = make_core(None), make_core(None)
    core.set_state({})
    assert_same(run(core, 3), run(other, 3))


def test_one_answer_serves_one_plus_budget_then_is_drawn_afresh():
    core = make_core(TableAdvisor(UNIFORM, keeps=True), reuse_options={"budget": 3}, **ALWAYS)
    actions = [int(core.act(states(0), student(1), step=t).actions[0]) for t in range(400)]
    blocks = np.array(actions).reshape(100, 4)
    assert (blocks == blocks[:, :1]).all()
    assert len(set(blocks[:, 0])) == 4  # fresh draws, not the first answer for ever
    counters = core.counters()
    assert counters["advice/consultations"] == 400
    assert counters["advice/reused"] == 300
    assert counters["advice/model_evaluations"] == 1
    assert counters["advice/store_hits"] == 99


def test_budget_is_kept_by_environments_that_share_a_state():
    core = make_core(TableAdvisor(UNIFORM, at_hand=True), reuse_options={"budget": 3}, **ALWAYS)
    core.act(states(0), student(1), step=0)
    core.act(states(0, 0, 0, 0, 0), student(5), step=1)
    assert core.counters()["advice/reused"] == 3


@settings(max_examples=25, deadline=None)
@given(
    budget=st.integers(0, 60),
    reuse=st.sampled_from(["off", "budget", "decay"]),
    rule=st.sampled_from(["linear", "early", "importance", "mistake", "confidence"]),
    num_envs=st.integers(1, 9),
    at_hand=st.booleans(),
)
def test_advice_budget_and_the_sum_of_sources(budget, reuse, rule, num_envs, at_hand):
    options = {"threshold": 0.0} if rule in {"importance", "mistake", "confidence"} else {}
    core = make_core(
        TableAdvisor(UNIFORM, at_hand=at_hand),
        advice_budget=budget,
        reuse=reuse,
        rule=rule,
        rule_options=options,
        **ALWAYS,
    )
    decisions = run(core, 30, num_envs=num_envs)
    counted = core.counters()
    consulted = sum(int(d.consulted.sum()) for d in decisions)
    assert counted["advice/consultations"] == consulted
    sources = ("advice/reused", "advice/store_hits", "advice/model_evaluations")
    assert consulted == sum(counted[name] for name in sources)
    if rule == "mistake":
        assert consulted >= min(budget, 30 * num_envs)  # agreeing is free, so it lasts longer
    else:
        assert consulted == min(budget, 30 * num_envs)


def test_mistake_rule_pays_for_corrections_only():
    core = make_core(
        TableAdvisor(UNIFORM, at_hand=True), rule="mistake", rule_options={"threshold": 0}, advice_budget=50, **ALWAYS
    )
    student_alone = run(make_core(None), 60)
    tutored = run(core, 60)
    corrected = sum(
        int((t.consulted & (t.actions != s.actions)).sum()) for s, t in zip(student_alone, tutored, strict=True)
    )
    assert corrected == 50


def test_spent_budget_leaves_the_untutored_student():
    core = make_core(TableAdvisor(UNIFORM, at_hand=True), advice_budget=0, **ALWAYS)
    assert_same(run(core, 5), run(make_core(None), 5))
    assert core.gauges()["advice/probability"] == 0.0


@pytest.mark.parametrize("value_based", [False, True])
def test_missed_advice_leaves_the_action_to_the_student(value_based):
    table = np.full((10, 4), np.nan)
    core = make_core(TableAdvisor(table, at_hand=False), value_based=value_based, dqn_random_share=0.0, **ALWAYS)
    alone, tutored = run(make_core(None), 20), run(core, 20)
    for a, b in zip(alone, tutored, strict=True):
        assert b.heads.all() and not b.consulted.any() and not b.eligible.any() and not b.advice.any()
        np.testing.assert_array_equal(a.actions, b.actions)  # for DQN its own ε-greedy: exploration is not lost
        np.testing.assert_array_equal(a.behaviour_logp, b.behaviour_logp)
    assert core.counters() == {**dict.fromkeys(COUNTERS, 0), "advice/missed": 120}


@pytest.mark.parametrize("value_based", [False, True])
def test_missed_heads_are_no_part_of_the_comparison_and_explore_as_untutored(value_based):
    table = np.full((10, 4), np.nan)
    core = make_core(
        TableAdvisor(table, at_hand=False),
        value_based=value_based,
        dqn_random_share=0.0,
        probability_initial=0.6,
        probability_final=0.6,
        trust="fixed",
    )
    for a, b in zip(run(make_core(None), 40), run(core, 40), strict=True):
        assert not (b.eligible & b.heads).any()
        np.testing.assert_array_equal(a.actions[b.heads], b.actions[b.heads])
        np.testing.assert_array_equal(a.behaviour_logp[b.heads], b.behaviour_logp[b.heads])
    assert core.counters()["advice/missed"] > 100


@pytest.mark.parametrize(
    "row", [[0.0, 0.5, 0.5, 0.0], [0.5, 0.0, -0.5, 1.0], [0.5, 0.0, 0.0, 0.0], [np.inf, 0, 0, 0], [2.0, 0, 0, 0]]
)
def test_bad_advice_is_dropped_and_counted(row):
    legal = np.array([[True, False, True, True]])  # the first row advises an illegal action
    core = make_core(TableAdvisor([row], invalid=1, legal=legal), **ALWAYS)
    policy = np.array([[0.5, 0.0, 0.25, 0.25]] * 2)
    decision = core.act(states(0, 0), policy, legal=legal[[0, 0]], step=0)
    assert not decision.consulted.any()
    np.testing.assert_array_equal(decision.behaviour_logp, decision.policy_logp)
    counted = core.counters()
    assert counted["advice/missed"] == 2 and counted["advice/invalid"] == 2 and counted["advice/consultations"] == 0


def test_tokens_add_up_over_the_calls():
    advisor = TableAdvisor(UNIFORM, at_hand=False, tokens=90)
    core = make_core(advisor, reuse="off", **ALWAYS)
    run(core, 5)
    assert core.counters()["advice/tokens"] == 5 * 90


def test_scripted_advice_counts_as_consultation_only():
    core = make_core(TableAdvisor(UNIFORM, at_hand=False, source=Source.SCRIPT), reuse="off", **ALWAYS)
    run(core, 5)
    assert core.counters() == {**dict.fromkeys(COUNTERS, 0), "advice/consultations": 30}


def test_what_is_at_hand_is_counted_without_being_asked_for():
    slow = TableAdvisor(UNIFORM, source=Source.STORE)
    quick = TableAdvisor(UNIFORM, at_hand=True)
    for advisor in (slow, quick):
        core = make_core(advisor, reuse="off", **ALWAYS)
        run(core, 30)
        expected = {"advice/consultations": 180, "advice/store_hits": 180}
        assert core.counters() == dict.fromkeys(COUNTERS, 0) | expected
    assert slow.num_asked == 180 and quick.num_asked == 0


def test_imitation_targets():
    table = np.tile([0.1, 0.2, 0.3, 0.4], (10, 1))
    for imitation in ("filtered", "all"):
        core = make_core(TableAdvisor(table, at_hand=True), imitation=imitation, reuse_options={"budget": 1}, **ALWAYS)
        fresh = core.act(states(0), student(1), step=0)
        reused = core.act(states(0), student(1), step=0)
        np.testing.assert_array_equal(reused.advice, np.eye(4, dtype=np.float32)[reused.actions])
        expected = table[:1] if imitation == "all" else np.eye(4)[fresh.actions]
        np.testing.assert_allclose(fresh.advice, expected, rtol=1e-6)


def test_the_weight_of_imitation_follows_the_schedule():
    core = make_core(TableAdvisor(UNIFORM, at_hand=True), trust="fixed", imitation_weight=2.0, probability_final=0.1)
    assert core.imitation(0) == ImitationWeights(2.0, 0.0)
    assert core.imitation(50).better == pytest.approx(1.1)
    assert core.imitation(10**6).better == pytest.approx(0.2)
    assert make_core(TableAdvisor(UNIFORM, at_hand=True), imitation="off").imitation(0) == ImitationWeights()
    assert make_core(None).imitation(0) == ImitationWeights()


def test_evidence_for_the_tutor_opens_the_filter_of_imitation():
    advice = {"imitation_weight": 2.0, "imitation_gain": 10.0}
    core = make_core(TableAdvisor(UNIFORM, at_hand=True), trust="earned", **advice)
    heads, rng = np.arange(200) % 2 == 0, np.random.default_rng(0)
    assert core.imitation(0).better == pytest.approx(2.0 * 0.8413, abs=1e-3), "filtered, by the trust at the start"
    core.observe(rng.normal(size=200) - heads, heads, np.ones(200, bool))
    assert core.imitation(0).better < 0.01 and core.imitation(0).worse == 0.0, "nothing of a tutor that does harm"
    core.observe(rng.normal(size=2_000) + np.tile(heads, 10), np.tile(heads, 10), np.ones(2_000, bool))
    weights = core.imitation(0)
    assert weights.replay == pytest.approx(16.0, rel=1e-3)
    assert weights.better == pytest.approx(20.0, rel=1e-3) and weights.worse == pytest.approx(20.0, rel=1e-3)
    assert ImitationWeights.of(AdviceConfig(**advice), 1.0, 0.5) == ImitationWeights(11.0, 10.0, 8.0)
    assert ImitationWeights.of(AdviceConfig(**advice), 1.0, 0.5, 0.25) == ImitationWeights(10.25, 10.0, 8.0)


def test_earned_trust_keeps_a_control_group_and_scales_the_gate():
    core = make_core(TableAdvisor(UNIFORM, at_hand=True), probability_cap=0.9, theta_steps=10**9)
    heads = np.concatenate([d.heads for d in run(core, 300)])
    assert heads.mean() == pytest.approx(0.9 * 0.8413, abs=0.03)  # Φ(1) before there is evidence
    rng = np.random.default_rng(1)
    core.observe(rng.normal(size=400) - 1.0 * (np.arange(400) % 2), np.arange(400) % 2 == 1, np.ones(400, bool))
    assert core.gauges()["advice/effect"] == pytest.approx(-1.0, abs=0.3)
    heads = np.concatenate([d.heads for d in run(core, 300)])
    assert 0.01 < heads.mean() < 0.09  # floor 0.05 × 0.9
    fixed = make_core(TableAdvisor(UNIFORM, at_hand=True), trust="fixed", theta_steps=10**9)
    assert np.concatenate([d.heads for d in run(fixed, 50)]).all()
    assert fixed.gauges()["advice/trust"] == 1.0


def test_agreement_and_latency_gauges():
    table = np.tile([1.0, 0.0, 0.0, 0.0], (10, 1))
    core = make_core(TableAdvisor(table, at_hand=False), reuse="off", **ALWAYS)
    assert np.isnan(core.gauges()["advice/agreement"])
    for step in range(100):
        core.act(states(0, 1), np.array([[1.0, 0, 0, 0], [0, 0, 0, 1.0]]), step=step)
    assert core.gauges()["advice/agreement"] == pytest.approx(0.5)
    assert core.gauges()["advice/latency_ms"] == pytest.approx(12.0)


def test_action_set_must_be_the_tasks():
    with pytest.raises(UserError, match="3 actions, the task has 4"):
        make_core(TableAdvisor(np.full((10, 3), 1 / 3), at_hand=True))


def test_q_change_is_refused_for_sampling_students():
    with pytest.raises(UserError, match="Q-values"):
        make_core(TableAdvisor(UNIFORM, at_hand=True), reuse="q_change")


@pytest.mark.parametrize("theta", [0, -5, float("nan")])
def test_theta_must_be_positive(theta):
    with pytest.raises(UserError, match="theta"):
        make_core(None, theta_steps=theta)
