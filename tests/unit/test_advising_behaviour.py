"""μ against Monte Carlo: what the core says it did is what it does, for every rule and both estimators."""

import numpy as np
import pytest
from scipy import stats

from rllib_plugins.advising import kernels
from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.advising.explorer import Explorer
from tests.unit.advising_fakes import TableAdvisor

# In state 0 the student is unsure and the tutor sure, in state 1 the other way round; action 3 is illegal in 1.
TUTOR = np.array([[0.05, 0.8, 0.1, 0.05], [0.3, 0.3, 0.4, 0.0]])
STUDENT = np.array([[0.3, 0.25, 0.25, 0.2], [0.7, 0.2, 0.1, 0.0]])
LEGAL = np.array([[True, True, True, True], [True, True, True, False]])
Q_VALUES = np.array([[1.0, 0.2, 0.1, 0.0], [0.3, 0.1, 0.2, -np.inf]])
WIDTH = 400
STATES = np.repeat([0, 1], WIDTH // 2)


def make_core(advisor, *, value_based=False, **advice):
    config = AdviceConfig(**{"probability_initial": 0.6, "probability_final": 0.6, "trust": "fixed", **advice})
    return Explorer(config, num_actions=4, theta_steps=100, advisor=advisor, seed=5, value_based=value_based)


def rollout(core, num_steps=60, policy=STUDENT, **extra):
    """``num_steps`` vector steps of half state 0, half state 1; arrays ``(num_steps · WIDTH,)``."""
    observations = STATES[:, None].astype(np.float32)
    decisions = [
        core.act(observations, policy[STATES], legal=LEGAL[STATES], step=step, **extra) for step in range(num_steps)
    ]
    fields = ("actions", "behaviour_logp", "policy_logp", "heads", "eligible", "consulted")
    return np.tile(STATES, num_steps), {name: np.concatenate([getattr(d, name) for d in decisions]) for name in fields}


def assert_frequencies(actions, expected):
    possible = expected > 0
    counts = np.bincount(actions, minlength=len(expected))
    assert counts[~possible].sum() == 0
    assert stats.chisquare(counts[possible], expected[possible] / expected.sum() * len(actions)).pvalue > 1e-3


RULES = {
    "linear": ({}, [1, 1]),
    "early": ({"advice_budget": 10**9}, [1, 1]),
    "importance": ({"rule_options": {"threshold": 0.8}}, [1, 0]),
    "mistake": ({"rule_options": {"threshold": 0.9, "measure": "entropy"}}, [1, 0]),
    "confidence": ({"rule_options": {"threshold": 0.5}}, [1, 0]),
}


@pytest.mark.parametrize("rule", RULES)
def test_mixture_is_what_happens(rule):
    options, engaged = RULES[rule]
    core = make_core(TableAdvisor(TUTOR, at_hand=True), rule=rule, reuse="off", **options)
    state, seen = rollout(core)
    for s in (0, 1):
        gate = 0.6 * engaged[s]
        expected = gate * TUTOR[s] + (1 - gate) * STUDENT[s]
        here = state == s
        assert_frequencies(seen["actions"][here], expected)
        np.testing.assert_allclose(seen["behaviour_logp"][here], np.log(expected[seen["actions"][here]]), rtol=1e-5)
        np.testing.assert_allclose(seen["policy_logp"][here], np.log(STUDENT[s][seen["actions"][here]]), rtol=1e-5)
        assert abs(seen["heads"][here].mean() - gate) < 0.02


@pytest.mark.parametrize("rule", RULES)
def test_conditional_on_the_coin_is_what_happens(rule):
    options, engaged = RULES[rule]
    core = make_core(TableAdvisor(TUTOR, at_hand=False), rule=rule, reuse="off", **options)
    state, seen = rollout(core)
    for s in (0, 1):
        for heads in (True, False):
            here = (state == s) & (seen["heads"] == heads)
            if not here.any():
                continue
            expected = TUTOR[s] if heads and engaged[s] else STUDENT[s]
            assert_frequencies(seen["actions"][here], expected)
            np.testing.assert_allclose(seen["behaviour_logp"][here], np.log(expected[seen["actions"][here]]), rtol=1e-5)


@pytest.mark.parametrize("at_hand", [True, False])
def test_reused_action_enters_the_mixture(at_hand):
    core = make_core(TableAdvisor(TUTOR, at_hand=at_hand), reuse="budget", reuse_options={"budget": 10**9})
    rollout(core, num_steps=1)  # stores an action for each state
    state, seen = rollout(core)
    for s in (0, 1):
        here = state == s
        (stored,) = set(seen["actions"][here & seen["consulted"]])
        expected = 0.6 * np.eye(4)[stored] + 0.4 * STUDENT[s]
        assert_frequencies(seen["actions"][here], expected)
        np.testing.assert_allclose(seen["behaviour_logp"][here], np.log(expected[seen["actions"][here]]), rtol=1e-5)


@pytest.mark.parametrize("imitated", ["all", "filtered"])
@pytest.mark.parametrize("engaged", [1.0, 0.3, 0.0])
@pytest.mark.parametrize("share", [None, 0.0, 0.5, 1.0])
def test_value_student_explores_as_documented(share, engaged, imitated):
    policy = 0.2 * LEGAL / LEGAL.sum(axis=1, keepdims=True) + 0.8 * np.eye(4)[[0, 0]]
    core = make_core(
        TableAdvisor(TUTOR, at_hand=True),
        value_based=True,
        dqn_random_share=share,
        reuse="off",
        imitation=imitated,
        trust="earned",
        trust_floor=0.0,
    )
    core._trust = type("Trust", (), {"factor": engaged, "trust": engaged})()
    state, seen = rollout(core, num_steps=20, policy=policy, q_values=Q_VALUES[STATES])
    for s in (0, 1):
        if share is None:
            expected = 0.6 * engaged * TUTOR[s] + (1 - 0.6 * engaged) * policy[s]
        else:
            uniform = LEGAL[s] / LEGAL[s].sum()
            exploring = 0.6 * ((1 - share) * TUTOR[s] + share * uniform) + 0.4 * np.eye(4)[0]
            expected = engaged * exploring + (1 - engaged) * policy[s]
        here = state == s
        assert_frequencies(seen["actions"][here], expected)
        np.testing.assert_allclose(seen["behaviour_logp"][here], np.log(expected[seen["actions"][here]]), rtol=1e-5)
        tails = here & seen["eligible"] & ~seen["heads"]
        assert set(seen["actions"][tails]) <= {0}  # the control group is the greedy action


@pytest.mark.parametrize("reuse", [("off", {}), ("budget", {"budget": 3}), ("decay", {"decay": 0.7}), ("q_change", {})])
@pytest.mark.parametrize("kept", [{"at_hand": True}, {"at_hand": False}, {"keeps": True}])
@pytest.mark.parametrize("rule", ["linear", "mistake", "confidence"])
def test_weights_give_the_student_back(reuse, kept, rule):
    """E[1(a = k)·π(k)/μ(k)] = π(k) for every action, whatever was stored when."""
    core = make_core(
        TableAdvisor(TUTOR, **kept),
        reuse=reuse[0],
        reuse_options=reuse[1],
        rule=rule,
        value_based=reuse[0] == "q_change",
        **({"dqn_random_share": 0.0} if reuse[0] == "q_change" else {}),
    )
    q_values = Q_VALUES[STATES] if reuse[0] == "q_change" else None
    greedy = np.eye(4)[[0, 0]]
    policy = greedy if reuse[0] == "q_change" else STUDENT
    state, seen = rollout(core, num_steps=40, policy=policy, q_values=q_values)
    weights = 1.0 / np.exp(seen["behaviour_logp"].astype(np.float64))
    for s in (0, 1):
        here = state == s
        for action in np.flatnonzero(policy[s]):
            estimate = np.where(seen["actions"][here] == action, policy[s][action] * weights[here], 0.0)
            error = estimate.std() / np.sqrt(here.sum())
            assert abs(estimate.mean() - policy[s][action]) < 4 * error + 1e-6


def test_impossible_advice_is_floored_not_infinite():
    table = np.array([[0.0, 0.0, 0.0, 1.0]])
    core = make_core(TableAdvisor(table, at_hand=True), probability_initial=1.0, probability_final=1.0)
    decision = core.act(np.zeros((3, 1), np.float32), np.tile([0.5, 0.5, 0.0, 0.0], (3, 1)), step=0)
    assert (decision.actions == 3).all()
    np.testing.assert_allclose(decision.policy_logp, np.log(1e-12), rtol=1e-6)
    np.testing.assert_allclose(decision.behaviour_logp, 0.0)
    assert not decision.eligible.any()  # a gate of 1 leaves no control group


def test_tails_stay_a_distribution_when_they_never_show():
    visits = np.zeros(2, dtype=kernels.VISIT)
    visits["open"] = True
    student = kernels.Student(np.zeros((2, 1), np.float32), STUDENT, np.empty((2, 4)), np.empty((0, 0)), LEGAL)
    kernels.explore_beside(tuple(student), visits, 1.0, 1.0, 0.0)
    np.testing.assert_allclose(student.tails, STUDENT)


@pytest.mark.parametrize("policy, tutored", [([np.nan, np.nan], True), ([np.nan, np.nan], False), ([0.0, 0.0], False)])
def test_diverged_student_is_told(policy, tutored):
    advisor = TableAdvisor([[0.5, 0.5]], at_hand=True) if tutored else None
    core = Explorer(AdviceConfig(), num_actions=2, theta_steps=1, advisor=advisor, seed=0)
    with pytest.raises(ValueError, match="diverged"):
        core.act(np.zeros((1, 1), np.float32), np.array([policy]), step=0)
