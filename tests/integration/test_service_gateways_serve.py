"""Several gateways of a tutor on real Serve: once over all, one that is killed or hangs, another number, HTTP."""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.endpoint_fake import Endpoint, running_endpoint
from tutor_service import serving
from tutor_service.client import TutorClient, connect
from tutor_service.config import TutorConfig
from tutor_service.local_ray import leave_ray
from tutor_service.paths import HOME_VARIABLE
from tutor_service.schema import Advice, AdviceRequest
from tutor_service.serving.ask import ask
from tutor_service.sharding import deployment_name, gateway_of
from tutor_service.store import AdviceStore

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    import ray

    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_VARIABLE, str(folder))
        ray.init(
            address="local", include_dashboard=False, num_cpus=1, log_to_driver=False, _node_ip_address="127.0.0.1"
        )
        yield folder
        leave_ray()


@pytest.fixture(scope="module")
def port(home: Path) -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(autouse=True)
def nothing_is_left(home: Path) -> Iterator[None]:
    yield
    serving.delete([status.name for status in serving.status()])


def tutor(endpoint: Endpoint, name: str, num_gateways: int, **fields: object) -> TutorConfig:
    scaling = {"num_cpus": 0, "gateways": num_gateways}
    return TutorConfig.model_validate(
        {"name": name, "backend": "openai", "model": name, "base_url": endpoint.url, "scaling": scaling, **fields}
    )


def requests(name: str, count: int = 40) -> list[AdviceRequest]:
    return [AdviceRequest("Rules.", f"State {name} {number}.", ("left", "right")) for number in range(count)]


def evaluations(endpoint: Endpoint, name: str) -> Counter[str]:
    """How often each state of a test was asked of the endpoint."""
    contents = [body["messages"][0]["content"] for body in endpoint.bodies]
    return Counter(line for text in contents for line in text.split("\n") if line.startswith(f"State {name} "))


def sources(answers: list[Advice | None]) -> set[str | None]:
    return {answer and answer.source for answer in answers}


