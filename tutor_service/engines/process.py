"""Run an engine in a process of its own: the replica's side of it, and the program that the process runs.

Only this process loads torch and vLLM, which takes longer than all else in a tutor's start. It and its replica know one
another by messages alone, and it dies with its replica, whatever ends that. Must not know Serve or tasks.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import itertools
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from tutor_service.config import TutorConfig
from tutor_service.engines.base import Engine, EngineFacts, Written
from tutor_service.engines.thread import EngineDead
from tutor_service.errors import UserError
from tutor_service.prompts.prompt import Prompt
from tutor_service.schema import Advice, AdviceError

logger = logging.getLogger(__name__)

MODULE = "tutor_service.engines.process"
_STOP_S = 5.0
_SILENCE_S = 15.0
"""Longest wait for a sign of life: less than Serve waits for a replica's."""
_LENGTH_BYTES = 8
_PR_SET_PDEATHSIG = 1

_Method = Literal["start", "evaluate", "write", "check_health", "give_up"]


class _Call(NamedTuple):
    """Ask the process for a method of its engine."""

    number: int
    method: _Method
    argument: Any


class _Reply(NamedTuple):
    """Hold what the method returned or raised."""

    number: int
    value: Any = None
    error: Exception | None = None


class EngineProcess(Engine):
    """Stand for the engine in the process, a ``VllmEngine``."""

    def __init__(self, config: TutorConfig) -> None:
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count()

    async def start(self) -> EngineFacts:
        """See ``Engine``."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        reader, self._writer = await asyncio.open_connection(sock=ours)
        self._listening = asyncio.create_task(self._listen(reader))
        facts: EngineFacts = await self._call("start", self._config)
        return facts

    async def evaluate(self, prompts: Sequence[Prompt]) -> list[Advice | AdviceError]:
        """See ``Engine``."""
        answers: list[Advice | AdviceError] = await self._call("evaluate", prompts)
        return answers

    async def write(self, prompt: Prompt, max_tokens: int) -> Written | AdviceError:
        """See ``Engine``."""
        written: Written | AdviceError = await self._call("write", (prompt, max_tokens))
        return written

    async def check_health(self) -> None:
        """See ``Engine``; a process that is stopped or too busy to say anything is as good as dead."""
        patience_s = min(self._config.scaling.hang_s, _SILENCE_S)
        try:
            await asyncio.wait_for(self._call("check_health"), patience_s)
        except TimeoutError:
            raise EngineDead(f"the engine's process has said nothing for {patience_s:.0f} s") from None

    def shutdown(self) -> None:
        """See ``Engine``."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    async def _call(self, method: _Method, argument: Any = None) -> Any:
        """Return what a method of the engine returns, or raise what it raises.

        Raises:
            EngineDead: Its process has ended.
        """
        if self._writer is None or self._listening is None or self._listening.done():
            raise EngineDead("the engine's process has ended")
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._writer.write(_frame(_Call(number, method, argument)))
        try:
            return await answer
        except asyncio.CancelledError:
            self._waiting.pop(number, None)
            self._writer.write(_frame(_Call(next(self._numbers), "give_up", number)))
            raise

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                reply: _Reply = await _receive(reader)
                answer = self._waiting.pop(reply.number, None)
                if answer is None or answer.done():  # whoever asked has given up
                    continue
                if reply.error is None:
                    answer.set_result(reply.value)
                else:
                    answer.set_exception(reply.error)
        except Exception as error:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(EngineDead(f"the engine's process has ended: {error!r}"))


def _frame(message: Any) -> bytes:
    body = pickle.dumps(message)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


async def _receive(reader: asyncio.StreamReader) -> Any:
    """Return the next message.

    Raises:
        EOFError: There will be none.
        OSError: Likewise.
    """
    length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "big")
    return pickle.loads(await reader.readexactly(length))


async def _serve(connection: socket.socket) -> None:
    """Make the engine that the first message asks for and work on messages until there are no more."""
    from tutor_service.engines.vllm import VllmEngine

    engine: Engine | None = None
    reader, writer = await asyncio.open_connection(sock=connection)
    under_way: dict[int, asyncio.Task[None]] = {}

    async def do(call: _Call) -> Any:
        if engine is None:
            raise EngineDead("the engine was not started")
        if call.method == "start":
            return await engine.start()
        if call.method == "evaluate":
            return await engine.evaluate(call.argument)
        if call.method == "write":
            return await engine.write(*call.argument)
        return await engine.check_health()

    async def answer(call: _Call) -> None:
        try:
            reply = _Reply(call.number, await do(call))
        except Exception as error:
            if type(error) in (UserError, ValueError, EngineDead):
                reply = _Reply(call.number, error=error)
            else:  # it may not survive the way
                logger.exception("the engine failed")
                reply = _Reply(call.number, error=RuntimeError(f"{type(error).__name__}: {error}"))
        writer.write(_frame(reply))

    listening = asyncio.current_task()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, listening.cancel)  # type: ignore[union-attr]
    try:
        while True:
            call: _Call = await _receive(reader)
            if call.method == "start":
                engine = VllmEngine(call.argument)
            if call.method == "give_up":
                if task := under_way.get(call.argument):
                    task.cancel()
                continue
            task = under_way[call.number] = asyncio.create_task(answer(call))
            task.add_done_callback(functools.partial(_forget, under_way, call.number))
    except (EOFError, OSError, asyncio.CancelledError):
        if engine is not None:
            engine.shutdown()


def _forget(under_way: dict[int, asyncio.Task[None]], number: int, task: asyncio.Task[None]) -> None:
    del under_way[number]


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies, which cannot end it when killed with signal 9."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):  # not Linux: the connection's end tells
        return
    if os.getppid() != parent:  # it died before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run the process. Its arguments are a connected socket's number and its parent's id."""
    _die_with(int(sys.argv[2]))
    asyncio.run(_serve(socket.socket(fileno=int(sys.argv[1]))))


if __name__ == "__main__":
    from tutor_service.engines import process  # messages are pickled under this name, on both sides

    process.main()
