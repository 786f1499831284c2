"""Have each question answered by the gateway that owns it. Reaches the others by Serve; owns no answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from prometheus_client import Metric
from ray import serve

from tutor_service.client.backend import service_share_s
from tutor_service.gateway.metrics import LATE, GatewayMetrics
from tutor_service.schema import Advice, AdviceError, AdviceRequest
from tutor_service.sharding import deployment_name, gateway_of, split
from tutor_service.validation import MAX_LIST

logger = logging.getLogger("ray.serve")

Answer = Callable[[list[AdviceRequest], float | None], Awaitable[list[Advice | AdviceError]]]

_FIGURES_S = 3.0
"""Seconds that a scrape waits for another gateway's figures."""


class Place(NamedTuple):
    """Say which of a tutor's gateways one is.

    Attributes:
        application: Name of its Serve application.
        number: Its own, from 0.
        num_gateways: How many there are.
    """

    application: str
    number: int
    num_gateways: int


class Peers:
    """Divide lists of questions among the gateways of one tutor.

    What is handed on is answered by whoever gets it: where gateways of two configurations meet, no question goes round.

    Args:
        place: Which one this is.
        answer: Answers what is its own.
        metrics: Counts what another gateway should have answered and did not.
        handle: Returns a handle of a deployment of an application.
    """

    def __init__(
        self,
        place: Place,
        answer: Answer,
        metrics: GatewayMetrics,
        handle: Callable[[str, str], Any] = serve.get_deployment_handle,
    ) -> None:
        self._place = place
        self._answer = answer
        self._metrics = metrics
        self._make_handle = handle
        self._handles: dict[int, Any] = {}

    async def advise(self, requests: list[AdviceRequest], within_s: float | None) -> list[Advice | AdviceError]:
        """Return one answer per request, in order: see ``Gateway.advise``."""
        if self._place.num_gateways == 1 or len(requests) > MAX_LIST:
            return await self._answer(requests, within_s)
        parts = split(requests, self._place.num_gateways)
        if not parts.keys() - {self._place.number}:
            return await self._answer(requests, within_s)
        answers: list[Any] = [None] * len(requests)

        async def fill(number: int, places: list[int]) -> None:
            asked = [requests[place] for place in places]
            own = number == self._place.number
            found = await (self._answer(asked, within_s) if own else self._hand_on(number, asked, within_s))
            for place, answer in zip(places, found, strict=True):
                answers[place] = answer

        await asyncio.gather(*(fill(number, places) for number, places in parts.items()))
        return answers

    def owner(self, request: AdviceRequest) -> int | None:
        """Return the number of the other gateway that a question belongs to; None: it is this one's."""
        number = gateway_of(request.state, self._place.num_gateways)
        return None if number == self._place.number else number

    async def call(self, number: int, method: str, *arguments: object) -> Any:
        """Call a method of another gateway.

        Raises:
            Exception: Whatever Serve raises of a gateway that is gone.
        """
        response = getattr(self._handle(number), method).remote(*arguments)
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            raise

    async def families(self) -> list[list[Metric]]:
        """Return the figures of all gateways, without those that do not answer now."""
        numbers = [number for number in range(self._place.num_gateways) if number != self._place.number]
        asked = (asyncio.wait_for(self.call(number, "families"), _FIGURES_S) for number in numbers)
        found = await asyncio.gather(*asked, return_exceptions=True)
        return [self._metrics.families(), *(each for each in found if not isinstance(each, BaseException))]

    async def _hand_on(
        self, number: int, requests: list[AdviceRequest], within_s: float | None
    ) -> list[Advice | AdviceError]:
        """Return another gateway's answers: errors to try again where it is gone, or does not answer in time."""
        started = time.perf_counter()
        theirs_s = None if within_s is None else service_share_s(within_s)
        try:
            answers: list[Advice | AdviceError] = await asyncio.wait_for(
                self.call(number, "advise", requests, theirs_s, True), within_s
            )
            return answers
        except TimeoutError:
            error = AdviceError(LATE, retry=True)
        except Exception as failure:
            logger.warning("gateway %d of %d failed: %r", number, self._place.num_gateways, failure)
            error = AdviceError(f"tutor: gateway {number} failed ({type(failure).__name__})", retry=True)
        errors = [error] * len(requests)
        self._metrics.called(errors, time.perf_counter() - started)
        return list(errors)

    def _handle(self, number: int) -> Any:
        if number not in self._handles:
            self._handles[number] = self._make_handle(deployment_name(number), self._place.application)
        return self._handles[number]


class FirstGatewaysNotes:
    """Put the notes that the first gateway has the tutor write, once, behind the rules; see ``Briefing``.

    Args:
        peers: Reach that gateway.
    """

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._known: dict[str, str] = {}

    async def brief(self, rules: str) -> str | AdviceError:
        """Return the rules with the notes behind them, or why there are none."""
        if rules in self._known:
            return self._known[rules]
        try:
            briefed: str | AdviceError = await self._peers.call(0, "brief", rules)
        except Exception as error:
            return AdviceError(f"briefing: the first gateway failed ({type(error).__name__})", retry=True)
        if isinstance(briefed, str):
            self._known[rules] = briefed
        return briefed
