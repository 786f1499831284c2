"""Advising and reuse rules by name, by formula, and refused when wrong."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from rllib_plugins.advising.config import PAPER_ADVICE, AdviceConfig
from rllib_plugins.advising.reuse import (
    ReuseRule,
    make_reuse,
    register_reuse,
    reuse_names,
)
from rllib_plugins.advising.rules import (
    AdvisingRule,
    LinearSchedule,
    make_rule,
    margin,
    q_range,
    register_rule,
    rule_names,
)
from rllib_plugins.advising.rules import entropy as normalised_entropy
from rllib_plugins.config import StudentConfig
from tutor_service.errors import UserError


class EverySecond(AdvisingRule):
    """A rule of a user's own."""

    width: float = Field(default=1.0, gt=0)

    def on_state(self, policy, legal, q_values):
        return np.arange(len(policy)) % 2 == 0


class Forever(ReuseRule):
    def usable(self, memory, draw, q):
        return True


# Formulas


def test_importance_measures():
    policy = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.6, 0.3, 0.1]])
    legal = np.array([[True, True, False], [True, False, False], [True, True, True]])
    assert margin(policy, legal).tolist() == pytest.approx([1.0, 0.0, 0.7])
    nats = -(0.6 * np.log(0.6) + 0.3 * np.log(0.3) + 0.1 * np.log(0.1))
    assert normalised_entropy(policy, legal).tolist() == pytest.approx([1.0, 0.0, nats / np.log(3)])
    q_values = np.array([[1.0, 3.0, -np.inf], [2.0, -np.inf, -np.inf], [0.0, -1.0, 4.0]])
    assert q_range(q_values, legal).tolist() == [2.0, 0.0, 5.0]
    assert q_range(np.array([[1.0, 3.0]]), None).tolist() == [2.0]


def test_importance_takes_the_measure_that_the_student_has():
    rule = make_rule("importance", {"threshold": 0.9})
    policy = np.array([[0.5, 0.5]])
    assert rule.on_state(policy, None, None).tolist() == [True]
    assert rule.on_state(policy, None, np.array([[1.0, 1.5]])).tolist() == [False]
    with pytest.raises(ValueError, match="q_range"):
        make_rule("importance", {"measure": "q_range"}).on_state(policy, None, None)


def test_early_holds_its_probability():
    schedule = LinearSchedule(0.8, 0.1, 100)
    assert make_rule("early", {}).probability(schedule, 10**6) == 0.8
    assert make_rule("linear", {}).probability(schedule, 10**6) == 0.1


def test_confidence():
    rule = make_rule("confidence", {"threshold": 0.6})
    assert rule.on_advice(np.array([[0.6, 0.4], [0.5, 0.5], [np.nan, np.nan]])).tolist() == [True, False, False]


class Undecided(AdvisingRule):
    """Follows advice that is not sure."""

    def on_advice(self, advice):
        return advice.max(axis=1) < 0.7


def test_a_rule_of_ones_own_is_asked_about_advice_where_it_says_something_about_it():
    assert Undecided().reads_advice and Undecided().looks
    assert not EverySecond().reads_advice and EverySecond().looks
    assert not make_rule("linear", {}).looks


# P(τ)


probability = st.floats(0, 1)


@given(initial=probability, final=probability, theta=st.floats(1, 1e6), step=st.integers(0, 2_000_000))
def test_stays_between_its_ends_and_moves_towards_the_final(initial, final, theta, step):
    schedule = LinearSchedule(initial, final, theta)
    value = schedule(step)
    assert min(initial, final) - 1e-12 <= value <= max(initial, final) + 1e-12
    assert abs(schedule(step + 1) - final) <= abs(value - final) + 1e-12
    assert schedule(0) == initial
    assert schedule(int(theta) + 1) == final


def test_the_papers_values():
    schedule = LinearSchedule(1.0, 0.1, 20_000)
    assert schedule(10_000) == pytest.approx(0.55)
    assert schedule(20_000) == schedule(40_000) == 0.1


@pytest.mark.parametrize(
    "arguments, field",
    [
        ((1.1, 0, 1), "initial"),
        ((0, -0.1, 1), "final"),
        ((1, 0, 0), "theta"),
        ((1, 0, -1), "theta"),
        ((float("nan"), 0, 1), "initial"),
    ],
)
def test_out_of_range_is_named(arguments, field):
    with pytest.raises(ValueError, match=field):
        LinearSchedule(*arguments)


