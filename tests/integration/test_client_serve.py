"""The client against a real Serve application: handles, dead replicas, deadlines, applications that come and go."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray import serve

from tutor_service.client import ClientSettings, TutorClient
from tutor_service.client.breaker import BreakerState
from tutor_service.client.serve_handle import ServeHandleBackend
from tutor_service.schema import Advice, AdviceError, AdviceRequest

SETTLE_S = 60.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", logging_level="ERROR")
    serve.start(proxy_location="Disabled")
    yield
    serve.shutdown()
    ray.shutdown()


@serve.deployment(
    num_replicas=1,
    ray_actor_options={"num_cpus": 0.1},
    health_check_period_s=1,
    graceful_shutdown_wait_loop_s=0.2,  # by default a replica that is to go stays 2 s even when it has nothing to do
)
class FakeGateway:
    """Answers at once, unless the first state says what else to do; counts the states it evaluated in a file."""

    def __init__(self, log: str) -> None:
        self._log = Path(log)

    async def num_gateways(self) -> int:
        return 1

    async def advise(self, requests: list[AdviceRequest], within_s: float) -> list[Advice | AdviceError]:
        import asyncio

        word, _, argument = requests[0].state.partition(" ")
        if word == "die" and not Path(argument).exists():
            Path(argument).touch()
            await asyncio.sleep(1)  # until Serve has told the caller that the replica took the call
            os._exit(1)
        if word == "sleep":
            await asyncio.sleep(float(argument))
        with self._log.open("a") as log:
            log.writelines(f"{request.state}\n" for request in requests)
        return [
            AdviceError("state: is bad") if request.state == "bad" else Advice((0.25, 0.75), 0.5, "model", 1.0)
            for request in requests
        ]


@pytest.fixture(scope="module")
def log(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gateway") / "evaluated"
    serve.run(FakeGateway.bind(str(path)), name="tutor-fake", route_prefix=None)
    return path


def ask(*states: str) -> list[AdviceRequest]:
    return [AdviceRequest("Rules.", state, ("a", "b")) for state in states]


def client_of(**settings) -> TutorClient:
    return TutorClient(ServeHandleBackend("tutor-fake"), ClientSettings(**{"deadline_s": SETTLE_S, **settings}))


def test_a_list_goes_in_one_call_and_each_state_once(log: Path) -> None:
    client = client_of()
    before = log.read_text() if log.exists() else ""
    answers = client.advise(ask("x", "bad", "y", "x"))
    assert [item and item.source for item in answers] == ["model", None, "model", "store"]
    assert [item and item.source for item in client.advise(ask("x", "y"))] == ["store", "store"]
    assert log.read_text().removeprefix(before).split() == ["x", "bad", "y"]


def test_a_replica_that_dies_mid_request_costs_time_and_no_answer(log: Path, tmp_path: Path) -> None:
    client = client_of(retries=20, breaker_failures=100)
    assert client.advise(ask(f"die {tmp_path / 'died'}")) == [Advice((0.25, 0.75), 0.5, "model", 1.0)]
    assert (tmp_path / "died").exists() and client.stats.failed_calls > 0


def test_an_answer_that_takes_too_long_is_none_in_time(log: Path) -> None:
    client = client_of(deadline_s=1.0)
    client.advise(ask("warm"))
    started = time.monotonic()
    assert client.advise(ask("sleep 45")) == [None]
    assert time.monotonic() - started < 30


def test_a_client_travels_into_tasks_and_actors(log: Path) -> None:
    client = client_of()
    client.advise(ask("x"))

    @ray.remote(num_cpus=0.1)
    def student(client: TutorClient) -> list[str | None]:
        return [item and item.source for item in client.advise(ask("x", "z"))]

    assert ray.get(student.remote(client), timeout=SETTLE_S) == ["model", "model"]


def test_an_application_that_is_away_is_left_alone_and_found_when_it_comes(cluster: None, tmp_path: Path) -> None:
    client = TutorClient(
        ServeHandleBackend("tutor-later"),
        ClientSettings(deadline_s=SETTLE_S, retries=0, breaker_failures=1, breaker_open_s=0.2),
    )
    assert client.advise(ask("x")) == [None]
    assert client.breaker_state is not BreakerState.CLOSED and "tutor-later" in client.stats.last_error
    serve.run(FakeGateway.bind(str(tmp_path / "log")), name="tutor-later", route_prefix=None)
    try:
        limit = time.monotonic() + SETTLE_S
        while client.advise(ask("x")) == [None] and time.monotonic() < limit:
            time.sleep(0.2)
        assert client.breaker_state is BreakerState.CLOSED
    finally:
        serve.delete("tutor-later")
