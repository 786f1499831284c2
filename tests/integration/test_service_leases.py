"""Commands that share a tutor on one cluster, on real Serve with a fake endpoint in place of a model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.endpoint_fake import Endpoint, running_endpoint
from tune_sweeps.cluster.session import RayCluster
from tune_sweeps.cluster.tutors import deployed
from tutor_service import serving
from tutor_service.client import connect
from tutor_service.config import TutorConfig
from tutor_service.errors import UserError
from tutor_service.paths import HOME_VARIABLE
from tutor_service.schema import AdviceRequest
from tutor_service.serving import leases
from tutor_service.serving.leases import lease_keeper, tutor_identity

SHARED = RayCluster(local=False, cpus=1, gpus=0, nodes=1)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint() as endpoint:
        yield endpoint


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_VARIABLE, str(tmp_path_factory.mktemp("home")))
        ray.init(
            address="local", include_dashboard=False, num_cpus=1, log_to_driver=False, _node_ip_address="127.0.0.1"
        )
        yield
        ray.shutdown()


def tutor(endpoint: Endpoint, model: str = "m") -> TutorConfig:
    return TutorConfig(name="shared", backend="openai", model=model, base_url=endpoint.url, scaling={"num_cpus": 0})


def names() -> list[str]:
    return [item.name for item in serving.status() if item.status == "RUNNING"]


def test_the_first_to_end_takes_nothing_from_the_other(endpoint: Endpoint) -> None:
    mine = tutor(endpoint)
    first, second = deployed([mine], SHARED, print), deployed([mine], SHARED, print)
    first.__enter__()
    second.__enter__()
    assert len(serving.lease_holders()["shared"]) == 2
    first.__exit__(None, None, None)
    assert names() == ["shared"]
    (advice,) = connect(mine).advise([AdviceRequest("Rules.", "State.", ("left", "right"))])
    assert advice is not None
    (holder,) = serving.lease_holders()["shared"]
    lease_keeper().release.remote("shared", holder)
    assert "shared" in serving.lease_holders(), "while it is taken down, it is not an operator's"
    second.__exit__(None, None, None)
    assert names() == []
    assert serving.lease_holders() == {}


def test_another_model_under_the_name_is_refused_and_its_holder_told(endpoint: Endpoint) -> None:
    other = deployed([tutor(endpoint, model="other")], SHARED, print)
    with deployed([tutor(endpoint)], SHARED, print):
        with pytest.raises(UserError, match=r"another tutor named 'shared' runs .* held by .*process"):
            other.__enter__()
        assert names() == ["shared"]


def test_a_killed_driver_leaves_no_tutor_behind(endpoint: Endpoint) -> None:
    import ray

    mine = tutor(endpoint)
    serving.deploy([mine])
    ray.get(lease_keeper().acquire.remote("shared", tutor_identity(mine), "killed", lease_s=1.0))
    deadline = time.monotonic() + 60
    while names() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert names() == []


def test_a_driver_that_stood_still_has_its_tutor_again(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_S", 0.5)
    said: list[str] = []
    with deployed([tutor(endpoint)], SHARED, said.append):
        (holder,) = serving.lease_holders()["shared"]
        lease_keeper().release.remote("shared", holder)  # as it does when it has not heard of the driver for long
        deadline = time.monotonic() + 120
        while not (any("deployed again" in line for line in said) and names()) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert serving.lease_holders()["shared"] == [holder]
        (advice,) = connect(tutor(endpoint)).advise([AdviceRequest("Rules.", "State.", ("left", "right"))])
        assert advice is not None
    assert names() == [] and serving.lease_holders() == {}


def test_what_an_operator_deployed_stays(endpoint: Endpoint, tmp_path: Path) -> None:
    serving.deploy([tutor(endpoint)])
    try:
        with deployed([tutor(endpoint)], SHARED, print):
            assert serving.lease_holders() == {}
        assert names() == ["shared"]
    finally:
        serving.delete(["shared"])
