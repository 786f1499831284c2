"""Reach a tutor by Ray Serve handles, from any process of its Ray cluster. The only client code that knows Ray."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from tutor_service.client.backend import BackendError, service_share_s
from tutor_service.client.breaker import CircuitBreaker
from tutor_service.schema import Advice, AdviceError, AdviceRequest
from tutor_service.sharding import deployment_name, split

logger = logging.getLogger(__name__)

COUNT_EVERY_S = 30.0
"""Seconds after which a client asks anew how many gateways there are; a stale number costs time and no answer."""

_COUNT_S = 10.0
"""Seconds that it waits for the number, beside its callers."""

_LOOK_S = 2.0
"""Seconds without an answer after which it looks whether a gateway is still there."""

_LONGEST_OPEN_S = 30.0
"""Longest pause between two probes of a gateway."""

_LEAST_S = 0.01
"""Seconds to fetch an answer that has come already."""


class _Gateway(NamedTuple):
    """One of several gateways of a tutor, and whether to call it."""

    number: int
    handle: Any
    breaker: CircuitBreaker


class _Part(NamedTuple):
    """The questions of a list that one gateway answers."""

    gateway: _Gateway
    places: list[int]
    requests: list[AdviceRequest]


class ServeHandleBackend:
    """Reach one tutor's gateways. Handles are made at the first call and never pickled.

    Where a tutor has several gateways, a list is divided among them and they are asked at the same time. One that fails
    or hangs costs its own questions alone, and is left alone for a while by a breaker of its own.

    Args:
        app_name: Name of the Serve application.
    """

    def __init__(self, app_name: str) -> None:
        self.app_name = app_name
        self._gateways: list[_Gateway] = []
        self._breakers: dict[int, CircuitBreaker] = {}
        self._counted_at = 0.0
        self._counting = threading.Lock()

    def advise(self, requests: Sequence[AdviceRequest], timeout_s: float) -> list[Advice | AdviceError]:
        """Call the gateways' ``advise``: see ``Backend``."""
        ends = time.monotonic() + timeout_s
        gateways = self._connected(timeout_s)
        if len(gateways) == 1:
            return self._ask_the_only_one(gateways[0], requests, max(_LEAST_S, ends - time.monotonic()))
        return self._ask_several(gateways, requests, max(_LEAST_S, ends - time.monotonic()))

    def _ask_the_only_one(
        self, gateway: _Gateway, requests: Sequence[AdviceRequest], timeout_s: float
    ) -> list[Advice | AdviceError]:
        response = None
        try:
            response = gateway.handle.advise.remote(list(requests), service_share_s(timeout_s))
            return list(response.result(timeout_s=timeout_s))
        except TimeoutError:
            if response is not None:
                response.cancel()
            raise BackendError(f"'{self.app_name}' did not answer within {timeout_s:.1f} s", retry=True) from None
        except Exception as error:
            # Whatever a dead replica, a restarting controller or a full queue raises: Serve itself retries none of it.
            self._gateways = []
            raise BackendError(f"'{self.app_name}' failed: {type(error).__name__}: {error}", retry=True) from error

    def _ask_several(
        self, gateways: list[_Gateway], requests: Sequence[AdviceRequest], timeout_s: float
    ) -> list[Advice | AdviceError]:
        share_s = service_share_s(timeout_s)
        ends = time.monotonic() + (share_s + timeout_s) / 2  # so that what came can be handed back in time
        answers: list[Any] = [None] * len(requests)
        calls: list[tuple[_Part, Any]] = []
        for number, places in split(requests, len(gateways)).items():
            part = _Part(gateways[number], places, [requests[place] for place in places])
            calls.append((part, self._begin(part, share_s)))
        has_answered = False
        for part, response in calls:
            found = response if isinstance(response, AdviceError) else self._end(part, response, ends, len(gateways))
            if isinstance(found, AdviceError):
                found = [found] * len(part.places)
            else:
                has_answered = True
            for place, answer in zip(part.places, found, strict=True):
                answers[place] = answer
        if not has_answered:
            raise BackendError(next(answer.reason for answer in answers), retry=True)
        return answers

    def _begin(self, part: _Part, share_s: float) -> Any:
        """Call a gateway; return the response, or why it is not called."""
        gateway = part.gateway
        if not gateway.breaker.allow():
            if gateway.breaker.allow_probe():
                arguments = (part, gateway.breaker.patience_s)
                threading.Thread(target=self._probe, args=arguments, name="gateway-probe", daemon=True).start()
            return AdviceError(f"gateway {gateway.number} of '{self.app_name}' is left alone for a while", retry=True)
        try:
            return gateway.handle.advise.remote(part.requests, share_s)
        except Exception as error:
            return self._failed(gateway, error)

    def _end(self, part: _Part, response: Any, ends: float, count: int) -> list[Advice | AdviceError] | AdviceError:
        """Return what a gateway that was called answers, or why it does not."""
        while True:
            remaining_s = ends - time.monotonic()
            try:
                answers = list(response.result(timeout_s=max(_LEAST_S, min(remaining_s, _LOOK_S))))
            except TimeoutError:
                is_late = remaining_s <= _LOOK_S
                if not is_late:
                    self._count_soon()
                    if len(self._gateways) == count:
                        continue
                response.cancel()
                if is_late:
                    part.gateway.breaker.failed(hung=True)
                what = "did not answer in time" if is_late else "is gone: there is another number of them"
                return AdviceError(f"gateway {part.gateway.number} of '{self.app_name}' {what}", retry=True)
            except Exception as error:
                return self._failed(part.gateway, error)
            part.gateway.breaker.succeeded()
            return answers

    def _probe(self, part: _Part, patience_s: float) -> None:
        """Ask beside the caller, who finds the answers the next time."""
        response = None
        try:
            response = part.gateway.handle.advise.remote(part.requests, service_share_s(patience_s))
            response.result(timeout_s=patience_s)
            part.gateway.breaker.succeeded()
        except Exception:
            if response is not None:
                response.cancel()
            part.gateway.breaker.failed()
            self._count_soon()

    def _failed(self, gateway: _Gateway, error: Exception) -> AdviceError:
        gateway.breaker.failed()
        self._count_soon()
        reason = f"gateway {gateway.number} of '{self.app_name}' failed: {type(error).__name__}: {error}"
        return AdviceError(reason.splitlines()[0], retry=True)

    def _connected(self, timeout_s: float) -> list[_Gateway]:
        """Return the tutor's gateways.

        Raises:
            BackendError: There is no such application here, or its first gateway does not say how many there are.
        """
        gateways = self._gateways
        if not gateways:
            try:
                gateways = self._count(timeout_s)
            except BackendError:
                raise
            except TimeoutError:
                raise BackendError(f"'{self.app_name}' did not answer within {timeout_s:.1f} s", retry=True) from None
            except Exception as error:
                reason = f"'{self.app_name}' failed: {type(error).__name__}: {error}"
                raise BackendError(reason, retry=True) from error
        elif time.monotonic() - self._counted_at > COUNT_EVERY_S:
            self._count_soon()
        return gateways

    def _count(self, timeout_s: float) -> list[_Gateway]:
        """Ask how many gateways there are, and make handles of them."""
        self._gateways = [
            _Gateway(number, handle, self._breakers.setdefault(number, CircuitBreaker(max_open_s=_LONGEST_OPEN_S)))
            for number, handle in enumerate(gateway_handles(self.app_name, timeout_s))
        ]
        self._counted_at = time.monotonic()
        return self._gateways

    def _count_soon(self) -> None:
        """Count the gateways beside the callers, unless that is under way or has just been done."""
        if time.monotonic() - self._counted_at < _LOOK_S or not self._counting.acquire(blocking=False):
            return

        def count() -> None:
            try:
                self._count(_COUNT_S)
            except Exception as error:  # its first gateway is being replaced; what is known stands
                logger.debug("'%s' does not say how many gateways it has: %r", self.app_name, error)
            finally:
                self._counting.release()

        threading.Thread(target=count, name="gateway-count", daemon=True).start()

    def __getstate__(self) -> dict[str, Any]:
        return {"app_name": self.app_name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        ServeHandleBackend.__init__(self, state["app_name"])

    def __repr__(self) -> str:
        return f"ServeHandleBackend({self.app_name!r})"


def gateway_handles(app_name: str, timeout_s: float) -> list[Any]:
    """Return handles of an application's gateways, by their numbers, as the first one counts them.

    Raises:
        BackendError: This process is not connected to Ray.
        TimeoutError: The first gateway does not say how many there are.
    """
    import ray
    from ray import serve

    if not ray.is_initialized():  # Serve would start a new, empty Ray here
        raise BackendError("this process is not connected to Ray", retry=False)
    first: Any = serve.get_app_handle(app_name)
    count: int = first.num_gateways.remote().result(timeout_s=timeout_s)
    return [first, *(serve.get_deployment_handle(deployment_name(number), app_name) for number in range(1, count))]
