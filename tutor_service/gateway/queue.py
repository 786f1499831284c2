"""Evaluate a prompt once for all who wait for it, in bounded numbers. Knows the model as a function, and no Serve.

Prompts queue in the gateway and not at the replicas, so that what nobody waits for any more is dropped instead of
evaluated: after an overload the next caller waits for what is under way, not for the whole flood.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tutor_service.prompts.prompt import Prompt
from tutor_service.schema import Advice, AdviceError, AdviceRequest

logger = logging.getLogger("ray.serve")

Evaluate = Callable[[list[Prompt]], Awaitable[Sequence[Advice | AdviceError]]]

_ABANDONED = AdviceError("tutor: nobody waited any more", retry=True)


@dataclass(slots=True, eq=False)
class Ticket:
    """Hold one prompt that is queued or under way.

    Attributes:
        key: What makes it the same question.
        prompt: What the model is asked.
        request: The same in the first caller's words.
        waiters: Callers that have joined and not left.
        result: Its evaluation, or why there is none; never an exception.
    """

    key: bytes
    prompt: Prompt
    request: AdviceRequest
    waiters: int
    result: asyncio.Future[Advice | AdviceError] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Joined(NamedTuple):
    """Tell a caller what it waits for.

    Attributes:
        ticket: The question.
        fresh: Whether nobody else waits for it.
    """

    ticket: Ticket
    fresh: bool


class JoiningQueue:
    """Hold all prompts of one tutor that have no answer yet; runs on one event loop.

    Args:
        evaluate: The model: prompts to evaluations, in order; raises when it cannot be reached.
        keep: Called with what the model said before anyone learns of it; must not raise.
        batch: Most prompts per call of the model.
        max_in_flight: Most prompts at the model at a time.
        max_pending: Most prompts queued or in flight.
        timeout_s: Seconds after which a call of the model is given up; None: never. Health checks notice a replica that
            hangs long before.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        keep: Callable[[list[tuple[Ticket, Advice | AdviceError]]], Awaitable[None]],
        *,
        batch: int,
        max_in_flight: int,
        max_pending: int,
        timeout_s: float | None = None,
    ) -> None:
        self._evaluate = evaluate
        self._keep = keep
        self._batch = batch
        self._max_in_flight = max_in_flight
        self._max_pending = max_pending
        self._timeout_s = timeout_s
        self._tickets: dict[bytes, Ticket] = {}
        self._queue: deque[Ticket] = deque()
        self._in_flight = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Return how many prompts are queued or in flight."""
        return len(self._tickets)

    def join(self, key: bytes, prompt: Prompt, request: AdviceRequest) -> Joined | None:
        """Join the callers of a question; None where too many questions wait already.

        To be followed by ``pump``, and by ``leave`` when the caller has its answer or gives up.
        """
        ticket = self._tickets.get(key)
        if ticket is not None:
            ticket.waiters += 1
            return Joined(ticket, fresh=ticket.waiters == 1)
        if len(self._tickets) >= self._max_pending:
            self._drop_abandoned()
        if len(self._tickets) >= self._max_pending:
            return None
        ticket = self._tickets[key] = Ticket(key, prompt, request, waiters=1)
        self._queue.append(ticket)
        return Joined(ticket, fresh=True)

    def leave(self, tickets: Iterable[Ticket]) -> None:
        """Count one caller of each ticket out."""
        for ticket in tickets:
            ticket.waiters -= 1

    def pump(self) -> None:
        """Send what is queued to the model, as far as it may."""
        while self._queue and self._in_flight < self._max_in_flight:
            size = min(self._batch, self._max_in_flight - self._in_flight)
            tickets: list[Ticket] = []
            while self._queue and len(tickets) < size:
                ticket = self._queue.popleft()
                if ticket.waiters > 0:
                    tickets.append(ticket)
                else:
                    self._settle(ticket, _ABANDONED)
            if tickets:
                self._in_flight += len(tickets)
                task = asyncio.create_task(self._run(tickets))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _drop_abandoned(self) -> None:
        alive: deque[Ticket] = deque()
        for ticket in self._queue:
            if ticket.waiters > 0:
                alive.append(ticket)
            else:
                self._settle(ticket, _ABANDONED)
        self._queue = alive

    async def _run(self, tickets: list[Ticket]) -> None:
        """Ask the model, keep what it says, and only then wake everyone who waits for it."""
        results: Sequence[Advice | AdviceError] = [AdviceError("tutor: stopping", retry=True)] * len(tickets)
        try:
            results = await self._ask([ticket.prompt for ticket in tickets])
            await self._keep(list(zip(tickets, results, strict=True)))
        finally:
            self._in_flight -= len(tickets)
            for ticket, result in zip(tickets, results, strict=True):
                self._settle(ticket, result)
            self.pump()

    async def _ask(self, prompts: list[Prompt]) -> Sequence[Advice | AdviceError]:
        """Return the model's answers; errors with ``retry`` in place of an exception."""
        try:
            results = await asyncio.wait_for(self._evaluate(prompts), self._timeout_s)
            if len(results) != len(prompts):
                raise RuntimeError(f"{len(results)} answers to {len(prompts)} prompts")
            return [_of_prompt(result, prompt) for result, prompt in zip(results, prompts, strict=True)]
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1][:300]
            logger.warning("The tutor's replica failed on %d prompts: %s", len(prompts), reason)
            return [AdviceError(f"tutor: its replica failed ({type(error).__name__})", retry=True)] * len(prompts)

    def _settle(self, ticket: Ticket, result: Advice | AdviceError) -> None:
        del self._tickets[ticket.key]
        if not ticket.result.done():
            ticket.result.set_result(result)


def _of_prompt(result: Advice | AdviceError, prompt: Prompt) -> Advice | AdviceError:
    """Refuse an answer that has not one probability per label of its prompt."""
    if isinstance(result, Advice) and len(result.probabilities) != len(prompt.labels):
        return AdviceError(f"answer: {len(result.probabilities)} probabilities for {len(prompt.labels)} actions")
    return result
