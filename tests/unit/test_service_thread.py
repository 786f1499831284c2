import asyncio
import threading
from types import SimpleNamespace

import pytest

from tutor_service.engines.thread import EngineDead, EngineThread


class FakeEngine:
    """Steps when it is let; every request takes as many steps as its sampling parameters say."""

    def __init__(self):
        self.left: dict[str, list] = {}
        self.steps: list[int] = []
        self.aborted: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.failing: Exception | None = None
        self.ended = threading.Event()
        self.engine_core = SimpleNamespace(shutdown=lambda timeout=None: self.ended.set())

    def add_request(self, number, prompt, sampling):
        if sampling < 1:
            raise ValueError("no such sampling")
        self.left[number] = [sampling, prompt["prompt_token_ids"]]

    def abort_request(self, numbers):
        self.aborted += [self.left.pop(number)[1] for number in numbers]

    def step(self):
        self.gate.wait()
        if self.failing:
            raise self.failing
        self.steps.append(len(self.left))
        outputs = []
        for number, job in list(self.left.items()):
            job[0] -= 1
            outputs.append(SimpleNamespace(request_id=number, finished=job[0] == 0, token_ids=job[1]))
            if job[0] == 0:
                del self.left[number]
        return outputs


@pytest.fixture
async def running():
    engine = FakeEngine()
    thread = EngineThread(lambda: engine)
    assert await thread.start() is engine
    yield engine, thread
    engine.gate.set()
    thread.stop(5)
    assert engine.ended.wait(5)


async def test_requests_that_come_together_start_in_one_step(running):
    engine, thread = running
    outputs = await thread.generate([([number], 1) for number in range(8)])
    assert [output.token_ids for output in outputs] == [[number] for number in range(8)]
    assert engine.steps == [8]


async def test_requests_join_work_under_way(running):
    engine, thread = running
    engine.gate.clear()
    long = asyncio.create_task(thread.generate([([1], 3)]))
    await asyncio.sleep(0.01)
    short = asyncio.create_task(thread.generate([([2], 1)]))
    await asyncio.sleep(0.01)
    engine.gate.set()
    await asyncio.gather(long, short)
    assert sum(engine.steps) == 4 and len(engine.steps) == 3


async def test_requests_of_different_kinds_never_share_a_step(running):
    engine, thread = running
    engine.gate.clear()
    kinds = ["think", "score", "score", "think", "score"]
    calls = [asyncio.create_task(thread.generate([([n], 2), ([n], 1)], kind)) for n, kind in enumerate(kinds)]
    while thread._inbox.qsize() + len(thread._held) + len(thread._jobs) < len(kinds):
        await asyncio.sleep(0)
    seen: list[set[str]] = []
    step = engine.step

    def noted():
        seen.append({kinds[job[1][0]] for job in engine.left.values()})
        return step()

    engine.step = noted
    engine.gate.set()
    outputs = await asyncio.gather(*calls)
    assert [[output.token_ids for output in found] for found in outputs] == [[[n], [n]] for n in range(len(kinds))]
    assert all(len(together) == 1 for together in seen) and len(seen) >= 4


async def test_a_refused_request_harms_no_other(running):
    _, thread = running
    with pytest.raises(ValueError, match="no such sampling"):
        await thread.generate([([1], 0)])
    assert len(await thread.generate([([1], 1)])) == 1
    thread.check(hang_s=60)


async def test_a_caller_that_leaves_disturbs_nobody(running):
    engine, thread = running
    engine.gate.clear()
    leaving = asyncio.create_task(thread.generate([([1], 1)]))
    await asyncio.sleep(0.01)
    leaving.cancel()
    engine.gate.set()
    assert len(await thread.generate([([2], 1)])) == 1


async def test_what_a_caller_gives_up_on_is_taken_back_from_the_engine_or_never_given_to_it(running):
    engine, thread = running
    engine.gate.clear()
    thinking = asyncio.create_task(thread.generate([([1], 10_000), ([2], 10_000)], "think"))
    scoring = asyncio.create_task(thread.generate([([3], 1)], "score"))
    await asyncio.sleep(0.01)
    for call in (scoring, thinking):
        call.cancel()
    await asyncio.sleep(0.01)
    engine.gate.set()
    assert len(await thread.generate([([4], 1)], "score")) == 1
    assert engine.aborted == [[1], [2]] and not engine.left
    assert sum(engine.steps) <= 5


async def test_a_failing_engine_is_dead_to_all(running):
    engine, thread = running
    engine.gate.clear()
    engine.failing = RuntimeError("out of memory")
    waiting = asyncio.create_task(thread.generate([([1], 1)]))
    await asyncio.sleep(0.01)
    engine.gate.set()
    with pytest.raises(EngineDead, match="out of memory"):
        await waiting
    with pytest.raises(EngineDead):
        await thread.generate([([2], 1)])
    with pytest.raises(EngineDead):
        thread.check(hang_s=60)


async def test_a_hanging_engine_is_unwell(running):
    engine, thread = running
    engine.gate.clear()
    waiting = asyncio.create_task(thread.generate([([1], 1)]))
    await asyncio.sleep(0.05)
    thread.check(hang_s=60)
    with pytest.raises(EngineDead, match="in one step"):
        thread.check(hang_s=0.01)
    engine.gate.set()
    await waiting
    thread.check(hang_s=0.01)


async def test_an_engine_that_cannot_be_made_says_why():
    def make():
        raise OSError("no such model")

    with pytest.raises(OSError, match="no such model"):
        await EngineThread(make).start()


async def test_stopping_ends_the_engine_and_later_calls():
    engine = FakeEngine()
    thread = EngineThread(lambda: engine)
    await thread.start()
    thread.stop(5)
    assert engine.ended.is_set()
    with pytest.raises(EngineDead):
        await thread.generate([([1], 1)])
