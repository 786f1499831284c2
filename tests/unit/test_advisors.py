"""Advisors: from observations to questions, from answers to rows, and the accounting of where they came from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.advising.llm import LLMAdvisor, Reading, raw_rows
from rllib_plugins.advising.table import DistributionTable
from rllib_plugins.metrics import Source
from rllib_plugins.tasks import Task
from rllib_plugins.tutors import (
    MixtureAdvisor,
    OracleAdvisor,
    RandomAdvisor,
    WorstAdvisor,
    check_tutor,
    make_advisor,
)
from tutor_service.client import ClientStats
from tutor_service.config import TutorConfig
from tutor_service.errors import UserError
from tutor_service.schema import Advice, AdviceRequest


class Line(Task):
    """A position 0 … 5 on a line; from 0 left is illegal, at 5 only staying is legal, at 4 nothing is."""

    name = "line"
    env_id = "none"
    rules = "Walk right."
    actions = ("left", "stay", "right")
    raw_observation_space = spaces.Discrete(6)

    def describe(self, observation: Any) -> str:
        return f"You are at {observation}."

    def legal(self, observation: Any) -> np.ndarray:
        if observation == 4:
            return np.zeros(3, dtype=bool)
        return np.array([observation not in (0, 5), True, observation != 5])

    def oracle(self, observation: Any) -> np.ndarray:
        return np.array([0.0, 0.2, 0.8])


class ValuedLine(Line):
    def action_values(self, observation: Any) -> np.ndarray:
        return np.array([np.nan if observation == 0 else -1.0, -2.0, 1.0])


class FakeClient:
    """Answers by a function of the request; remembers what it was asked, and what it has answered before."""

    def __init__(self, answer) -> None:
        self.answer = answer
        self.seen: list[AdviceRequest] = []
        self.calls = 0
        self.stats = ClientStats()

    def advise(self, requests: Sequence[AdviceRequest]) -> list[Advice | None]:
        self.calls += 1
        self.seen.extend(requests)
        return [self.answer(request) for request in requests]


def uniform(request: AdviceRequest, source: str = "model", invalid: int = 0) -> Advice:
    n = len(request.actions)
    return Advice((1 / n,) * n, 0.9, source, 5.0, invalid, 70 if source == "model" else 0)


TASK = Line()
AS_IS = Reading(advice="sampled")


def at(*positions: int) -> np.ndarray:
    return np.stack([TASK.encode(position) for position in positions])


def test_a_hint_and_synonyms_reach_the_tutor_where_they_are_wanted() -> None:
    class Hinted(Line):
        hint = "Right is best."
        synonyms: ClassVar = {"stay": ("wait",)}

    task = Hinted()
    for wanted, rules in ((False, "Walk right."), (True, "Walk right.\n\nHint: Right is best.")):
        client = FakeClient(uniform)
        LLMAdvisor(task.with_hint(wanted), client, AS_IS).ask(at(0))
        assert client.seen == [AdviceRequest(rules, "You are at 0.", ("stay", "right"), (("wait",), ()))]
    assert TASK.with_hint(True) is TASK and task.rules == "Walk right."
    tutor = make_advisor(TutorConfig(name="t", model="a/b", hint=True), task)
    assert isinstance(tutor, LLMAdvisor) and tutor.task.rules.endswith("Hint: Right is best.")


def test_the_tutor_sees_words_and_legal_labels_and_each_state_once() -> None:
    client = FakeClient(uniform)
    advisor = LLMAdvisor(TASK, client, AS_IS)
    observations = at(1, 0, 1)
    assert np.isnan(advisor.table.look_up(observations)).all()
    batch = advisor.ask(observations)
    assert client.seen == [
        AdviceRequest("Walk right.", "You are at 1.", ("left", "stay", "right")),
        AdviceRequest("Walk right.", "You are at 0.", ("stay", "right")),
    ]
    np.testing.assert_allclose(batch.probabilities, [[1 / 3] * 3, [0, 0.5, 0.5], [1 / 3] * 3])
    assert batch.source.tolist() == [Source.MODEL, Source.MODEL, Source.STORE]
    assert batch.latency_ms > 0 and batch.tokens == 2 * 70
    np.testing.assert_array_equal(advisor.table.look_up(observations), batch.probabilities)
    again = advisor.ask(observations)
    assert again.source.tolist() == [Source.STORE] * 3 and again.latency_ms == again.tokens == 0 and client.calls == 1
    np.testing.assert_array_equal(again.probabilities, batch.probabilities)


def test_the_service_s_store_counts_as_store() -> None:
    advisor = LLMAdvisor(TASK, FakeClient(lambda request: uniform(request, "store", invalid=3)), AS_IS)
    batch = advisor.ask(at(1, 2))
    assert batch.source.tolist() == [Source.STORE] * 2
    assert batch.invalid == 0, "they were counted when the model was evaluated"


def test_what_is_missed_is_asked_again() -> None:
    answers = iter([None, Advice((0.0, 0.5, 0.5), 1.0, "model", 1.0, invalid=2)])
    advisor = LLMAdvisor(TASK, FakeClient(lambda _: next(answers)), AS_IS)
    first = advisor.ask(at(1, 1))
    assert first.source.tolist() == [Source.MISSED] * 2 and np.isnan(first.probabilities).all()
    assert np.isnan(advisor.table.look_up(at(1))).all()
    second = advisor.ask(at(1))
    assert second.source.tolist() == [Source.MODEL] and second.invalid == 2


def test_where_there_is_nothing_to_choose_nothing_is_asked() -> None:
    client = FakeClient(uniform)
    batch = LLMAdvisor(TASK, client, AS_IS).ask(at(5, 4))
    assert client.calls == 0
    assert batch.source.tolist() == [Source.SCRIPT, Source.MISSED]
    np.testing.assert_array_equal(batch.probabilities, [[0, 1, 0], [np.nan] * 3])


@given(st.lists(st.booleans(), min_size=1, max_size=9).filter(any), st.data())
def test_rows_are_exact_on_legal_and_zero_on_illegal_actions(mask: list[bool], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.floats(1e-3, 1.0), min_size=sum(mask), max_size=sum(mask)))
    given_probabilities = tuple(weight / math.fsum(weights) for weight in weights)
    row, missed = raw_rows([Advice(given_probabilities, 1.0, "model", 0.0), None], np.array([mask, mask]))
    assert math.isclose(row.sum(), 1.0, abs_tol=1e-12)
    np.testing.assert_allclose(row[mask], given_probabilities, atol=1e-12)
    assert not row[~np.array(mask)].any() and np.isnan(missed).all()


def test_references_advise_as_their_names_say() -> None:
    positions = at(1, 0, 5)
    oracle = OracleAdvisor(TASK).ask(positions)
    np.testing.assert_allclose(oracle.probabilities, [[0, 0.2, 0.8], [0, 0.2, 0.8], [0, 1, 0]])
    assert oracle.source.tolist() == [Source.SCRIPT] * 3 and oracle.latency_ms == 0
    random = RandomAdvisor(TASK).ask(positions)
    np.testing.assert_allclose(random.probabilities, [[1 / 3] * 3, [0, 0.5, 0.5], [0, 1, 0]])
    mixed = MixtureAdvisor(TASK, 0.25).ask(positions)
    np.testing.assert_allclose(mixed.probabilities, 0.75 * oracle.probabilities + 0.25 * random.probabilities)
    worst = WorstAdvisor(TASK).ask(positions)
    np.testing.assert_allclose(worst.probabilities, [[1, 0, 0], [0, 1, 0], [0, 1, 0]])
    worst = WorstAdvisor(ValuedLine()).ask(positions)
    np.testing.assert_allclose(worst.probabilities, [[0, 1, 0], [0, 1, 0], [0, 1, 0]])


@pytest.mark.parametrize("name", ["oracle", "random", "worst", "oracle+random:0.5"])
def test_references_know_what_they_were_asked_and_miss_what_has_no_action(name: str) -> None:
    advisor = make_advisor(name, TASK)
    assert advisor is not None and np.isnan(advisor.table.look_up(at(1))).all()
    batch = advisor.ask(at(1, 4))
    assert batch.source.tolist() == [Source.SCRIPT, Source.MISSED]
    np.testing.assert_array_equal(advisor.table.look_up(at(4, 1)), batch.probabilities[::-1])
    assert advisor.ask(at(1)).source.tolist() == [Source.SCRIPT]


def test_names_lead_to_advisors(tmp_path: Path) -> None:
    assert make_advisor("none", TASK) is None
    assert isinstance(make_advisor("worst", TASK), WorstAdvisor)
    assert isinstance(make_advisor(TutorConfig(name="oracle", backend="reference"), TASK), OracleAdvisor)
    tutor = make_advisor("smollm2", TASK, deadline_s=2.5)
    assert isinstance(tutor, LLMAdvisor) and tutor.client.settings.deadline_s == 2.5
    mine = tmp_path / "mine.yaml"
    mine.write_text("model: some/model\n")
    advisor = make_advisor(str(mine), TASK)
    assert isinstance(advisor, LLMAdvisor) and advisor.client.backend.app_name == "tutor-mine"
    assert check_tutor("oracle") is check_tutor("none") is check_tutor("oracle+random:0") is None
    config = check_tutor(str(mine))
    assert config is not None and config.name == "mine"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smolm2", r"Did you mean 'smollm2'.*oracle\+random:0\.25"),
        ("oracle+random:1.5", r"'1\.5' must be a number in \[0, 1\]"),
        ("oracle+random:", "must be a number"),
        ("oracle+random:nan", "must be a number"),
        ("absent.yaml", "does not exist"),
    ],
)
def test_names_that_are_none_are_refused_with_the_remedy(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_advisor(name, TASK)
    with pytest.raises(UserError, match=message):
        check_tutor(name)


def test_a_task_without_an_oracle_is_told_at_once() -> None:
    class Blind(Line):
        oracle = Task.oracle

    for name in ("oracle", "worst", "oracle+random:0.5"):
        with pytest.raises(UserError, match="no oracle"):
            make_advisor(name, Blind())
    assert make_advisor("random", Blind()) is not None


@given(st.lists(st.integers(0, 30), max_size=120), st.integers(1, 12))
def test_the_table_holds_the_latest_and_drops_the_oldest(numbers: list[int], capacity: int) -> None:
    table = DistributionTable(2, capacity)
    order: list[int] = []
    for number in numbers:
        if number not in order:
            order.append(number)
            order = order[-capacity:]
        table.put(row_of(number), np.array([[number, -number]], dtype=float))
    assert len(table) == len(order)
    for number in range(31):
        row = table.look_up(row_of(number))[0]
        expected = [number, -number] if number in order else [np.nan, np.nan]
        np.testing.assert_array_equal(row, expected)


def row_of(number: int) -> np.ndarray:
    return np.array([[number, 1.0, -1.0]], dtype=np.float32)


def test_the_table_grows_beyond_its_first_array_and_hands_out_copies() -> None:
    table = DistributionTable(2)
    for number in range(3000):
        table.put(row_of(number), np.array([[number, 0.0]]))
    rows = table.look_up(np.concatenate([row_of(number) for number in (2999, 0, 7777)]))
    np.testing.assert_array_equal(rows[:, 0], [2999, 0, np.nan])
    rows[:] = -1
    assert table.look_up(row_of(2999))[0, 0] == 2999


def test_a_restored_table_drops_what_the_first_would_have_dropped() -> None:
    first, second = DistributionTable(1, 5), DistributionTable(1, 5)
    for number in range(8):
        first.put(row_of(number), np.full((1, 1), number))
    second.set_state(first.get_state())
    for table in (first, second):
        table.put(row_of(8), np.full((1, 1), 8))
        assert [number for number in range(9) if not np.isnan(table.look_up(row_of(number))[0, 0])] == [4, 5, 6, 7, 8]
    np.testing.assert_equal(first.get_state(), second.get_state())


def test_observations_are_told_apart_by_their_bits_and_not_by_their_layout() -> None:
    rows = np.array([[0.0, 1.0], [-0.0, 1.0], [np.nan, 1.0], [0.0, -1.0]], dtype=np.float32)
    table = DistributionTable(1)
    table.put(rows, np.arange(4.0)[:, None])
    for layout in (rows.astype(np.float64), np.asfortranarray(rows), np.repeat(rows, 2, axis=1)[:, ::2]):
        assert table.look_up(layout)[:, 0].tolist() == [0, 1, 2, 3]
    assert np.isnan(table.look_up(np.zeros((1, 3), dtype=np.float32))).all()
    with pytest.raises(ValueError, match="3 numbers"):
        table.put(np.zeros((1, 3)), np.zeros((1, 1)))
    with pytest.raises(ValueError, match="capacity"):
        DistributionTable(2, 0)


def test_how_long_a_student_waits_is_its_configurations():
    assert AdviceConfig().patience_s == 30 and AdviceConfig(deadline_s=90).patience_s == 90
    waiting = make_advisor("smollm2", TASK, deadline_s=AdviceConfig(wait=True).patience_s)
    assert isinstance(waiting, LLMAdvisor) and waiting.client.settings.waits
