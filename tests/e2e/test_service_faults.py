"""Kills parts of the running service, and asks more of it than it can do."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

import psutil
import pytest

from tests.e2e.conftest import Service
from tutor_service.client import connect
from tutor_service.schema import Advice, AdviceRequest

HEAL_S = 240.0
RULES = "You play a card game. 'hit' takes another card, 'stick' ends your turn. Stay below 22."


def states(name: str, count: int) -> list[AdviceRequest]:
    return [AdviceRequest(RULES, f"{name}, state {number}.", ("stick", "hit")) for number in range(count)]


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def answers_again(service: Service, name: str) -> None:
    """Waits until a fresh state is evaluated."""
    attempts = iter(range(10_000))

    def answered() -> bool:
        client = connect(service.tutor, deadline_s=10)
        return client.advise(states(f"{name} {next(attempts)}", 1))[0] is not None

    wait_until(answered, HEAL_S, f"{name}: not healed")


def gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize(
    "victim",
    ["VLLM::EngineCore", "ServeReplica:tutor-smollm2-e2e:TutorReplica", "ServeReplica:tutor-smollm2-e2e:TutorGateway"],
)
def test_kill_nine_mid_request(service: Service, victim: str):
    name = victim.rsplit(":", 1)[-1]
    kept = states(f"before {name}", 4)
    before = connect(service.tutor, deadline_s=60).advise(kept)
    assert None not in before
    process = service.process(victim)
    engine = service.process("VLLM::EngineCore")
    deadline_s = 8.0
    result: list[list[Advice | None]] = []
    took: list[float] = []

    def call() -> None:
        started = time.monotonic()
        result.append(connect(service.tutor, deadline_s=deadline_s).advise(states(f"during {name}", 64)))
        took.append(time.monotonic() - started)

    caller = threading.Thread(target=call)
    caller.start()
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    caller.join(timeout=deadline_s + 5)
    assert took and took[0] < deadline_s + 1
    assert all(answer is None or abs(sum(answer.probabilities) - 1) < 1e-6 for answer in result[0])
    if not name.startswith("TutorGateway"):
        wait_until(lambda: gone(engine), 10, "the engine outlived its replica")
    answers_again(service, f"after {name}")
    after = connect(service.tutor, deadline_s=60).advise(kept)
    assert [answer.source for answer in after if answer] == ["store"] * len(kept)
    assert [answer.probabilities for answer in after if answer] == [answer.probabilities for answer in before if answer]
    assert len(service.processes("VLLM::EngineCore")) == 1


def test_overload_is_refused_and_passes(service: Service):
    gateway = service.process("ServeReplica:tutor-smollm2-e2e:TutorGateway")
    memory_before = gateway.memory_info().rss
    stop = time.monotonic() + 10.0
    outcomes: list[bool] = []

    def flood(index: int) -> None:
        turn = 0
        while time.monotonic() < stop:
            client = connect(service.tutor, deadline_s=1.0)
            answers = client.advise(states(f"flood {index}.{turn}", 400))
            outcomes.extend(answer is not None for answer in answers)
            turn += 1

    threads = [threading.Thread(target=flood, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    pending = []
    while time.monotonic() < stop:
        pending.append(service.handle.stats.remote().result(timeout_s=30).pending)
        time.sleep(0.5)
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()
    assert max(pending) <= service.tutor.scaling.max_pending
    assert not all(outcomes)
    assert gateway.memory_info().rss - memory_before < 300 * 2**20
    known = states("before overload", 1)
    wait_until(lambda: connect(service.tutor, deadline_s=30).advise(known)[0] is not None, HEAL_S, "not recovered")
