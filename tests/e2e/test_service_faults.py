"""Kills parts of the running service, and asks more of it than it can do."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import Service
from tests.e2e.reference import make_checkpoint
from tutor_service import serving
from tutor_service.client import connect
from tutor_service.config import TutorConfig
from tutor_service.engines.process import MODULE as ENGINE
from tutor_service.schema import Advice, AdviceRequest
from tutor_service.serving.scaling import IN_FLIGHT

HEAL_S = 240.0
OVERLOAD_S = 20.0
RECOVERY_S = 30.0
HANG_S = 5.0
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


def ask_while_striking(
    service: Service, name: str, process: psutil.Process, blow: signal.Signals = signal.SIGKILL
) -> None:
    """Asks, kills or stops meanwhile, and holds the client to its deadline."""
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
    process.send_signal(blow)
    caller.join(timeout=deadline_s + 5)
    assert took and took[0] < deadline_s + 1
    assert all(answer is None or abs(sum(answer.probabilities) - 1) < 1e-6 for answer in result[0])


@pytest.mark.parametrize("victim", ["TutorReplica", "TutorGateway"])
def test_kill_nine_mid_request(service: Service, victim: str):
    kept = states(f"before {victim}", 4)
    before = connect(service.tutor, deadline_s=60).advise(kept)
    assert None not in before
    ask_while_striking(service, victim, service.process(victim))
    answers_again(service, f"after {victim}")
    after = connect(service.tutor, deadline_s=60).advise(kept)
    assert [answer.source for answer in after if answer] == ["store"] * len(kept)
    assert [answer.probabilities for answer in after if answer] == [answer.probabilities for answer in before if answer]


def test_the_next_controller_takes_the_replica_over(service: Service):
    """It can only where the replica's process still has the logging that Serve set up."""
    replica = service.process("TutorReplica")
    (controller,) = controllers()
    controller.kill()
    wait_until(lambda: any(found.pid != controller.pid for found in controllers()), 60, "no new controller")
    time.sleep(5)  # it looks at the replicas that it finds, and stops those that it cannot take over
    wait_until(
        lambda: [(tutor.status, tutor.replicas) for tutor in serving.status()] == [("RUNNING", 1)], 60, "not taken over"
    )
    assert service.process("TutorReplica").pid == replica.pid
    answers_again(service, "after the controller")


def controllers() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "ray::ServeController" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def test_an_engine_process_that_hangs_is_missed_and_none_outlives_its_replica(
    ray_cluster: None, model_folder: Path, tmp_path: Path
):
    """One that dies is told of by the same error, sooner: tests/unit/test_service_process.py."""
    tutor = TutorConfig(
        name="tiny",
        model=str(make_checkpoint("llama", model_folder, tmp_path / "model")),
        engine={"max_model_len": 512, "kv_cache_memory_bytes": 2**26},
        scaling={"engine_process": True, "hang_s": HANG_S},
    )
    serving.deploy([tutor])
    try:
        tiny = Service(tutor, url="", token="")
        first = psutil.Process(tiny.process(ENGINE).pid)
        ask_while_striking(tiny, "hanging engine", first, signal.SIGSTOP)
        answers_again(tiny, "after the hanging engine")
        assert gone(first), "the stopped engine is left"
        second = tiny.process(ENGINE)
        assert second.pid != first.pid
        tiny.process("TutorReplica").kill()
        wait_until(lambda: gone(second), 10, "the engine outlived its replica")
    finally:
        serving.delete([tutor.name])
    wait_until(lambda: not tiny.processes(ENGINE), 30, "an engine is left")


def test_overload_is_refused_and_passes(service: Service):
    gateway = service.process("TutorGateway")
    memory_before = gateway.memory_info().rss
    stop = time.monotonic() + OVERLOAD_S
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
    pending, grown = [], []
    while time.monotonic() < stop:
        pending.append(service.handle.stats.remote().result(timeout_s=OVERLOAD_S).pending)
        grown.append(gateway.memory_info().rss - memory_before)
        time.sleep(0.5)
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()
    scaling = service.tutor.scaling
    assert max(pending) <= scaling.max_pending + IN_FLIGHT * scaling.target_ongoing_requests
    assert not all(outcomes)
    assert max(grown) < 300 * 2**20
    fresh = states("after overload", 1)
    wait_until(lambda: connect(service.tutor, deadline_s=5).advise(fresh)[0] is not None, RECOVERY_S, "not recovered")
