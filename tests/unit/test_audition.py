"""Auditions: a tutor played by itself in every way of asking and reading it, live and recorded."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from rich.console import Console

from rllib_plugins.advising.llm import Reading, mean_where_legal
from rllib_plugins.audition import Answers, Asking, Audition, Candidate, Way, all_ways, audition
from rllib_plugins.audition.players import drawn_from
from rllib_plugins.audition.view import cost_table, left_out_lines, ways_table, write_figure
from rllib_plugins.tasks import load_task
from tune_sweeps.run.audition import Wanted, hold_audition, wanted_ways
from tutor_service.errors import UserError
from tutor_service.prompts.layout import EMPTY_STATE
from tutor_service.schema import Advice, AdviceRequest
from tutor_service.tutor_files import load_tutor

TASK = load_task("snake")
PLAIN = Asking("scored", "none")
BIAS = np.array([0.7, 0.2, 0.1])
"""A tutor's liking for each label, whatever the state: it hides what the tutor knows."""


def snake_words() -> dict[str, np.ndarray]:
    """The oracle's distribution by the state in words, softened."""
    found = {}
    envs = TASK.make_vec(64, 0)
    states, _ = envs.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(300):
        for state, row in zip(states, TASK.oracle_batch(states), strict=True):
            found[TASK.describe(TASK.raw_observation(state))] = 0.4 * row + 0.2
        states, *_ = envs.step(rng.integers(3, size=64))
    return found


WORDS = snake_words()


class Biased:
    """Knows the best action but says mostly 'left'; counts what it is asked."""

    def __init__(self, silent: bool = False) -> None:
        self.asked: list[AdviceRequest] = []
        self.silent = silent

    def __call__(self, requests: list[AdviceRequest]) -> Sequence[Advice | None]:
        self.asked += requests
        return [None if self.silent else self.answer(request) for request in requests]

    def answer(self, request: AdviceRequest) -> Advice | None:
        known = np.ones(3) if request.state == EMPTY_STATE else WORDS.get(request.state)
        if known is None:
            return None
        weights = BIAS * known
        return Advice(tuple((weights / weights.sum()).tolist()), 0.9, "model", tokens=10)


def hold(ask: Biased, **options: object) -> Audition:
    ways = all_ways([PLAIN], ("none", "empty", "batch"), ("best", "sampled"))
    return audition(TASK, ways, Candidate("biased", {PLAIN: Answers(TASK, ask)}), episodes=120, **options)


def test_the_reading_that_is_worth_most_is_found() -> None:
    ask = Biased()
    states: list[Audition] = []
    found = hold(ask, on_change=states.append)
    assert found.best.player.advice == "best" and found.best.player.calibration in {"empty", "batch"}
    assert found.worth_following and found.best.score.mean > 5 and 0.2 < found.share_of_oracle <= 1.1
    assert found.race.episodes <= found.race.full / 3
    assert {"random", "oracle", "always 'left'"} <= set(found.references)
    assert states and states[-1].best == found.best
    assert "is worth following on snake: followed as 'scored · none · " in found.verdict


def test_each_state_is_asked_about_once() -> None:
    ask = Biased()
    found = hold(ask)
    questions = [(request.state, request.actions) for request in ask.asked]
    assert len(questions) == len(set(questions)) == found.answers[PLAIN].cost.states
    cost = found.answers[PLAIN].cost
    assert cost.evaluations == cost.states - cost.missed and cost.tokens == 10 * cost.evaluations
    assert math.isclose(cost.legal_mass, 0.9)
    assert found.to_metrics()["audition/model_evaluations"] == cost.evaluations


def test_the_tutor_reads_the_rules_it_is_given() -> None:
    ask = Biased()
    Answers(TASK, ask, TASK.with_hint(True).rules).prior("empty")
    assert ask.asked[0].rules == f"{TASK.rules}\n\nHint: {TASK.hint}" and ask.asked[0].actions == TASK.actions


def test_a_tutor_that_says_nothing_is_an_error_with_its_name() -> None:
    with pytest.raises(UserError, match="tutor 'biased' gave no advice"):
        hold(Biased(silent=True))


def test_too_few_episodes_say_what_to_do() -> None:
    ways = all_ways([PLAIN], ("none",), ("best", "sampled"))
    with pytest.raises(UserError, match=r"episodes = 4: .*too few.*Give more"):
        audition(TASK, ways, Candidate("biased", {PLAIN: Answers(TASK, Biased())}), episodes=4)


def test_a_useless_tutor_is_not_worth_following() -> None:
    class Useless(Biased):
        def answer(self, request: AdviceRequest) -> Advice | None:
            return Advice((0.2, 0.6, 0.2), 0.5)

    found = hold(Useless())
    assert not found.worth_following and "is not worth following" in found.verdict


