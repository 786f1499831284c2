"""The fault drill's own parts: which memory grows, victims that are gone before they are hit, sweeps that end."""

from __future__ import annotations

import importlib
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest

from tests.integration.cluster import faults
from tests.integration.cluster.faults import Struck
from tests.integration.cluster.memory import Memory
from tests.integration.cluster.nodes import Node, kill_all

STEP_S = 10.0


class Process:
    """Stands for a process: its name and its size by the number of the sample."""

    def __init__(self, pid: int, names: list[str], sizes: list[float], born: float = 0.0) -> None:
        self.pid = pid
        self.names = names
        self.sizes = sizes
        self.born = born
        self.turn = 0

    def create_time(self) -> float:
        return self.born

    def name(self) -> str:
        return self.names[min(self.turn - 1, len(self.names) - 1)]

    def memory_info(self) -> Any:
        self.turn += 1
        if self.turn > len(self.sizes):
            raise psutil.NoSuchProcess(self.pid)
        return SimpleNamespace(rss=self.sizes[self.turn - 1] * 2**20)


def sampled(*processes: Process, count: int = 100) -> Memory:
    memory = Memory(lambda: processes)  # type: ignore[arg-type,return-value]
    for number in range(count):
        memory.sample(number * STEP_S)
    return memory


def grown(memory: Memory, least_s: float) -> list[str]:
    found = memory.growth_mib(least_s)
    return [name for name, item in found.items() if item["growth_mib"] > item["noise_mib"]]


def test_a_leak_is_told_from_a_start_and_from_noise() -> None:
    draw = random.Random(0)
    steps = range(100)
    memory = sampled(
        Process(1, ["leaks"], [100 + 0.5 * step for step in steps]),
        Process(2, ["starts"], [min(100, 10 * step) for step in steps]),
        Process(4, ["fills"], [min(130, 100 + step) for step in steps]),
        Process(3, ["shakes"], [100 + draw.uniform(-10, 10) for _ in steps]),
    )
    assert grown(memory, 500) == ["leaks 1"]


def test_a_curve_has_a_point_a_minute_from_the_first_sample_on() -> None:
    memory = sampled(Process(1, ["grows"], [100.0 + number for number in range(20)]), count=20)
    assert memory.curves_mib(100) == {"grows 1": [100.0, 106.0, 112.0, 118.0]}
    assert memory.curves_mib(1000) == {}


def test_an_actor_is_one_process_whatever_it_is_busy_with() -> None:
    titles = ["ray::IDLE", *["ray::ServeController", "ray::ServeController.listen_for_change"] * 50]
    found = sampled(Process(7, titles, [100.0] * 100)).growth_mib(900)
    assert list(found) == ["ray::ServeController 7"]
    assert found["ray::ServeController 7"]["noise_mib"] >= 5  # also where it never changed


def test_an_id_that_is_given_again_is_another_process() -> None:
    memory = sampled(Process(7, ["first"], [100.0] * 50), Process(7, ["second"], [300.0] * 100, born=500.0))
    assert set(memory.growth_mib(400)) == {"first 7", "second 7"}
    assert grown(memory, 400) == []


def test_the_short_lived_are_left_out() -> None:
    assert sampled(Process(1, ["trial"], [float(size) for size in range(20)])).growth_mib(300) == {}


def test_what_ends_the_sampling_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.integration.cluster.memory._SAMPLE_S", 0.01)

    def broken() -> list[psutil.Process]:
        raise RuntimeError("no list")

    memory = Memory(broken)
    with pytest.raises(RuntimeError, match="no list"), memory.watched():
        psutil.Process().cpu_percent(0.1)


def test_a_victim_that_has_ended_by_itself_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter([psutil.NoSuchProcess(1), LookupError("no node"), Struck("the third")])

    def fault(scene: Any, rng: random.Random) -> Struck:
        drawn = next(draws)
        if isinstance(drawn, Exception):
            raise drawn
        return drawn

    monkeypatch.setitem(faults.FAULTS, "trial", fault)
    monkeypatch.setattr(faults, "_PAUSE_S", 0.0)
    hit = faults.strike("trial", None, random.Random(0))  # type: ignore[arg-type]
    assert hit.victim == "the third" and hit.at_s > 0
    monkeypatch.setitem(faults.FAULTS, "trial", lambda scene, rng: [][0])
    with pytest.raises(TimeoutError, match="nobody to hit"):
        faults.strike("trial", None, random.Random(0))  # type: ignore[arg-type]


def test_a_node_is_all_that_it_started_also_when_what_started_it_has_ended(tmp_path: Path) -> None:
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    leader = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    leader.wait()
    node = Node("students", leader, "127.0.0.1", None, tmp_path / "log")
    (orphan,) = node.processes()
    kill_all([orphan])
    assert node.processes() == []


@pytest.fixture
def fault_drill(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return importlib.import_module("benchmarks.fault_drill")


class Scene:
    """A stage on which sweeps need no time, and say nothing of their own."""

    def __init__(self) -> None:
        self.sweeps: list[str] = []
        self.open: set[str] = set()
        self.num_finished = 0
        self.refusals = 0

    def submit(self, name: str, seeds: list[int]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise subprocess.CalledProcessError(2, "tutor submit")
        self.sweeps.append(name)
        self.open.add(name)
        self.num_finished = 0

    def tutor_answers(self) -> bool:
        return True

    def job_ended(self, sweep: str) -> bool:
        ended = sweep not in self.open
        if self.num_finished >= 10:
            self.open.discard(sweep)  # the last trials end
        return ended

    def finished(self, sweep: str) -> dict[str, str]:
        return {str(number): "done" for number in range(self.num_finished)}

    def running(self, sweep: str) -> dict[str, int]:
        return {"trial": len(self.sweeps)}

    def actors(self, class_part: str) -> list[dict[str, Any]]:
        return [{"pid": 1}]


def test_a_sweep_that_is_nearly_done_ends_in_its_own_time(
    fault_drill: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[tuple[float, str]] = []

    def wait_for(condition: Any, limit_s: float, what: str) -> None:
        waited.append((limit_s, what))
        while not condition():
            pass

    monkeypatch.setattr(fault_drill, "wait_for", wait_for)
    scene = Scene()
    drill = fault_drill.Drill(scene, random.Random(0))
    drill._ready()
    scene.num_finished = 10
    drill._ready()
    assert scene.sweeps == ["drill-1", "drill-2"] and drill.current == "drill-2"
    limits = [limit_s for limit_s, what in waited if what == "the sweep's end"]
    assert limits == [fault_drill.SEED_END_S * fault_drill.SEEDS_PER_SWEEP]


def test_a_command_that_fails_is_a_finding_and_not_the_end(
    fault_drill: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fault_drill, "wait_for", lambda condition, *rest: condition())
    monkeypatch.setattr(fault_drill, "strike", lambda *drawn: Struck("someone"))
    scene = Scene()
    scene.refusals = 1
    drill = fault_drill.Drill(scene, random.Random(0))
    assert "tutor submit" in drill.strike("trial").hung
    assert drill.strike("trial").hung == ""
