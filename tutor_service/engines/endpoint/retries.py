"""Send requests to an endpoint at its pace, within its budget, and again where that may help. Reads no answers."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any

from tutor_service.config import TutorConfig
from tutor_service.engines.endpoint.limits import Booking, Budget, Pace
from tutor_service.engines.endpoint.reply import NotRead, Received, Reply, parse_reply
from tutor_service.engines.endpoint.transport import Transport, Unanswered

BACKOFF_S = 0.5
"""Mean pause before a request is made again; doubles each time."""

ATTEMPTS = 4
"""Times that a request is made before its failure counts."""

_MAX_PAUSE_S = 3600.0
"""Longest pause; a server that asks for more may have sent the time of day, or come back sooner."""

TRANSIENT = frozenset({408, 409, 425, 429})
"""HTTP statuses below 500 that say something about the moment."""

_CHARS_PER_TOKEN = 3
"""For estimates only: few texts have more tokens."""

_OVERHEAD_TOKENS = 16


class BudgetSpent(Exception):
    """Say that no request is sent any more.

    Args:
        limit: The limit that is reached, as ``budget.FIELD = value``.
    """

    def __init__(self, limit: str) -> None:
        super().__init__(limit)
        self.limit = limit


@dataclass(frozen=True, slots=True)
class Exchange:
    """Hold one request that was answered, with whatever status.

    Attributes:
        received: The reply as it came.
        reply: What it holds; of an error, why it holds nothing.
    """

    received: Received
    reply: Reply | NotRead


class Session:
    """Ask one endpoint, for the life of a tutor.

    Args:
        config: The tutor.
        transport: The way to the endpoint.
    """

    def __init__(self, config: TutorConfig, transport: Transport) -> None:
        self._config = config
        self._transport = transport
        self._free = asyncio.Semaphore(config.concurrency)
        self._pace = Pace(config.requests_per_minute, config.tokens_per_minute)
        self._pause_words = ""
        self.budget = Budget(config.budget)

    async def ask(self, question: str, fields: dict[str, Any]) -> Exchange:
        """Send a question with optional fields; what fails for the moment only is sent again a few times.

        Raises:
            BudgetSpent: The budget does not allow it.
            Unanswered: No reply came, or the endpoint asks for a longer pause than an answer may take.
        """
        for attempt in range(1, ATTEMPTS + 1):
            last = attempt == ATTEMPTS
            try:
                exchange = await self._once(question, fields)
            except Unanswered as failure:
                if last or failure.late or failure.paused:
                    raise
            else:
                received = exchange.received
                if received.status < 500 and received.status not in TRANSIENT:
                    return exchange
                if received.retry_after_s is not None:
                    self._pace.hold(min(received.retry_after_s, _MAX_PAUSE_S))
                    self._pause_words = received.words
                if last:
                    return exchange
                if received.retry_after_s is not None:
                    continue  # the next attempt waits for as long as the endpoint asks
            await back_off(attempt)
        raise AssertionError("the last attempt returns or raises")

    async def _once(self, question: str, fields: dict[str, Any]) -> Exchange:
        config = self._config
        extra = {name: value for name, value in config.engine.items() if name != "top_logprobs"}
        if config.template_arguments:
            extra["chat_template_kwargs"] = config.template_arguments
        body = {"model": config.model, "messages": [{"role": "user", "content": question}], **fields, **extra}
        booking = Booking(
            prompt_tokens=len(question.encode()) // _CHARS_PER_TOKEN + _OVERHEAD_TOKENS,
            completion_tokens=max(_lengths(body), default=config.thinking_tokens + config.answer_tokens),
        )
        async with self._free:
            await self._wait(booking)
            taken, stated = (0, 0), True
            try:
                received = await self._transport.post(body)
                reply = parse_reply(received.body) if received.status == 200 else NotRead(received.words)
                if received.status == 200:
                    stated = isinstance(reply, Reply) and reply.usage.stated
                    taken = (booking.prompt_tokens, booking.completion_tokens)
                    if isinstance(reply, Reply) and stated:
                        taken = (reply.usage.prompt_tokens, reply.usage.completion_tokens)
            except (Unanswered, asyncio.CancelledError) as failure:
                if not isinstance(failure, Unanswered) or failure.late:  # the provider may have done the work
                    taken, stated = (booking.prompt_tokens, booking.completion_tokens), False
                raise
            finally:
                self.budget.close(booking, *taken, stated=stated)
                self._pace.settle(booking.tokens, sum(taken))
        return Exchange(received, reply)

    async def _wait(self, booking: Booking) -> None:
        """Wait for the request's turn and sets aside what it may take."""
        pause_s = 0.0
        booked = False
        while True:
            held_s = self._pace.held_s
            if held_s > self._config.timeout_s:
                if booked:
                    self._pace.settle(booking.tokens, 0)
                raise Unanswered(f"it asks for a pause of {held_s:.0f} s: {self._pause_words}", paused=True)
            if held_s == 0 and booked:
                break
            if held_s == 0:
                pause_s, booked = self._pace.book(booking.tokens), True
            await asyncio.sleep(held_s or pause_s)
        limit = self.budget.exceeded_by(booking)
        if limit is not None:
            self._pace.settle(booking.tokens, 0)
            raise BudgetSpent(limit)
        self.budget.open(booking)


async def back_off(attempt: int) -> None:
    """Pause after the attempt of this number, from 1, has failed."""
    await asyncio.sleep(BACKOFF_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))


def _lengths(body: dict[str, Any]) -> list[int]:
    return [body[name] for name in ("max_tokens", "max_completion_tokens") if isinstance(body.get(name), int)]
