"""Evaluate a prompt once for all who wait for it, in bounded numbers. Knows the model as a function, and no Serve.

Prompts queue in the gateway and not at the replicas, so that what nobody waits for any more is dropped instead of
evaluated: after an overload the next caller waits for what is under way, not for the whole flood.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tutor_service.prompts.prompt import Prompt
from tutor_service.schema import Advice, AdviceError, AdviceRequest

logger = logging.getLogger("ray.serve")

Evaluate = Callable[[list[Prompt]], Awaitable[Sequence[Advice | AdviceError]]]
Answers = Sequence[Advice | AdviceError]
Keep = Callable[["list[Ticket]", Answers], Awaitable[Answers]]

_ABANDONED = AdviceError("tutor: nobody waited any more", retry=True)
_STOPPED = AdviceError("tutor: stopping", retry=True)


@dataclass(slots=True, eq=False)
class Ticket:
    """Hold one prompt that is queued or under way.

    Attributes:
        key: What makes it the same question.
        prompt: What the model is asked.
        request: The same in the first caller's words.
        waiters: Callers that have joined and not left.
        wanted: Whether somebody left who goes on without the answer and will find it the next time.
        call: The call of the model that it is part of; None while it is queued.
        result: Its evaluation, or why there is none; never an exception.
    """

    key: bytes
    prompt: Prompt
    request: AdviceRequest
    waiters: int
    wanted: bool = False
    call: Call | None = None
    result: asyncio.Future[Advice | AdviceError] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def abandoned(self) -> bool:
        """Return whether nobody has a use for the answer."""
        return self.waiters <= 0 and not self.wanted


@dataclass(slots=True, eq=False)
class Call:
    """Hold what one call of the model is about.

    Attributes:
        tickets: Its prompts.
        answered: Whether the model is done with it: from then on its answers are kept, whoever leaves.
        task: What waits for the model and keeps the answers.
    """

    tickets: list[Ticket]
    answered: bool = False
    task: asyncio.Task[Answers] | None = None


class Joined(NamedTuple):
    """Tell a caller what it waits for.

    Attributes:
        ticket: The question.
        fresh: Whether nobody else waits for it.
    """

    ticket: Ticket
    fresh: bool


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Bound what a queue sends and holds.

    Attributes:
        batch: Most prompts per call of the model.
        max_waiting: Most prompts that are queued, beside those that may go to the model at once.
        timeout_s: Seconds after which a call of the model is given up; None: never. Health checks notice a replica that
            hangs long before.
        aborts: Whether a call that nobody has a use for is ended when others wait; not where it is paid for anyway.
    """

    batch: int
    max_waiting: int
    timeout_s: float | None = None
    aborts: bool = True


