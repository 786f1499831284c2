"""Evaluate a prompt once over all gateways that share a store. Knows the store as ``SharedStore``, and no SQL.

A question is looked up in the shared store before it waits for the model, and claimed there right before it goes to the
model: gateways that are asked the same states at the same time divide them. What another one evaluates is looked up
again until its answer is there, or its claim has ended.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from tutor_service.gateway.grouping import GroupCalls
from tutor_service.gateway.queue import Call, Evaluate, JoiningQueue, Keep, QueueLimits, Ticket, known
from tutor_service.schema import Advice
from tutor_service.store.shared import Claim, SharedStore

logger = logging.getLogger("ray.serve")

LOOK_AGAIN_S = 0.25
"""Seconds between two looks for an answer that another gateway is to give."""


class SharedQueue(JoiningQueue):
    """Hold the prompts of one tutor that have no answer yet, here or at another gateway; see ``JoiningQueue``.

    Args:
        evaluate: The model.
        keep: Keeps what the model said.
        limits: How much it sends and holds.
        window: Most prompts at the model at a time.
        store: What gateways share.
    """

    def __init__(self, evaluate: Evaluate, keep: Keep, limits: QueueLimits, window: int, *, store: SharedStore) -> None:
        super().__init__(evaluate, keep, limits, window)
        self._store = store
        self._claims: GroupCalls[bytes, Advice | Claim] = GroupCalls(store.claim_many)
        self._unseen: list[Ticket] = []
        self._num_outside = 0  # neither queued nor at the model
        self._looking: asyncio.Task[None] | None = None

    def _num_waiting(self) -> int:
        return super()._num_waiting() + self._num_outside

    def _enter(self, ticket: Ticket) -> None:
        self._num_outside += 1
        self._unseen.append(ticket)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        """Settle what the store knows, and queue the rest; what comes meanwhile is looked up next, all together."""
        while self._unseen:
            tickets, self._unseen = self._unseen, []
            answers: list[Any] = [None] * len(tickets)
            try:
                answers = await asyncio.to_thread(self._store.fetch_many, [ticket.key for ticket in tickets])
            except Exception:
                logger.exception("the shared store could not be asked")
            self._num_outside -= len(tickets)
            for ticket, advice in zip(tickets, answers, strict=True):
                if advice is None:
                    self._queue.append(ticket)
                else:
                    self._settle(ticket, known(advice))
            self.pump()
        self._looking = None

    async def _claim(self, call: Call) -> None:
        """Take from a call what is answered by now, and what another gateway is at."""
        claims = await self._claims.run([ticket.key for ticket in call.tickets])
        mine: list[Ticket] = []
        elsewhere: list[Ticket] = []
        for ticket, claim in zip(call.tickets, claims, strict=True):
            if claim is Claim.MINE:
                mine.append(ticket)
                continue
            ticket.call = None
            if isinstance(claim, Advice):
                self._settle(ticket, known(claim))
            else:
                elsewhere.append(ticket)
        self._store.hold([ticket.key for ticket in mine])
        self._in_flight -= len(call.tickets) - len(mine)
        call.tickets = mine
        if elsewhere:
            self._num_outside += len(elsewhere)
            asyncio.get_running_loop().call_later(LOOK_AGAIN_S, self._look_again, elsewhere)
        self.pump()

    def _look_again(self, tickets: list[Ticket]) -> None:
        self._num_outside -= len(tickets)
        for ticket in tickets:
            self._enter(ticket)

    def _ended(self, call: Call) -> None:
        self._store.let_go([ticket.key for ticket in call.tickets])
