"""An engine in a process of its own: what crosses over, and how it ends. The model is one that cannot be loaded."""

import asyncio
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator

import psutil
import pytest

from tutor_service.config import TutorConfig
from tutor_service.engines.factory import make_engine
from tutor_service.engines.process import MODULE, EngineProcess
from tutor_service.engines.thread import EngineDead
from tutor_service.engines.vllm import VllmEngine
from tutor_service.errors import UserError

TUTOR = TutorConfig(name="t", model="/nowhere/at/all")


def children() -> list[psutil.Process]:
    return [process for process in psutil.Process().children() if MODULE in process.cmdline()]


@pytest.fixture
async def engine() -> AsyncIterator[EngineProcess]:
    found = EngineProcess(TUTOR)
    with pytest.raises(UserError, match="does not exist"):
        await found.start()
    yield found
    found.shutdown()
    assert not children()


def test_it_is_for_gpus_or_where_it_is_asked_for() -> None:
    def made(**scaling: object) -> type:
        return type(make_engine(TUTOR.model_copy(update={"scaling": TUTOR.scaling.model_copy(update=scaling)})))

    assert made() is made(num_gpus=1, engine_process=False) is VllmEngine
    assert made(num_gpus=1) is made(engine_process=True) is EngineProcess


async def test_calls_and_errors_cross_over(engine: EngineProcess) -> None:
    await asyncio.gather(*(engine.check_health() for _ in range(20)))


async def test_its_death_is_told_to_those_who_wait_and_to_those_who_come(engine: EngineProcess) -> None:
    (process,) = children()
    process.suspend()
    waiting = [asyncio.create_task(engine.check_health()) for _ in range(3)]
    await asyncio.sleep(0.1)
    process.kill()
    assert {type(error) for error in await asyncio.gather(*waiting, return_exceptions=True)} == {EngineDead}
    with pytest.raises(EngineDead):
        await engine.check_health()


async def test_one_that_says_nothing_is_as_good_as_dead(engine: EngineProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tutor_service.engines.process._SILENCE_S", 0.3)
    (process,) = children()
    process.suspend()
    with pytest.raises(EngineDead, match="said nothing"):
        await engine.check_health()
    process.kill()  # asked to end, it would say nothing either


async def test_one_that_does_not_end_when_asked_is_killed(
    engine: EngineProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutor_service.engines.process._STOP_S", 0.2)
    (process,) = children()
    process.suspend()
    engine.shutdown()
    assert not process.is_running()


def test_it_does_not_outlive_its_parent() -> None:
    code = """
        import asyncio, time
        from tutor_service.config import TutorConfig
        from tutor_service.engines.process import EngineProcess
        async def main():
            try:
                await EngineProcess(TutorConfig(name="t", model="/nowhere/at/all")).start()
            except Exception as error:
                print(type(error).__name__, flush=True)
            time.sleep(60)
        asyncio.run(main())
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None and parent.stdout.readline() == "UserError\n"
    (child,) = psutil.Process(parent.pid).children()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert psutil.wait_procs([child], timeout=10)[1] == []