class JoiningQueue:
    """Hold all prompts of one tutor that have no answer yet; runs on one event loop.

    Args:
        evaluate: The model: prompts to evaluations, in order; raises when it cannot be reached.
        keep: Given what the model said before anyone learns of it, returns what counts; must not raise.
        limits: How much it sends and holds.
        window: Most prompts at the model at a time; see ``set_window``.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        keep: Keep,
        limits: QueueLimits,
        window: int,
    ) -> None:
        self._evaluate = evaluate
        self._keep = keep
        self._limits = limits
        self._window = window
        self._tickets: dict[bytes, Ticket] = {}
        self._queue: deque[Ticket] = deque()
        self._in_flight = 0
        self._abandoned: set[Call] = set()
        self._tasks: set[asyncio.Task[Answers]] = set()

    def __len__(self) -> int:
        """Return how many prompts are queued or in flight."""
        return len(self._tickets)

    def set_window(self, prompts: int) -> None:
        """Change how many prompts may be at the model at a time."""
        self._window = prompts
        self.pump()

    def join(self, key: bytes, prompt: Prompt, request: AdviceRequest) -> Joined | None:
        """Join the callers of a question; None where too many questions wait already.

        To be followed by ``pump``, and by ``leave`` when the caller has its answer or gives up.
        """
        ticket = self._tickets.get(key)
        if ticket is not None:
            ticket.waiters += 1
            if ticket.call is not None:
                self._abandoned.discard(ticket.call)
            return Joined(ticket, fresh=ticket.waiters == 1)
        if self._is_full():
            self._drop_abandoned()
        if self._is_full():
            return None
        ticket = self._tickets[key] = Ticket(key, prompt, request, waiters=1)
        self._enter(ticket)
        return Joined(ticket, fresh=True)

    def leave(self, tickets: Iterable[Ticket], wanted: bool = False) -> None:
        """Count one caller of each ticket out.

        Args:
            tickets: What the caller waited for.
            wanted: It goes on without the answers and will ask again, so what is at the model is finished and kept.
        """
        for ticket in tickets:
            ticket.waiters -= 1
            call = ticket.call
            if call is None:
                continue
            ticket.wanted |= wanted
            if not call.answered and all(each.abandoned for each in call.tickets):
                self._abandoned.add(call)

    def pump(self) -> None:
        """Send what is queued to the model, as far as it may."""
        while self._queue and self._in_flight < self._window:
            size = min(self._limits.batch, self._window - self._in_flight)
            tickets: list[Ticket] = []
            while self._queue and len(tickets) < size:
                ticket = self._queue.popleft()
                if ticket.waiters > 0:
                    tickets.append(ticket)
                else:
                    self._settle(ticket, _ABANDONED)
            if tickets:
                self._send(tickets)
        if self._abandoned and self._limits.aborts and any(ticket.waiters > 0 for ticket in self._queue):
            for call in self._abandoned:
                self._abort(call)
            self._abandoned.clear()

    def _enter(self, ticket: Ticket) -> None:
        """Have a new question wait for the model."""
        self._queue.append(ticket)

    def _num_waiting(self) -> int:
        """Return how many questions are not at the model."""
        return len(self._queue)

    async def _claim(self, call: Call) -> None:
        """Take from a call what somebody else answers; there is nobody else here."""

    def _ended(self, call: Call) -> None:
        """Learn that a call's questions are answered, or will not be."""

    def _is_full(self) -> bool:
        """Return whether as many wait as may: what goes to the model at once does not wait."""
        return self._num_waiting() >= self._limits.max_waiting + max(0, self._window - self._in_flight)

    def _send(self, tickets: list[Ticket]) -> None:
        call = Call(tickets)
        for ticket in tickets:
            ticket.call = call
        self._in_flight += len(tickets)
        call.task = asyncio.create_task(self._run(call))
        self._tasks.add(call.task)
        call.task.add_done_callback(functools.partial(self._finish, call))

    def _abort(self, call: Call) -> None:
        """End a call; whoever asks the same from now on begins anew."""
        for ticket in call.tickets:
            self._settle(ticket, _ABANDONED)
        if call.task is not None:
            call.task.cancel()

    def _drop_abandoned(self) -> None:
        alive: deque[Ticket] = deque()
        for ticket in self._queue:
            if ticket.waiters > 0:
                alive.append(ticket)
            else:
                self._settle(ticket, _ABANDONED)
        self._queue = alive

    async def _run(self, call: Call) -> Answers:
        """Ask the model and keep what it says."""
        await self._claim(call)
        if not call.tickets:
            return []
        results = await self._ask([ticket.prompt for ticket in call.tickets])
        call.answered = True
        self._abandoned.discard(call)
        return await self._keep(call.tickets, results)

    def _finish(self, call: Call, task: asyncio.Task[Answers]) -> None:
        """Wake everyone who waits for a call; also called where it was ended before its first step."""
        self._tasks.discard(task)
        self._in_flight -= len(call.tickets)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("answers were lost", exc_info=error)
        results = [_STOPPED] * len(call.tickets) if task.cancelled() or error is not None else task.result()
        for ticket, result in zip(call.tickets, results, strict=True):
            self._settle(ticket, result)
        self._ended(call)
        self.pump()

    async def _ask(self, prompts: list[Prompt]) -> Answers:
        """Return the model's answers; errors with ``retry`` in place of an exception."""
        try:
            results = await asyncio.wait_for(self._evaluate(prompts), self._limits.timeout_s)
            if len(results) != len(prompts):
                raise RuntimeError(f"{len(results)} answers to {len(prompts)} prompts")
            return [_of_prompt(result, prompt) for result, prompt in zip(results, prompts, strict=True)]
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1][:300]
            logger.warning("The tutor's replica failed on %d prompts: %s", len(prompts), reason)
            return [AdviceError(f"tutor: its replica failed ({type(error).__name__})", retry=True)] * len(prompts)

    def _settle(self, ticket: Ticket, result: Advice | AdviceError) -> None:
        if self._tickets.get(ticket.key) is ticket:  # else it was aborted, and asked anew since
            del self._tickets[ticket.key]
        if not ticket.result.done():
            ticket.result.set_result(result)


def known(advice: Advice) -> Advice:
    """Return an answer in the form in which it is given out again."""
    return replace(advice, source="store", latency_ms=0.0, invalid=0, tokens=0, thought="")


def _of_prompt(result: Advice | AdviceError, prompt: Prompt) -> Advice | AdviceError:
    """Refuse an answer that has not one probability per label of its prompt."""
    if isinstance(result, Advice) and len(result.probabilities) != len(prompt.labels):
        return AdviceError(f"answer: {len(result.probabilities)} probabilities for {len(prompt.labels)} actions")
    return result
