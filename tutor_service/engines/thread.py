"""Drive a vLLM engine on a thread of its own and hand its outputs to coroutines. Knows no prompts and no tutors.

The engine steps as long as there is work; requests that are handed in together start in the same step, so a list of
states is one forward pass and not a trickle of small ones. Requests of different kinds never share a step: vLLM's
sampler mixes up, for one, requests for the log-probabilities of given tokens and requests for text.
"""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple


class EngineDead(RuntimeError):
    """Report that the engine has failed and will not answer again."""


@dataclass(slots=True, eq=False)
class _Job:
    """Hold one request and the coroutine that waits for it."""

    token_ids: Sequence[int]
    sampling: Any
    loop: asyncio.AbstractEventLoop
    output: asyncio.Future[Any]
    number: str = ""
    """Its name at the engine; empty before it is there."""


class _Group(NamedTuple):
    """Hold requests that were handed in together.

    Attributes:
        kind: Only requests of one kind are at the engine at a time.
        jobs: The requests.
    """

    kind: str
    jobs: list[_Job]


class _GivenUp(NamedTuple):
    """Name requests that nobody waits for any more."""

    jobs: list[_Job]


class EngineThread:
    """Own one engine and the thread that makes it, steps it and ends it.

    Args:
        make: Makes the engine: an ``LLMEngine``, or something with its ``add_request``, ``abort_request``, ``step`` and
            ``engine_core``.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._engine: Any = None
        self._inbox: queue.SimpleQueue[_Group | _GivenUp | None] = queue.SimpleQueue()
        self._held: deque[_Group] = deque()
        self._kind = ""
        self._jobs: dict[str, _Job] = {}
        self._numbers = itertools.count()
        self._step_since: float | None = None
        self._error: BaseException | None = None
        self._stopping = False
        self._ready: Future[Any] = Future()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    async def start(self) -> Any:
        """Make the engine and return it.

        Raises:
            BaseException: Whatever ``make`` raised.
        """
        self._thread.start()
        return await asyncio.wrap_future(self._ready)

    async def generate(self, requests: Sequence[tuple[Sequence[int], Any]], kind: str = "") -> list[Any]:
        """Return the final output of each request, in order; the engine drops them where the caller is cancelled.

        Args:
            requests: Prompt token ids and sampling parameters of each.
            kind: What they ask for. They start when no request of another kind is at the engine, in the order in which
                they came.

        Raises:
            EngineDead: The engine has failed, before or meanwhile.
            ValueError: The engine refuses a request.
        """
        loop = asyncio.get_running_loop()
        jobs = [_Job(ids, sampling, loop, loop.create_future()) for ids, sampling in requests]
        with self._lock:
            if self._error is not None or self._stopping:
                raise EngineDead(f"the engine has stopped: {self._error!r}")
            self._inbox.put(_Group(kind, jobs))
        try:
            return list(await asyncio.gather(*(job.output for job in jobs)))
        except asyncio.CancelledError:
            self._inbox.put(_GivenUp(jobs))
            raise

    def check(self, hang_s: float) -> None:
        """Return when the engine is alive and its current step, if any, is younger than ``hang_s`` seconds.

        Raises:
            EngineDead: It is not.
        """
        if self._error is not None:
            raise EngineDead(f"the engine has failed: {self._error!r}")
        since = self._step_since
        if since is not None and time.monotonic() - since > hang_s:
            raise EngineDead(f"the engine has been in one step for {time.monotonic() - since:.0f} s")

    def stop(self, timeout_s: float) -> None:
        """End the engine after its current step; does not wait longer than ``timeout_s`` seconds."""
        with self._lock:
            self._stopping = True
            self._inbox.put(None)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)
            if self._thread.is_alive() and self._engine is not None:  # it hangs in a step: end its process under it
                self._engine.engine_core.shutdown(timeout=1.0)

    def _run(self) -> None:
        try:
            self._engine = self._make()
        except BaseException as error:
            self._error = error
            self._ready.set_exception(error)
            return
        self._ready.set_result(self._engine)
        try:
            while self._accept():
                self._step_since = time.monotonic()
                finished = [
                    output for output in self._engine.step() if output.finished and output.request_id in self._jobs
                ]
                self._step_since = None
                self._deliver([(self._jobs.pop(output.request_id), output) for output in finished])
            self._error = EngineDead("stopped")
        except BaseException as error:
            self._error = error
        finally:
            self._fail()
            self._engine.engine_core.shutdown(timeout=1.0)

    def _accept(self) -> bool:
        """Take in what may start now, at least one request when there is no other work; False: stop."""
        while True:
            while not self._inbox.empty() or not (self._jobs or self._held):
                item = self._inbox.get()
                if item is None:
                    return False
                if isinstance(item, _GivenUp):
                    self._drop(item.jobs)
                else:
                    self._held.append(item)
            while self._held and (not self._jobs or self._held[0].kind == self._kind):
                self._kind, jobs = self._held.popleft()
                self._add(jobs)
            if self._jobs:
                return True

    def _drop(self, jobs: Sequence[_Job]) -> None:
        """Take back requests, at the engine or not."""
        numbers = [job.number for job in jobs if self._jobs.pop(job.number, None)]
        if numbers:
            self._engine.abort_request(numbers)

    def _add(self, jobs: Sequence[_Job]) -> None:
        for job in jobs:
            if job.output.cancelled():  # given up while it was held
                continue
            number = job.number = str(next(self._numbers))
            prompt = {"prompt_token_ids": list(job.token_ids)}
            try:
                self._engine.add_request(number, prompt, job.sampling)
            except ValueError as error:
                job.loop.call_soon_threadsafe(_refuse, job.output, error)
            else:
                self._jobs[number] = job

    def _deliver(self, answers: list[tuple[_Job, Any]]) -> None:
        """Wake the waiting coroutines, with one call into each event loop."""
        for loop in {job.loop for job, _ in answers}:
            mine = [(job.output, output) for job, output in answers if job.loop is loop]
            loop.call_soon_threadsafe(_settle, mine)

    def _fail(self) -> None:
        """Tell everyone who waits, or is about to, that there will be no answer."""
        with self._lock:
            left = list(self._jobs.values())
            while not self._inbox.empty():
                item = self._inbox.get()
                if isinstance(item, _Group):
                    self._held.append(item)
            for group in self._held:
                left.extend(group.jobs)
        error = EngineDead(f"the engine has failed: {self._error!r}")
        for job in left:
            if not job.loop.is_closed():
                job.loop.call_soon_threadsafe(_refuse, job.output, error)


def _settle(answers: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, output in answers:
        if not future.done():
            future.set_result(output)


def _refuse(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
