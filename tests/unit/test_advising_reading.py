"""Reading a tutor's answers: calibration, temperature, best guess, the probe, and what a student is told of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rllib_plugins.advising.advisor import legal_mask
from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.advising.explorer import Explorer
from rllib_plugins.advising.llm import (
    PROBE_STATES,
    LLMAdvisor,
    Reading,
    best_guess,
    calibrated,
    mean_where_legal,
    probe_states,
)
from rllib_plugins.grading import grade
from rllib_plugins.metrics import Source
from rllib_plugins.tasks import Task, load_task
from rllib_plugins.tutors import make_advisor
from tutor_service.client import ClientSettings, TutorClient
from tutor_service.config import TutorConfig
from tutor_service.errors import UserError
from tutor_service.prompts.layout import EMPTY_STATE
from tutor_service.schema import Advice, AdviceError, AdviceRequest

SNAKE = load_task("snake")
LEANING = (0.6, 0.3, 0.1)
"""What the tutor below says whatever it is shown, but for a little."""


def opinion(request: AdviceRequest) -> tuple[float, ...]:
    """A tutor that likes the first label whatever it is shown; where food is ahead, "straight" a little more."""
    weights = dict(zip(SNAKE.actions, LEANING, strict=True))
    if "ahead" in request.state:
        weights["straight"] *= 1.3
    given = [weights[label] for label in request.actions]
    return tuple(weight / sum(given) for weight in given)


class Backend:
    """Answers by ``opinion``, but for what it refuses."""

    def __init__(self, refused: dict[str, bool] | None = None) -> None:
        self.refused = refused or {}
        self.asked: list[AdviceRequest] = []

    def advise(self, requests: Sequence[AdviceRequest], timeout_s: float) -> list[Advice | AdviceError]:
        self.asked.extend(requests)
        return [
            AdviceError("no", retry=self.refused[request.state])
            if request.state in self.refused
            else Advice(opinion(request), 0.5, tokens=10)
            for request in requests
        ]


def advisor_of(reading: Reading, backend: Backend | None = None, task: Task = SNAKE) -> LLMAdvisor:
    return LLMAdvisor(task, TutorClient(backend or Backend(), ClientSettings(retries=0)), reading)


def words(task: Task, states: np.ndarray) -> list[str]:
    return [task.describe(task.raw_observation(state)) for state in states]


# Formulas


def test_calibration_divides_and_temperature_sharpens() -> None:
    rows, legal = np.array([[0.8, 0.2], [0.5, 0.5], [1.0, 0.0]]), np.array([[True, True], [True, True], [True, False]])
    prior = np.array([0.8, 0.2])
    np.testing.assert_allclose(calibrated(rows, legal, prior), [[0.5, 0.5], [0.2, 0.8], [1.0, 0.0]])
    np.testing.assert_allclose(calibrated(rows, legal, None, 0.5)[0], [16 / 17, 1 / 17])
    assert calibrated(rows, legal, None) is rows
    assert np.isnan(calibrated(np.array([[np.nan, np.nan]]), legal[:1], prior)).all()


@given(arrays(np.float64, (4, 3), elements=st.floats(0.0, 1.0)), arrays(bool, (4, 3)), st.floats(0.05, 5.0))
def test_what_is_read_is_a_distribution_over_legal_actions(weights: Any, legal: Any, temperature: float) -> None:
    legal[:, 0] = True
    rows = np.where(legal, weights + 1e-3, 0.0)
    rows /= rows.sum(axis=1, keepdims=True)
    read = calibrated(rows, legal, mean_where_legal(rows, legal), temperature)
    for given_rows in (read, best_guess(read)):
        np.testing.assert_allclose(given_rows.sum(axis=1), 1.0)
        assert (given_rows[~legal] == 0).all() and (given_rows >= 0).all()


def test_the_best_guess_is_shared_by_equals() -> None:
    rows = np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4], [np.nan] * 3])
    np.testing.assert_array_equal(best_guess(rows), [[0, 1, 0], [0.5, 0, 0.5], [np.nan] * 3])


def test_the_mean_counts_a_label_where_it_is_legal_and_answered() -> None:
    rows = np.array([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [np.nan] * 3])
    legal = np.array([[True, True, False]] * 3)
    np.testing.assert_allclose(mean_where_legal(rows, legal), [0.7, 0.3, 0.5])


# The probe


@pytest.mark.parametrize("name", ["snake", "blackjack", "connect_four"])
def test_the_probe_is_fixed_distinct_and_has_choices(name: str) -> None:
    task = load_task(name)
    states = probe_states(task)
    assert 50 < len(states) <= PROBE_STATES
    assert len(np.unique(states, axis=0)) == len(states)
    assert (legal_mask(task, states).sum(axis=1) > 1).all()
    again = probe_states(type("Copy", (type(task),), {})())
    np.testing.assert_array_equal(again, states)


class Corridor(Task):
    """One state in which there is a choice."""

    name = "corridor"
    env_id = "FrozenLake-v1"
    env_kwargs = {"desc": ["SG"], "is_slippery": False}  # noqa: RUF012
    rules = "Reach the end."
    actions = ("left", "down", "right", "up")
    raw_observation_space = spaces.Discrete(2)

    def describe(self, observation: Any) -> str:
        return f"Cell {observation}."


def test_a_probe_of_one_state_is_refused() -> None:
    with pytest.raises(UserError, match=r"players met 1: set the tutor's calibration to none"):
        probe_states(Corridor())


# The advisor


def test_a_tutor_that_leans_is_followed_where_it_says_more_than_usual() -> None:
    states = probe_states(SNAKE)
    ahead = np.array(["ahead" in text for text in words(SNAKE, states)])
    plain = advisor_of(Reading()).ask(states).probabilities
    assert (plain.argmax(axis=1) == 0).all()
    read = advisor_of(Reading("batch")).ask(states)
    np.testing.assert_array_equal(read.probabilities.argmax(axis=1) == 1, ahead)
    assert set(np.unique(read.probabilities)) == {0.0, 0.5, 1.0}  # elsewhere left and right are equals
    assert read.opinions is not None and 0.3 < read.opinions.max() < 0.5
    sampled = advisor_of(Reading("batch", "sampled", 0.25)).ask(states)
    np.testing.assert_allclose(sampled.opinions, sampled.probabilities)
    sharper = read.opinions**4
    np.testing.assert_allclose(sampled.probabilities, sharper / sharper.sum(axis=1, keepdims=True))


def test_an_empty_state_is_asked_about_once() -> None:
    backend = Backend()
    advisor = advisor_of(Reading("empty"), backend)
    states = probe_states(SNAKE)
    first = advisor.ask(states[:5])
    advisor.ask(states)
    assert sum(request.state == EMPTY_STATE for request in backend.asked) == 1
    assert first.tokens == 6 * 10 and first.invalid == 0


def test_every_trial_divides_by_the_same_numbers_whatever_it_meets_first() -> None:
    states = probe_states(SNAKE)
    one, other = advisor_of(Reading("batch")), advisor_of(Reading("batch"))
    first = one.ask(states[:1])
    other.ask(states[::-1].copy())
    np.testing.assert_array_equal(first.opinions, other.ask(states[:1]).opinions)


def test_while_the_probe_is_not_answered_advice_is_missed_and_then_the_same() -> None:
    states = probe_states(SNAKE)
    backend = Backend({words(SNAKE, states)[7]: True})
    advisor = advisor_of(Reading("batch"), backend)
    assert advisor.ask(states[:3]).source.tolist() == [Source.MISSED] * 3
    backend.refused.clear()
    late = advisor.ask(states[:3])
    np.testing.assert_array_equal(late.opinions, advisor_of(Reading("batch")).ask(states[:3]).opinions)


def test_what_is_refused_for_good_is_left_out_of_the_mean() -> None:
    states = probe_states(SNAKE)
    backend = Backend({words(SNAKE, states)[7]: False})
    batch = advisor_of(Reading("batch"), backend).ask(states)
    assert (batch.source == Source.MISSED).nonzero()[0].tolist() == [7]
    backend.refused = dict.fromkeys(words(SNAKE, states)[1:], False)
    with pytest.raises(UserError, match=r"answered 1; 2 are needed.*calibration to none"):
        advisor_of(Reading("batch"), backend).ask(states)


def test_rules_judge_by_how_sure_the_tutor_is_and_students_follow_its_best_guess() -> None:
    states = probe_states(SNAKE)
    consulted = []
    for threshold in (0.58, 0.7):
        config = AdviceConfig(
            rule="confidence", rule_options={"threshold": threshold}, probability_final=1.0, trust="fixed", reuse="off"
        )
        core = Explorer(config, num_actions=3, theta_steps=1.0, advisor=advisor_of(Reading()), seed=0)
        for step in (0, 1):  # asked for, then at hand
            decision = core.act(states, np.full((len(states), 3), 1 / 3), step=step)
            assert (decision.actions[decision.consulted] == 0).all()
            consulted.append(decision.consulted.mean())
    assert 0.3 < consulted[0] == consulted[1] < 0.9 and consulted[2:] == [0.0, 0.0]


def test_opinions_survive_a_restore() -> None:
    states = probe_states(SNAKE)
    advisor, other = advisor_of(Reading("batch")), advisor_of(Reading("batch"))
    advisor.ask(states)
    other.set_state(advisor.get_state())
    np.testing.assert_array_equal(other.opinions.look_up(states), advisor.opinions.look_up(states))
    np.testing.assert_array_equal(other.table.look_up(states), advisor.table.look_up(states))


def test_recorded_raw_answers_are_read_alike(tmp_path: Path) -> None:
    states = probe_states(SNAKE)
    path = tmp_path / "answers.jsonl"
    rows = [AdviceRequest(SNAKE.rules, text, SNAKE.actions) for text in words(SNAKE, states)]
    path.write_text(
        "".join(
            json.dumps(
                {
                    "rules": row.rules,
                    "state": row.state,
                    "actions": row.actions,
                    "probabilities": opinion(row),
                    "legal_mass": 0.5,
                }
            )
            + "\n"
            for row in rows
        )
    )
    recorded = TutorConfig(name="mine", backend="recorded", file=path, calibration="batch", advice="best")
    advisor = make_advisor(recorded, SNAKE)
    assert advisor is not None
    live = advisor_of(Reading("batch")).ask(states)
    np.testing.assert_allclose(advisor.ask(states).probabilities, live.probabilities)
    with pytest.raises(UserError, match=r"answered 0; 1 are needed"):
        make_advisor(recorded.model_copy(update={"calibration": "empty"}), SNAKE)


def test_a_grade_is_about_what_the_tutor_means() -> None:
    client = TutorClient(Backend(), ClientSettings())
    raw = grade(SNAKE, client.advise, num_states=100)
    read_card = grade(SNAKE, client.advise, reading=Reading("batch"), num_states=100)
    shares = {label.label: label.tutor for label in read_card.labels}
    assert max(shares.values()) < 0.45 and raw.labels[0].tutor > 0.5
    assert raw.legal_mass == read_card.legal_mass == 0.5
