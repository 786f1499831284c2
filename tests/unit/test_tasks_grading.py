"""A report card must tell a good tutor from a constant one, and a label from its place."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rllib_plugins.advising.llm import best_guess
from rllib_plugins.grading import ReportCard, grade, render, write_figure
from rllib_plugins.grading import card as scores
from rllib_plugins.grading.states import visited_states
from rllib_plugins.grading.view import _legend_below
from rllib_plugins.tasks import Task, load_task
from rllib_plugins.tasks.connect_four import ConnectFourTask
from tutor_service.errors import UserError
from tutor_service.schema import Advice, AdviceRequest

TASK = load_task("blackjack")
SNAKE = load_task("snake")


class WithoutSolver(ConnectFourTask):
    """Connect Four without its oracle, which takes seconds over the middle of the game."""

    oracle = Task.oracle
    action_values = Task.action_values


class Scripted:
    """A tutor in words: answers from a rule over (state text, label), and remembers what it was asked."""

    def __init__(self, rule, mass: float = 0.5, source: str = "model") -> None:
        self.rule, self.mass, self.source = rule, mass, source
        self.asked: list[AdviceRequest] = []

    def __call__(self, requests: list[AdviceRequest]) -> list[Advice | None]:
        self.asked += requests
        answers: list[Advice | None] = []
        for request in requests:
            weights = self.rule(request)
            if weights is None:
                answers.append(None)
                continue
            total = sum(weights)
            answers.append(Advice(tuple(w / total for w in weights), self.mass, self.source, 20.0, 0, 150))
        return answers


def basic_strategy(request: AdviceRequest) -> list[float]:
    words = request.state.replace(".", "").replace(":", "").split()
    total, ace, dealer = int(words[2]), words[3] == "(with", words[-1]
    observation = (total, 1 if dealer == "ace" else int(dealer), int(ace))
    best = TASK.actions[int(TASK.oracle(observation).argmax())]
    return [0.9 if label == best else 0.1 for label in request.actions]


def favourite(label: str):
    return lambda request: [0.8 if action == label else 0.2 for action in request.actions]


def first_label(request: AdviceRequest) -> list[float]:
    return [0.7, *[0.3] * (len(request.actions) - 1)]


def test_a_good_tutor_gets_full_marks() -> None:
    card = grade(TASK, Scripted(basic_strategy), num_states=300, seed=0, name="good")
    assert card.agreement == 1 and card.regret == 0 and card.beats_constant
    assert card.agreement_sampled == pytest.approx(0.9)
    assert 0 < card.regret_sampled < card.constant_regret
    assert card.order_sensitivity == pytest.approx(0) and card.order_flips == 0
    assert card.first_label_excess == pytest.approx(0, abs=1e-9)
    assert (card.legal_mass, card.latency_ms, card.tokens, card.from_store) == (0.5, 20.0, 150.0, 0.0)
    assert card.verdict.startswith("good is better than any constant answer on blackjack")
    assert card.trivial_player == "stick at 17" and card.trivial == pytest.approx(-0.079, abs=5e-4)


def test_a_constant_tutor_is_called_one() -> None:
    for label in TASK.actions:
        card = grade(TASK, Scripted(favourite(label)), num_states=300, seed=0)
        assert "no better than a constant answer" in card.verdict and not card.beats_constant
    card = grade(TASK, Scripted(favourite("stick")), num_states=300, seed=0)
    assert card.agreement == pytest.approx(card.constant_agreement) and card.constant_action == "stick"
    assert card.regret == pytest.approx(card.constant_regret)
    assert {label: ours for label, ours, _ in card.labels}["stick"] == pytest.approx(0.8)
    assert card.label_bias == pytest.approx(0.8 - next(o for label, _, o in card.labels if label == "stick"))


def test_a_tutor_that_goes_by_places_is_found_out() -> None:
    card = grade(TASK, Scripted(first_label), num_states=200, seed=0)
    assert card.order_flips == 1 and card.order_sensitivity == pytest.approx(0.4)
    assert card.first_label_excess == pytest.approx(0.2)


def test_the_second_question_names_the_same_labels_in_another_order() -> None:
    task = WithoutSolver()
    tutor = Scripted(lambda request: [1.0] * len(request.actions))
    card = grade(task, tutor, num_states=10, seed=1)
    half = len(tutor.asked) // 2
    assert half == card.num_states
    for first, second in zip(tutor.asked[:half], tutor.asked[half:], strict=True):
        assert first.state == second.state and set(first.actions) == set(second.actions)
        assert first.actions == tuple(sorted(first.actions)) and first.actions[0] != second.actions[0]


def test_silence_is_counted_and_not_graded() -> None:
    card = grade(TASK, Scripted(lambda request: None), num_states=50, seed=0, name="mute")
    assert card.answered == 0 and card.agreement is None and card.verdict == "mute gave no advice at all on blackjack."
    reasoned = replace(card, missed_because="the endpoint answered 401")
    assert reasoned.verdict == "mute gave no advice at all on blackjack: the endpoint answered 401"
    sometimes = Scripted(lambda request: basic_strategy(request) if "no usable" in request.state else None)
    card = grade(TASK, sometimes, num_states=200, seed=0)
    assert 0.5 < card.answered < 1 and card.agreement == 1


def test_stored_answers_cost_nothing_and_say_so() -> None:
    card = grade(TASK, Scripted(basic_strategy, source="store"), num_states=50, seed=0)
    assert card.from_store == 1 and card.latency_ms is None and card.tokens is None
    console = Console(width=120, record=True, file=StringIO())
    console.print(render(card))
    assert "100% came from the store" in console.export_text()


def test_a_task_without_an_oracle_is_said_to_have_none() -> None:
    class Plain(type(TASK)):  # type: ignore[misc]
        oracle = Task.oracle
        oracle_batch = Task.oracle_batch

    card = grade(Plain(), Scripted(first_label), num_states=50, seed=0)
    assert card.agreement is None and "no oracle" in card.verdict
    assert card.order_flips == 1 and card.labels[0][2] is None


def test_scripted_references_are_graded_as_advisors() -> None:
    from rllib_plugins.reference_tutors import OracleAdvisor, RandomAdvisor

    best, random = (grade(TASK, tutor(TASK), num_states=300, seed=0) for tutor in (OracleAdvisor, RandomAdvisor))
    assert best.agreement == 1 and best.order_flips is None and best.legal_mass is None
    assert random.agreement == pytest.approx(0.5) and not random.beats_constant
    assert random.regret == pytest.approx(random.random_regret)


def test_states_are_those_of_students_of_every_skill() -> None:
    states, visits = visited_states(TASK, 2_000, seed=0)
    again, same = visited_states(TASK, 2_000, seed=0)
    assert np.array_equal(states, again) and np.array_equal(visits, same)
    assert visits.sum() == 2_000 and len(np.unique(states, axis=0)) == len(states) > 150
    assert states.shape[1] == 3 and all(4 <= TASK.unflatten(row)[0] <= 21 for row in states)
    long_snakes, _ = visited_states(load_task("snake", observation="grid"), 300, seed=0)
    assert (long_snakes.reshape(-1, 3, 36)[:, 0] > 0).sum(axis=1).max() > 20  # the best player's states are among them
    with pytest.raises(UserError, match="num_states = 0"):
        visited_states(TASK, 0, seed=0)


def test_forced_moves_are_left_out() -> None:
    class OneWayOut(type(SNAKE)):  # type: ignore[misc]
        def legal_batch(self, observations: np.ndarray) -> np.ndarray:
            alive = observations[:, :3] == 0
            return alive | ~alive.any(axis=1, keepdims=True)

    num_deadly = [visited_states(task, 2_000, seed=0)[0][:, :3].sum(axis=1) for task in (SNAKE, OneWayOut())]
    assert 2 in num_deadly[0] and set(num_deadly[1].tolist()) <= {0.0, 1.0, 3.0}


def test_scores_by_hand() -> None:
    oracle = np.array([[1.0, 0, 0], [0, 0.5, 0.5]])
    policy = np.array([[0.6, 0.4, 0], [0.2, 0.4, 0.4]])
    assert best_guess(policy).tolist() == [[1, 0, 0], [0, 0.5, 0.5]]
    assert scores.agreements(policy, oracle) == pytest.approx([0.6, 0.8])
    values = np.array([[1.0, 0, np.nan], [-1, 0, 0]])
    assert scores.regrets(policy, values) == pytest.approx([0.4, 0.2])
    legal = np.array([[True, True, False], [True, True, True]])
    assert scores.constant_policies(legal)[2].tolist() == [[0.5, 0.5, 0], [0, 0, 1]]
    low, high = scores.advantage_interval(np.array([1.0, 0.0]), np.array([50, 50]))
    assert (low, high) == pytest.approx((0.5 - 0.098, 0.5 + 0.098))


def test_a_narrow_lead_within_the_noise_is_no_lead() -> None:
    base = {"task": "t", "tutor": "x", "num_visits": 1, "num_states": 1, "answered": 1.0, "constant_action": "a"}
    unclear = ReportCard(**base, agreement=0.55, constant_agreement=0.5, advantage_low=-0.02, advantage_high=0.12)
    clear = ReportCard(**base, agreement=0.55, constant_agreement=0.5, advantage_low=0.02, advantage_high=0.08)
    assert "no better than a constant answer" in unclear.verdict and "is better than" in clear.verdict
    assert (unclear.to_metrics()["grade/beats_constant"], clear.to_metrics()["grade/beats_constant"]) == (0.0, 1.0)


def test_the_card_can_be_read_logged_and_looked_at(tmp_path: Path) -> None:
    card = grade(TASK, Scripted(first_label), num_states=100, seed=0, name="first")
    console = Console(width=120, record=True, file=StringIO())
    console.print(render(card))
    text = console.export_text()
    assert (
        card.verdict[:60] in text
        and "hard 12-16 vs 7-ace" in text
        and "order sensitivity" in text
        and "stick at 17" in text
    )
    metrics = card.to_metrics()
    assert metrics["grade/agreement"] == card.agreement and metrics["grade/num_visits"] == 100
    assert all(isinstance(value, float) and np.isfinite(value) for value in metrics.values())
    path = write_figure(card, tmp_path / "sub" / "card.png")
    assert path.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("num_situations", [1, 12])
def test_the_figure_s_legend_lies_below_the_axis_label(num_situations: int) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 1.6 + 0.45 * max(4, num_situations)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.barh(range(num_situations), 1.0, label="tutor")
    axes.set_xlabel("agreement with the oracle")
    _legend_below(axes)
    figure.canvas.draw()
    assert axes.get_legend().get_window_extent().y1 <= axes.xaxis.label.get_window_extent().y0
    assert axes.get_legend().get_window_extent().y0 >= 0
