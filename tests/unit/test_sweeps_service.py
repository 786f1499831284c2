"""Who brings tutors up for a sweep: nobody, where they are reached at an address."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from rich.console import Console

from rllib_plugins.tasks import load_task
from tune_sweeps.cluster.session import RayCluster
from tune_sweeps.cluster.tutors import deployed, tutors_up
from tune_sweeps.console.signals import interruptible
from tune_sweeps.definition.config import SweepConfig
from tune_sweeps.definition.resolve import resolve
from tune_sweeps.run import audition
from tutor_service import serving
from tutor_service.client import URL_VARIABLE
from tutor_service.config import TutorConfig
from tutor_service.schema import AdviceRequest
from tutor_service.serving import ask
from tutor_service.serving.leases import Grant, LeaseBook, tutor_identity
from tutor_service.tutor_files import load_tutor

CLUSTER = RayCluster(local=False, cpus=32, gpus=0, nodes=1)


class BookLease:
    """The lease of a command, in a book that the test has its hand on."""

    book: LeaseBook
    lost: Callable[[TutorConfig], None]

    def __init__(self, holder: str) -> None:
        self.held: list[str] = []

    def acquire(self, tutor: TutorConfig, lost: Callable[[TutorConfig], None]) -> Grant:
        self.held.append(tutor.name)
        BookLease.lost = staticmethod(lost)
        return self.book.acquire(tutor.name, tutor_identity(tutor), "mine", 0.0)

    def take_over(self, tutor: str) -> bool:
        return self.book.take_over(tutor, "mine")

    def release(self) -> None:
        for tutor in self.held:
            self.book.release(tutor, "mine")


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> LeaseBook:
    monkeypatch.setattr(BookLease, "book", LeaseBook(), raising=False)
    monkeypatch.setattr(serving, "Lease", BookLease)
    return BookLease.book


@pytest.fixture
def deployments(monkeypatch: pytest.MonkeyPatch, book: LeaseBook) -> list[str]:
    """Names of the tutors that anybody tries to deploy."""
    found: list[str] = []
    monkeypatch.setattr(serving, "status", list)
    monkeypatch.setattr(serving, "start", lambda tutors, progress: found.extend(tutor.name for tutor in tutors))
    monkeypatch.setattr(serving, "wait_until_ready", lambda names, progress, absent=None: None)
    monkeypatch.setattr(serving, "lease_holders", book.holders)
    return found


def test_tutors_of_a_remote_service_are_left_to_it(deployments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster without a GPU runs a sweep whose tutors have theirs elsewhere: deploy/kuberay/rayjob.yaml."""
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    llama = load_tutor("llama")
    with deployed([llama], CLUSTER, print):
        assert deployments == ["llama"]
    monkeypatch.setenv(URL_VARIABLE, "http://tutors:8000")
    with deployed([llama], CLUSTER, print), tutors_up([llama], print):
        assert deployments == ["llama"]


def test_a_command_waits_for_another_that_prepares_the_tutor_and_takes_over_where_that_one_ends(
    deployments: list[str], book: LeaseBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    llama = load_tutor("llama")
    book.acquire("llama", tutor_identity(llama), "another", 0.0)

    def wait(names: Sequence[str], progress: object, absent: Callable[[str], None] | None = None) -> None:
        for name in names:
            assert absent is not None
            absent(name)
            assert deployments == [], "the other one prepares it still"
            book.release(name, "another")
            absent(name)

    monkeypatch.setattr(serving, "wait_until_ready", wait)
    with deployed([llama], CLUSTER, print):
        assert deployments == ["llama"]
    assert book.holders() == {}


def test_a_tutor_whose_lease_ended_is_deployed_again_unless_another_one_has_its_name(
    deployments: list[str], book: LeaseBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    llama, said = load_tutor("llama"), list[str]()
    with deployed([llama], CLUSTER, said.append):
        book.release("llama", "mine")
        BookLease.lost(llama)
        assert deployments == ["llama", "llama"] and "deployed again" in said[-1]
        book.release("llama", "mine")
        book.acquire("llama", "another model", "another", 0.0)
        BookLease.lost(llama)
        assert deployments == ["llama", "llama"] and "is lost, and students go on without it" in said[-1]


@pytest.mark.parametrize(("status", "is_mine"), [("RUNNING", False), ("DEPLOYING", False), ("DEPLOY_FAILED", True)])
def test_what_an_operator_deploys_is_left_to_them(
    deployments: list[str], book: LeaseBook, monkeypatch: pytest.MonkeyPatch, status: str, is_mine: bool
) -> None:
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    there = serving.TutorStatus("llama", status, "", 0, None, {}, None, None, (), "", {})
    monkeypatch.setattr(serving, "status", lambda: [there])
    with deployed([load_tutor("llama")], CLUSTER, print):
        assert bool(book.holders()) is is_mine and bool(deployments) is is_mine


def test_what_runs_elsewhere_takes_no_cpus_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    resolved = resolve(SweepConfig(name="s", algorithms=["ppo"], tutors=["smollm2"], tasks=["blackjack"]))
    assert resolved.tutor_cpus == 1
    monkeypatch.setenv(URL_VARIABLE, "http://tutors:8000")
    assert resolved.tutor_cpus == 0
    assert list(resolved.tutors) == ["smollm2"]  # MLflow names them all the same


def test_an_audition_holds_the_tutor_whose_notes_it_asks_for_and_ends_by_ctrl_c(
    deployments: list[str], book: LeaseBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask_tutor(writer: TutorConfig, request: AdviceRequest, progress: object) -> SimpleNamespace:
        assert deployments == ["llama"] and book.holders() == {"llama": ["mine"]}
        assert book.acquire("llama", tutor_identity(writer), "another", 0.0).conflict == ""
        book.release("llama", "another")
        return SimpleNamespace(briefing="Stick.")

    monkeypatch.delenv(URL_VARIABLE, raising=False)
    monkeypatch.setattr(audition, "ray_cluster", lambda address, cpus: nullcontext(CLUSTER))
    monkeypatch.setattr(audition, "ask_tutor", ask_tutor)
    wanted, screen = audition.Wanted({"briefing": ("self",)}), Console(file=io.StringIO())
    asking = audition.askings(load_tutor("llama"), load_task("blackjack"), wanted, None, screen)
    with interruptible(), asking as asks:
        (asked,) = asks.values()
        assert asked.ask([AdviceRequest(asked.rules, "State.", ("stick", "hit"))]) == [None]
        assert deployments == ["llama", "llama"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    assert book.holders() == {}


@pytest.mark.parametrize(("status", "others"), [("DEPLOYING", True), ("RUNNING", True), ("DELETING", False)])
def test_a_question_leaves_a_tutor_alone_that_somebody_else_deploys(
    status: str, others: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    done: list[str] = []
    there = serving.TutorStatus("llama", status, "", 0, None, {}, None, None, (), "", {})
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ask, "status", lambda: [there])
    for name in ("deploy", "delete", "wait_until_ready"):
        monkeypatch.setattr(ask, name, lambda *_, name=name, **__: done.append(name))
    with ask._running(load_tutor("llama"), None):
        assert done == (["wait_until_ready"] if others else ["deploy"])
    assert done[1:] == ([] if others else ["delete"])
