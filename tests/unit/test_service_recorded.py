"""Recorded tutors: files of answers are read with care, answer what they were asked, and fit one task only."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rllib_plugins.metrics import Source
from rllib_plugins.tasks import load_task
from rllib_plugins.tutors import check_tutor, make_advisor
from tune_sweeps.cluster.bundle import write_bundle
from tune_sweeps.definition.config import SweepConfig
from tune_sweeps.definition.resolve import resolve
from tune_sweeps.tracking.provenance import tutor_tags
from tutor_service import paths
from tutor_service.client import connect
from tutor_service.client.recorded import RecordedBackend
from tutor_service.config import TutorConfig
from tutor_service.errors import UserError
from tutor_service.paths import HOME_VARIABLE
from tutor_service.recorded import write_answers
from tutor_service.schema import AdviceError, AdviceRequest
from tutor_service.store import AdviceStore
from tutor_service.store.export import write_export
from tutor_service.store.reading import merged, read_export
from tutor_service.tutor_files import load_tutor

ACTIONS = ("left", "straight", "right")


def row(state: str = "s", probabilities: tuple[float, ...] = (0.5, 0.3, 0.2), **columns: Any) -> dict[str, Any]:
    return {
        "identity": "model",
        "rules": load_task("snake").rules,
        "state": state,
        "actions": list(ACTIONS),
        "probabilities": list(probabilities),
        "legal_mass": 0.9,
        "invalid": 0,
        "tokens": 7,
        **columns,
    }


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in rows))
    return path


def snake_states() -> tuple[np.ndarray, list[str]]:
    task = load_task("snake")
    envs = task.make_vec(8, 0)
    states, _ = envs.reset(seed=0)
    states = np.unique(states, axis=0)
    return states, [task.describe(task.unflatten(state)) for state in states]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("no json", "row 1 is no JSON"),
        (json.dumps([1]), "row 1 is no answer"),
        (json.dumps(row(state="")), "state is empty"),
        (json.dumps(row(thought=17)), "thought = 17 must be text"),
        (json.dumps(row(actions=["left"])), "at least two labels"),
        (json.dumps(row(actions=["a", "a", "b"])), "not distinct"),
        (json.dumps(row(probabilities=(0.5, 0.5))), "2 probabilities for 3 actions"),
        (json.dumps(row(probabilities=(0.5, 0.5, 0.5))), "no distribution"),
        (json.dumps(row(probabilities=(float("nan"), 0.5, 0.5))), "no distribution"),
        (json.dumps(row(key="ff")), "key has 1 bytes"),
        (json.dumps(row(key="xx")), "row 1 is no answer"),
        ("", "holds none"),
        (json.dumps(row(legal_mass=0)), "holds none"),
    ],
)
def test_a_row_that_is_no_answer_is_named(tmp_path: Path, bad: str, message: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(bad)
    with pytest.raises(UserError, match=message):
        read_export(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must end in one of: \.jsonl, \.parquet"):
        read_export(tmp_path / "answers.csv")
    with pytest.raises(UserError, match="cannot be read"):
        read_export(tmp_path / "missing.jsonl")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="no Parquet"):
        read_export(tmp_path / "cut.parquet")


@given(
    weights=st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3).filter(lambda given: sum(given) > 0.01),
    mass=st.floats(1e-6, 1.0),
    state=st.text(min_size=1),
    thought=st.text(),
)
def test_what_is_exported_is_read_back(tmp_path_factory, weights, mass, state, thought) -> None:
    folder = tmp_path_factory.mktemp("export")
    probabilities = tuple(weight / sum(weights) for weight in weights)
    path = write(folder / "one.jsonl", row(state, probabilities, legal_mass=mass, thought=thought))
    (answer,) = read_export(path)
    assert answer.advice.thought == thought
    for suffix in ("jsonl", "parquet"):
        write_export([answer.entry], folder / f"two.{suffix}")
        (again,) = read_export(folder / f"two.{suffix}")
        assert again.advice == answer.advice
        assert again.key == answer.entry.key
    assert again.context.actions == ACTIONS


def test_a_store_takes_an_export_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", row("one", key="01" * 32), row("two"))
    entries = [answer.entry for answer in read_export(path)]
    with AdviceStore(tmp_path / "store") as store:
        assert store.put_many(entries) == 2
        assert store.put_many(entries) == 0
        assert store.get_many([b"\x01" * 32])[0].probabilities == (0.5, 0.3, 0.2)


def test_of_two_answers_the_first_file_counts(tmp_path: Path) -> None:
    first = write(tmp_path / "1.jsonl", row("one"), row("two"))
    second = write(tmp_path / "2.jsonl", row("two", (0.1, 0.1, 0.8)), row("three"))
    both = merged([answer.entry for answer in read_export(path)] for path in (first, second))
    assert [entry.context.state for entry in both.entries] == ["one", "two", "three"]
    assert both.entries[1].advice.probabilities == (0.5, 0.3, 0.2) and both.conflicts == 1


def test_what_was_never_asked_is_a_miss_and_counted(tmp_path: Path) -> None:
    states, words = snake_states()
    assert len(words) > 1
    tutor = load_tutor(str(write(tmp_path / "Ans wers.jsonl", row(words[0]))))
    assert tutor.name == "ans-wers" and not tutor.is_served
    advisor = make_advisor(tutor, load_task("snake"))
    batch = advisor.ask(states)
    assert batch.source[0] == Source.STORE and np.allclose(batch.opinions[0], (0.5, 0.3, 0.2))
    assert (batch.source[1:] == Source.MISSED).all() and np.isnan(batch.probabilities[1:]).all()


def test_a_client_of_a_recorded_tutor_travels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", row("here", thought="Left is a wall."))
    client = pickle.loads(pickle.dumps(connect(load_tutor(str(path)))))
    rules = load_task("snake").rules
    known, unknown, other_order = client.advise(
        [
            AdviceRequest(rules, "here", ACTIONS),
            AdviceRequest(rules, "there", ACTIONS),
            AdviceRequest(rules, "here", ACTIONS[::-1]),
        ]
    )
    assert known.probabilities == (0.5, 0.3, 0.2) and known.source == "store" and not known.thought
    assert unknown is None and other_order is None
    assert "never asked" in client.stats.last_error


def test_other_labels_are_refused(tmp_path: Path) -> None:
    tutor = load_tutor(str(write(tmp_path / "a.jsonl", row("here"))))
    with pytest.raises(UserError, match=r"left, straight, right.*'blackjack' has the actions stick, hit"):
        make_advisor(tutor, load_task("blackjack"))


def test_another_task_of_the_same_labels_is_refused(tmp_path: Path) -> None:
    tutor = load_tutor(str(write(tmp_path / "a.jsonl", row("a lake", rules="Walk over a lake."))))
    with pytest.raises(UserError, match=r"never asked a state of task 'snake'.*'a lake'"):
        make_advisor(tutor, load_task("snake"))


def test_notes_behind_the_rules_are_the_same_task(tmp_path: Path) -> None:
    rules = load_task("snake").rules + "\n\nStrategy notes: go on."
    path = write(tmp_path / "a.jsonl", row("never met", rules=rules))
    (answer,) = RecordedBackend(path).advise([AdviceRequest(load_task("snake").rules, "never met", ACTIONS)], 1.0)
    assert not isinstance(answer, AdviceError)
    make_advisor(load_tutor(str(path)), load_task("snake"))


def test_answers_under_other_rules_are_used_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    states, words = snake_states()
    path = write(tmp_path / "a.jsonl", *(row(word, rules="A snake of 9 cells.") for word in words))
    with caplog.at_level(logging.WARNING):
        advisor = make_advisor(load_tutor(str(path)), load_task("snake"))
    assert "asked under other rules" in caplog.text and "A snake of 9 cells." in caplog.text
    assert np.isfinite(advisor.ask(states).probabilities).all()


def test_a_file_of_several_ways_wants_one_chosen(tmp_path: Path) -> None:
    states, words = snake_states()
    write(tmp_path / "a.jsonl", row(words[0]), row(words[0], (0.1, 0.1, 0.8), identity="model, calmer"))
    with pytest.raises(UserError, match=r"several ways.*identity: TEXT"):
        make_advisor(load_tutor(str(tmp_path / "a.jsonl")), load_task("snake"))
    (tmp_path / "t.yaml").write_text(yaml.safe_dump({"backend": "recorded", "file": "a.jsonl", "identity": "calmer"}))
    advisor = make_advisor(str(tmp_path / "t.yaml"), load_task("snake"))
    assert np.allclose(advisor.ask(states[:1]).opinions[0], (0.1, 0.1, 0.8))
    with pytest.raises(UserError, match="no answer has 'wilder'"):
        RecordedBackend(tmp_path / "a.jsonl", "wilder").advise([], 1.0)


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", row("one"))
    backend = RecordedBackend(path)
    ask = [AdviceRequest(load_task("snake").rules, "two", ACTIONS)]
    assert isinstance(backend.advise(ask, 1.0)[0], AdviceError)
    write(path, row("one"), row("two"))
    assert not isinstance(backend.advise(ask, 1.0)[0], AdviceError)


def test_file_and_backend_need_one_another(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("backend: recorded")
    with pytest.raises(UserError, match="'recorded' and field 'file' need one another"):
        load_tutor(str(tmp_path / "t.yaml"))
    with pytest.raises(UserError, match="does not exist"):
        load_tutor(str(tmp_path / "no.jsonl"))
    assert TutorConfig(name="x", backend="recorded", file=tmp_path / "a.jsonl").file is not None


def test_a_sweep_refuses_answers_to_another_task_before_it_starts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", row("here"))
    config = SweepConfig(name="s", algorithms=["ppo"], tutors=[str(path)], tasks=["snake", "blackjack"], seeds=1)
    with pytest.raises(UserError, match="'blackjack' has the actions"):
        resolve(config)
    resolved = resolve(config.model_copy(update={"tasks": ["snake"]}))
    assert resolved.tutor_cpus == 0 and set(resolved.tutors) == {"a"}
    tags = tutor_tags(resolved.tutors["a"])
    assert tags["tutor_model"] == "recorded: a.jsonl" and len(tags["tutor_file_sha256"]) == 64


def test_a_job_takes_the_answers_along(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "job").mkdir()
    path = write(tmp_path / "data" / "a.jsonl", row("here"))
    (tmp_path / "t.yaml").write_text(yaml.safe_dump({"backend": "recorded", "file": "data/a.jsonl"}))
    tutors = [str(tmp_path / "t.yaml"), str(path)]
    write_bundle(tmp_path / "job", SweepConfig(name="s", algorithms=["ppo"], tutors=tutors, tasks=["snake"], seeds=1))
    folder = tmp_path / "job" / "tutors"
    moved = load_tutor(str(folder / "t.yaml"))
    assert moved.file is not None
    assert folder in moved.file.parents and moved.file.read_bytes() == path.read_bytes()
    assert check_tutor(str(folder / "a.jsonl")).file == (folder / "a.jsonl").resolve()


def test_the_advice_of_a_sweep_is_written_down_as_a_recorded_tutor(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    task = load_task("snake")
    _, words = snake_states()
    hinted, noted = task.rules + "\n\nHint: go.", task.rules + "\n\nStrategy notes: go."
    rows = [row(words[0]), row(words[0], rules=hinted), row(words[0], rules=noted), row("b", rules="Another game.")]
    source = write(tmp_path / "a.jsonl", *rows)
    with AdviceStore(paths.advice_dir() / "live") as store:
        store.put_many(answer.entry for answer in read_export(source))
    path = tmp_path / "advice" / "live.jsonl"
    for tutor, rules, expected in (
        (TutorConfig(name="live"), task.rules, [task.rules]),
        (TutorConfig(name="live", hint=True), hinted, [hinted]),
        (load_tutor(str(source)), task.rules, [task.rules, hinted, noted]),
    ):
        assert write_answers(tutor, [rules], path) == len(expected)
        assert sorted(answer.context.rules for answer in read_export(path)) == sorted(expected)
    assert write_answers(TutorConfig(name="away"), [task.rules], tmp_path / "none.jsonl") == 0
    assert not (tmp_path / "none.jsonl").exists()