def wait_until(condition: Callable[[], object], limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def gateway_process(config: TutorConfig, number: int) -> int | None:
    """The process of one gateway, by the title that Ray gives it: behind it may stand what the process is at."""
    title = re.compile(rf"ray::ServeReplica:tutor-{config.name}:{deployment_name(number)}(?![\w-])")
    for process in psutil.Process().children(recursive=True):
        try:
            if title.match(" ".join(process.cmdline())):
                return process.pid
        except psutil.Error:
            continue
    return None


def test_eight_callers_and_http_meet_one_evaluation_per_state(endpoint: Endpoint, home: Path, port: int) -> None:
    config = tutor(endpoint, "four", 4)
    serving.deploy([config], http=serving.HttpConfig(port=port))
    asked = requests("four")
    url = f"http://127.0.0.1:{port}"
    clients = [connect(config) for _ in range(4)] + [connect(config, url=url) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        lists = list(pool.map(lambda client: client.advise(asked), clients))
    assert all(None not in answers for answers in lists)
    assert set(evaluations(endpoint, "four").values()) == {1} and len(evaluations(endpoint, "four")) == 40
    assert len({gateway_of(request.state, 4) for request in asked}) == 4

    text = httpx.get(f"{url}/four/metrics").text
    given = [line for line in text.splitlines() if line.startswith("tutor_advice_total{")]
    model = [line for line in given if 'source="model"' in line]
    assert len(model) == 4 and sum(float(line.split()[-1]) for line in model) == 40
    assert sum(float(line.split()[-1]) for line in given) == 8 * 40
    (status,) = serving.status()
    assert status.answered["model"] == 40 and sum(status.answered.values()) == 320 and status.stored == 40
    assert status.spent.startswith("41 requests"), "those of the start among them, whichever gateway heard of it last"
    assert all(ask(config, request).advice.source == "store" for request in asked[:4])


def test_a_gateway_that_is_killed_comes_back_while_the_others_go_on(endpoint: Endpoint, home: Path) -> None:
    config = tutor(endpoint, "killed", 4)
    serving.deploy([config])
    asked = requests("killed")
    assert sources(connect(config).advise(asked)) == {"model"}
    victim = gateway_process(config, 2)
    assert victim is not None
    theirs = [request for request in asked if gateway_of(request.state, 4) == 2]
    others = [request for request in asked if gateway_of(request.state, 4) != 2]
    assert theirs and others
    client = connect(config, deadline_s=2.0)
    client.advise(requests("before", 1))
    os.kill(victim, signal.SIGKILL)
    for request in others:
        started = time.monotonic()
        (answer,) = client.advise([request])
        assert answer is not None and answer.source == "store" and time.monotonic() - started < 2.0
    wait_until(lambda: gateway_process(config, 2) not in (None, victim))
    wait_until(lambda: None not in connect(config, deadline_s=5.0).advise(theirs))
    assert sources(connect(config).advise(asked)) == {"store"}, "what was stored is there"
    assert set(evaluations(endpoint, "killed").values()) == {1}
    assert serving.status()[0].status == "RUNNING"


def test_a_gateway_that_hangs_costs_its_own_questions_and_no_more_than_the_deadline(
    endpoint: Endpoint, home: Path
) -> None:
    config = tutor(endpoint, "hung", 3)
    serving.deploy([config])
    asked = requests("hung")
    assert sources(connect(config).advise(asked)) == {"model"}
    victim = gateway_process(config, 1)
    assert victim is not None
    client = connect(config, deadline_s=3.0)
    client.advise(requests("before", 1))
    os.kill(victim, signal.SIGSTOP)
    try:
        started = time.monotonic()
        answers = client.advise(asked)
        assert 2.0 < time.monotonic() - started < 3.5
        missing = [request.state for request, answer in zip(asked, answers, strict=True) if answer is None]
        assert missing == [request.state for request in asked if gateway_of(request.state, 3) == 1]
        started = time.monotonic()
        client.advise(asked)
        assert time.monotonic() - started < 2.0, "it is left alone"
    finally:
        os.kill(victim, signal.SIGCONT)
    wait_until(lambda: None not in client.advise(asked))
    assert set(evaluations(endpoint, "hung").values()) == {1}


def test_another_number_of_gateways_loses_no_answer_and_asks_nothing_twice(endpoint: Endpoint, home: Path) -> None:
    """Clients that know the old number go on."""
    lasting: list[TutorClient] = []
    asked: list[AdviceRequest] = []
    for round_number, num_gateways in enumerate((1, 4, 1)):
        config = tutor(endpoint, "changed", num_gateways)
        serving.deploy([config])
        lasting.append(connect(config))
        new = requests(f"changed {round_number}")
        assert sources(connect(config).advise(asked)) == ({"store"} if asked else set())
        client = lasting[round_number // 2]
        wait_until(lambda client=client, new=new: None not in client.advise(new))
        asked += new
    assert set(evaluations(endpoint, "changed").values()) == {1}
    assert len(evaluations(endpoint, "changed")) == len(asked) == 120
    with AdviceStore(home / "advice" / "changed", readonly=True) as store:
        assert store.stats().answers == 120


def test_callers_are_answered_while_the_number_changes(endpoint: Endpoint, home: Path) -> None:
    """Each asks new states all the time, beside those that all callers share."""
    one, four = tutor(endpoint, "busy", 1), tutor(endpoint, "busy", 4)
    serving.deploy([one])
    shared = requests("busy shared", 8)
    found: list[list[Advice | None]] = []
    ended = threading.Event()

    def call(caller: int) -> None:
        client = connect(one, deadline_s=60)
        for number in itertools.count():
            if ended.is_set():
                return
            found.append(client.advise([*shared, *requests(f"busy {caller} {number}", 8)]))
            time.sleep(0.05)

    callers = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    try:
        for config in (four, one):
            serving.deploy([config])
            time.sleep(1)
    finally:
        ended.set()
        for caller in callers:
            caller.join(70)
    assert len(found) > len(callers) and not any(None in answers for answers in found)
    counts = evaluations(endpoint, "busy")
    assert len(counts) == 8 + 8 * len(found) and max(counts.values()) == 1


def test_notes_are_written_once_over_all_gateways(endpoint: Endpoint, home: Path) -> None:
    config = tutor(endpoint, "briefed", 4, briefing="self")
    serving.deploy([config])
    before = len(endpoint.bodies)
    assert None not in connect(config).advise(requests("briefed"))
    contents = [body["messages"][0]["content"] for body in endpoint.bodies[before:]]
    assert sum("What is the best simple strategy" in text for text in contents) == 1
    told = [text for text in contents if "State briefed" in text]
    assert len(told) == 40 and all("Strategy notes" in text for text in told)
