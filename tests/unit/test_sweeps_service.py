"""Who brings tutors up for a sweep: nobody, where they are reached at an address."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tune_sweeps.cluster.session import RayCluster
from tune_sweeps.cluster.tutors import deployed, tutors_up
from tune_sweeps.definition.config import SweepConfig
from tune_sweeps.definition.resolve import resolve
from tutor_service import serving
from tutor_service.client import URL_VARIABLE
from tutor_service.serving.leases import Grant
from tutor_service.tutor_files import load_tutor


@pytest.fixture
def deployments(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tutors that anybody tries to deploy."""
    found: list[str] = []
    monkeypatch.setattr(serving, "status", list)
    monkeypatch.setattr(serving, "delete", lambda names: None)
    monkeypatch.setattr(serving, "deploy", lambda tutors, progress: found.extend(tutor.name for tutor in tutors))
    monkeypatch.setattr(serving, "wait_until_ready", lambda names, progress: None)
    monkeypatch.setattr(serving, "lease_holders", dict)
    lease = SimpleNamespace(acquire=lambda tutor: Grant(deploy=True), release=lambda: None)
    monkeypatch.setattr(serving, "Lease", lambda holder: lease)
    return found


def test_tutors_of_a_remote_service_are_left_to_it(deployments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster without a GPU runs a sweep whose tutors have theirs elsewhere: deploy/kuberay/rayjob.yaml."""
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    cluster, llama = RayCluster(local=False, cpus=32, gpus=0, nodes=1), load_tutor("llama")
    with deployed([llama], cluster, print):
        assert deployments == ["llama"]
    monkeypatch.setenv(URL_VARIABLE, "http://tutors:8000")
    with deployed([llama], cluster, print), tutors_up([llama], print):
        assert deployments == ["llama"]


def test_what_runs_elsewhere_takes_no_cpus_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    resolved = resolve(SweepConfig(name="s", algorithms=["ppo"], tutors=["smollm2"], tasks=["blackjack"]))
    assert resolved.tutor_cpus == 1
    monkeypatch.setenv(URL_VARIABLE, "http://tutors:8000")
    assert resolved.tutor_cpus == 0
    assert list(resolved.tutors) == ["smollm2"]  # MLflow names them all the same