def test_it_can_be_looked_at(tmp_path: Path) -> None:
    found = hold(Biased())
    console = Console(file=io.StringIO(), width=160)
    console.print(ways_table(found), cost_table(found))
    text = console.file.getvalue()
    assert "batch" in text and "random" in text and "legal mass" in text
    assert write_figure(found, tmp_path / "a.png").stat().st_size > 10_000
    assert left_out_lines(found) == []


@given(
    rows=arrays.arrays(np.float64, (5, 3), elements=st.floats(1e-3, 1)),
    legal=arrays.arrays(np.bool_, (5, 3)),
    prior=arrays.arrays(np.float64, 3, elements=st.floats(1e-3, 1)),
    temperature=st.floats(0.1, 10),
    best=st.booleans(),
)
def test_what_is_read_is_a_distribution_over_the_legal_actions(rows, legal, prior, temperature, best) -> None:
    legal[:, 0] |= ~legal.any(axis=1)
    rows = rows * legal
    rows /= rows.sum(axis=1, keepdims=True)
    rows[4] = np.nan
    read = drawn_from(rows, legal, Reading("empty", "best" if best else "sampled", temperature), prior)
    assert np.allclose(read.sum(axis=1), 1) and not read[~legal].any()
    assert np.allclose(read[4], legal[4] / legal[4].sum())
    if best:
        divided = np.where(legal, rows / prior, -1)[:4]
        top = divided.max(axis=1, keepdims=True)
        assert np.allclose(np.where(read[:4] > 0, divided, top), top)


def test_calibration_is_undone_by_hand() -> None:
    rows, legal = np.array([[0.6, 0.4], [0.8, 0.2]]), np.ones((2, 2), dtype=bool)
    prior = mean_where_legal(rows, legal)
    assert np.allclose(prior, (0.7, 0.3))
    weights = rows / prior
    sampled = Reading("batch", "sampled")
    assert np.allclose(drawn_from(rows, legal, sampled, prior), weights / weights.sum(axis=1, keepdims=True))
    assert np.allclose(drawn_from(rows, legal, sampled, None), rows)


def write_recording(path: Path, way: str, right: bool) -> Path:
    """A recorded tutor that is biased, and knows the best action or nothing."""
    rows = []
    for state, known in WORDS.items():
        weights = BIAS * (known if right else np.ones(3))
        rows.append(
            {
                "identity": json.dumps({"decoding": "scored", "way": way}),
                "rules": TASK.rules + (f"\n\n{way}" if right else ""),
                "state": state,
                "actions": list(TASK.actions),
                "probabilities": (weights / weights.sum()).tolist(),
                "legal_mass": 0.9,
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_recorded_tutor_of_several_ways_ends_with_a_file_of_the_best(tmp_path: Path) -> None:
    knowing = write_recording(tmp_path / "1.jsonl", "notes", right=True).read_text()
    both = tmp_path / "both.jsonl"
    both.write_text(write_recording(tmp_path / "2.jsonl", "plain", right=False).read_text() + knowing)
    screen = Console(file=io.StringIO())
    held = hold_audition(load_tutor(str(both)), TASK, Wanted(episodes=200), None, screen)
    assert held.audition.best.player == Way(Asking("scored", "notes"), "batch", "best")
    (line,) = left_out_lines(held.audition)
    assert "empty" in line and line.endswith("asks about 1 state(s), of which it answered 0; 1 are needed")
    path = tmp_path / "best.yaml"
    path.write_text(held.tutor_file)
    assert held.tutor_file.startswith("# both is worth following")
    tutor = load_tutor(str(path))
    assert (tutor.calibration, tutor.advice, tutor.backend) == ("batch", "best", "recorded")
    again = hold_audition(tutor, TASK, Wanted({"calibration": ("batch",), "advice": ("best",)}, 50), None, screen)
    assert len(again.audition.answers) == 1 and again.audition.best.score.mean > 5
    assert yaml.safe_load(held.tutor_file)["identity"] == json.dumps({"decoding": "scored", "way": "notes"})


def test_what_is_tried_can_be_chosen() -> None:
    assert wanted_ways(["calibration=none,batch", "advice=best"]) == {
        "calibration": ("none", "batch"),
        "advice": ("best",),
    }
    with pytest.raises(UserError, match=r"calibrations.*Did you mean 'calibration'"):
        wanted_ways(["calibrations=none"])
    with pytest.raises(UserError, match=r"unknown calibration 'bath'.*Did you mean 'batch'"):
        wanted_ways(["calibration=bath"])
