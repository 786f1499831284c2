"""What a tutor reaches when it plays itself, and how students are told."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import ray

from rllib_plugins.advising.advisor import AdviceBatch, Advisor
from rllib_plugins.advising.config import AdviceConfig
from rllib_plugins.audition.own_play import OwnPlay, own_play
from rllib_plugins.config import StudentConfig
from rllib_plugins.metrics import Source
from rllib_plugins.tasks import load_task
from rllib_plugins.tutors import make_advisor
from tune_sweeps.definition.grid import Cell, Trial
from tune_sweeps.run.own_play import Playing, as_record, play_tutors, read_played, with_level
from tutor_service.errors import UserError

PLAYING = Playing(episodes=32, num_cpus=0.5)
PLAYED = OwnPlay(return_mean=3.9, return_se=0.4, num_env_steps=1_000, missed_share=0.0)


class Says(Advisor):
    """Says one row to every state, or nothing to some."""

    def __init__(self, task, row, missed_share=0.0) -> None:
        super().__init__(task, Source.MODEL)
        self._row, self._missed_share = np.array(row), missed_share

    def evaluate(self, observations):
        rows = np.tile(self._row, (len(observations), 1))
        source = np.full(len(rows), int(Source.MODEL), dtype=np.int8)
        num_missed = round(self._missed_share * len(rows))
        rows[:num_missed], source[:num_missed] = np.nan, int(Source.MISSED)
        return AdviceBatch(rows, source)


def test_the_oracle_plays_as_well_as_the_task_can_be_played():
    task = load_task("blackjack")
    played = own_play(task, make_advisor("oracle", task), episodes=4, seed=0)
    assert played.return_mean == pytest.approx(-0.0466, abs=1e-3)
    assert (played.return_se, played.num_env_steps, played.missed_share) == (0.0, 0, 0.0)


def test_the_best_guess_is_played_and_episodes_are_counted():
    task = load_task("snake")
    straight = own_play(task, Says(task, [0.4, 0.3, 0.3]), episodes=20, seed=0)
    always = own_play(task, Says(task, [1.0, 0.0, 0.0]), episodes=20, seed=0)
    assert straight == always
    assert straight.num_env_steps > 20 and straight.return_se >= 0.0


def test_a_tutor_that_prefers_nothing_plays_at_random():
    task = load_task("blackjack")
    played = own_play(task, Says(task, [0.5, 0.5]), episodes=4, seed=0)
    assert played.return_mean == pytest.approx(task.exact_return(task.uniform_policy)[0])


@pytest.mark.parametrize(("missed_share", "is_known"), [(0.05, True), (0.5, False)])
def test_what_random_play_answered_for_the_tutor_is_not_its_level(missed_share, is_known):
    task = load_task("blackjack")
    played = own_play(task, Says(task, [1.0, 0.0], missed_share), episodes=4, seed=0)
    assert (played.tutor_return is not None) == is_known


def test_a_tutor_that_takes_too_long_is_stopped_with_the_remedy():
    task = load_task("snake")
    with pytest.raises(UserError, match=r"longer than 0 s.*evaluation\.tutor_episodes"):
        own_play(task, Says(task, [1.0, 0.0, 0.0]), episodes=4, seed=0, most_seconds=0.0)


def trial(**advice) -> Trial:
    student = StudentConfig(algorithm="ppo", task="snake", tutor="oracle", seed=0, advice=AdviceConfig(**advice))
    return Trial(Cell("ppo", "oracle", "snake", None), 0, student)


@pytest.mark.parametrize(
    ("advice", "told", "follow"),
    [
        ({}, 3.9, True),
        ({"tutor_return": 7.0}, 7.0, None),
        ({"use": "coin"}, None, None),
        ({"use": "clone"}, None, None),
    ],
    ids=["measured", "the user's word", "the coin does not read it", "a clone does not read it"],
)
def test_students_are_told_unless_they_know_or_do_not_ask(advice, told, follow):
    student = with_level(trial(**advice), {"snake": {"oracle": replace(PLAYED, follow=True)}})
    assert (student.advice.tutor_return, student.advice.follow) == (told, follow)


def test_students_are_told_of_a_tutor_that_plays_as_well_as_can_be():
    told = with_level(trial(), {"snake": {"oracle": replace(PLAYED, follow=True, is_best=True)}}).advice
    assert told == AdviceConfig(tutor_return=3.9, follow=True, tutor_is_best=True)


def test_students_of_a_tutor_that_could_not_play_go_by_evidence():
    assert with_level(trial(), {}).advice.tutor_return is None


def test_what_was_played_is_read_back_and_not_played_again(tmp_path):
    kept = tmp_path / "own_play.json"
    kept.write_text(
        '{"snake": {"oracle": {"return_mean": 3.9, "return_se": 0.4, "num_env_steps": 1000, "missed_share": 0.0}}}'
    )
    said: list[str] = []
    played = play_tutors([trial()], set(), kept, PLAYING, said.append)
    assert played == {"snake": {"oracle": PLAYED}} == read_played(kept) and not said
    assert as_record(played)["snake"]["oracle"]["num_env_steps"] == 1_000


@pytest.mark.parametrize("content", ["", "[]", '{"snake": {"oracle": {"of_another_version": 1}}}'])
def test_a_file_of_no_use_keeps_no_sweep_from_going_on(content, tmp_path):
    kept = tmp_path / "own_play.json"
    kept.write_text(content)
    assert read_played(kept) == {}


def test_no_episodes_means_that_nobody_plays(tmp_path):
    assert play_tutors([trial()], set(), tmp_path / "own_play.json", Playing(0, 0.5), print) == {}


def test_a_tutor_whose_students_have_begun_without_its_level_is_not_played_any_more(tmp_path):
    assert play_tutors([trial()], {trial().key}, tmp_path / "own_play.json", PLAYING, print) == {}


def test_a_process_that_dies_costs_a_tutor_its_level_and_not_the_sweep(tmp_path, monkeypatch):
    def get(future):
        raise ray.exceptions.WorkerCrashedError

    monkeypatch.setattr(ray, "get", get)

    def remote(**options):
        asked.append(options)
        return lambda _: SimpleNamespace(remote=lambda *_: None)

    asked = []
    monkeypatch.setattr(ray, "remote", remote)
    said: list[str] = []
    assert play_tutors([trial()], set(), tmp_path / "own_play.json", PLAYING, said.append) == {}
    assert asked == [{"num_cpus": 0.5}]
    assert said[-1].startswith("warning: oracle cannot play snake by itself: The worker died")