# Names and options


def test_names():
    assert rule_names() == ("confidence", "early", "importance", "linear", "mistake")
    assert reuse_names() == ("budget", "decay", "off", "q_change")


def test_a_users_own_rule_by_import_path_and_by_registration(monkeypatch):
    path = f"{__name__}:EverySecond"
    assert make_rule(path, {"width": 2}).width == 2
    assert AdviceConfig(rule=path, reuse=f"{__name__}:Forever").rule == path
    from rllib_plugins.advising import reuse, rules

    monkeypatch.setattr(rules._REGISTRY, "_classes", dict(rules._REGISTRY._classes))
    monkeypatch.setattr(reuse._REGISTRY, "_classes", dict(reuse._REGISTRY._classes))
    register_rule("every_second", EverySecond)
    register_rule("every_second", EverySecond)  # registering again what is registered is no mistake
    register_reuse("forever", Forever)
    assert isinstance(make_rule("every_second", {}), EverySecond)
    assert AdviceConfig(reuse="forever").reuse == "forever"
    with pytest.raises(ValueError, match="registered already"):
        register_rule("linear", EverySecond)
    with pytest.raises(ValueError, match="must extend"):
        register_rule("other", Forever)


def test_a_compiled_rule_cannot_be_extended_silently():
    with pytest.raises(TypeError, match="extend ReuseRule"):
        type("Mine", (type(make_reuse("budget", {})),), {"__module__": __name__})


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"rule": "importence"}, ["advice.rule", "importence", "'importance'"]),
        ({"reuse": "buget"}, ["advice.reuse", "'budget'"]),
        (
            {"rule_options": {"threshold": 0.5}},
            ["advice.rule_options.threshold", "advice.rule = 'linear' has no options"],
        ),
        (
            {"rule": "importance", "rule_options": {"treshold": 0.5}},
            ["treshold", "'threshold'", "advice.rule = 'importance' has no such option"],
        ),
        (
            {"rule": "confidence", "rule_options": {"threshold": 1.5}},
            ["advice.rule_options.threshold", "1.5", "(advice.rule = 'confidence')"],
        ),
        ({"reuse_options": {"budget": -1}}, ["advice.reuse_options.budget", "-1"]),
        ({"reuse_options": {"buget": 1}}, ["buget", "'budget'"]),
        ({"reuse": "decay", "reuse_options": {"decay": 1.1}}, ["advice.reuse_options.decay", "1.1"]),
        ({"rule": "early"}, ["early", "advice_budget"]),
        ({"rule": "no_such_module:Rule"}, ["no_such_module"]),
        ({"rule": "math:pi"}, ["AdvisingRule"]),
        ({"reuse": f"{__name__}:EverySecond"}, ["ReuseRule"]),
        ({"rule": ":"}, ["':'"]),
    ],
)
def test_bad_rules_are_refused_by_the_config(fields, words):
    with pytest.raises(UserError) as caught:
        AdviceConfig(**fields)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"probability_initial": 1.1},
        {"probability_final": -0.1},
        {"theta_frac": 0},
        {"advice_budget": -1},
        {"weight_cap": 0},
        {"trust_half_life": 0},
        {"dqn_random_share": 2},
        {"probability_initial": float("nan")},
    ],
)
def test_bad_numbers_are_refused_by_the_config(fields):
    with pytest.raises(ValidationError, match=next(iter(fields))):
        AdviceConfig(**fields)


@pytest.mark.parametrize("advice", [{"reuse": "q_change"}, {"rule": "mistake", "rule_options": {"measure": "q_range"}}])
def test_rules_that_need_q_values_are_refused_for_sampling_students(advice):
    StudentConfig(algorithm="dqn", task="blackjack", advice=AdviceConfig(**advice))
    with pytest.raises(UserError, match="ppo"):
        StudentConfig(algorithm="ppo", task="blackjack", advice=AdviceConfig(**advice))


def test_the_papers_advice_is_valid():
    assert PAPER_ADVICE.reuse == "budget" and PAPER_ADVICE.trust == "fixed"


def test_validating_a_config_imports_nothing_heavy():
    code = (
        "import sys; from rllib_plugins.config import AdviceConfig; AdviceConfig(rule='mistake');"
        "print(sorted({'torch', 'ray', 'gymnasium', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
