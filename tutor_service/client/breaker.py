"""Decide when to leave alone a tutor that does not answer. Pure except for its clock; knows no transport.

The circuit breaker of M. Nygard, Release It! (2007): closed while calls succeed, open for a while after several failed
in a row, then half-open: one probe is made, and its outcome closes the circuit or opens it for twice as long.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import Enum


class BreakerState(Enum):
    """Name what the breaker does with the next call."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitBreaker:
    """Count failures and say whether to call at all. Safe to use from several threads.

    Every call that ``allow`` or ``allow_probe`` lets through must be followed by ``succeeded`` or ``failed``.

    Args:
        failures: Failed calls in a row that open the circuit, at least 1.
        open_s: Seconds that it first stays open.
        max_open_s: Upper bound of that time, which doubles each time a probe fails.
        clock: Seconds that never run backwards.
    """

    def __init__(
        self,
        failures: int = 3,
        open_s: float = 5.0,
        max_open_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if failures < 1 or not 0 < open_s <= max_open_s:
            raise ValueError(
                f"a breaker needs failures >= 1 and 0 < open_s <= max_open_s, got {failures}, {open_s}, {max_open_s}"
            )
        self._limit = failures
        self._first_open_s = open_s
        self._max_open_s = max_open_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failed_in_a_row = 0
        self._open_s = open_s
        self._open_until: float | None = None
        self._probing = False

    @property
    def state(self) -> BreakerState:
        """Return closed, open, or half-open once the wait is over."""
        with self._lock:
            return self._state()

    def allow(self) -> bool:
        """Return whether a call may be made now: only while closed."""
        with self._lock:
            return self._state() is BreakerState.CLOSED

    def allow_probe(self) -> bool:
        """Return whether to probe now: while half-open, one caller at a time is told yes."""
        with self._lock:
            if self._state() is not BreakerState.HALF_OPEN or self._probing:
                return False
            self._probing = True
            return True

    def succeeded(self) -> None:
        """Note that a call was answered: the circuit closes."""
        with self._lock:
            self._failed_in_a_row = 0
            self._open_until = None
            self._open_s = self._first_open_s
            self._probing = False

    @property
    def patience_s(self) -> float:
        """Seconds that a probe may hang: as long as the circuit was open, so that a slow tutor gets twice as many each
        time and one that has lost the call is soon asked again."""
        with self._lock:
            return self._open_s

    def failed(self, hung: bool = False) -> None:
        """Note that a call was not answered.

        Args:
            hung: It took all the time that it had, as several such calls would: the circuit opens at once.
        """
        with self._lock:
            state = self._state()
            if state is BreakerState.OPEN:  # a call that began before the circuit opened
                return
            if state is BreakerState.HALF_OPEN:
                self._open_s = min(2 * self._open_s, self._max_open_s)
            self._failed_in_a_row += self._limit if hung else 1
            if state is BreakerState.HALF_OPEN or self._failed_in_a_row >= self._limit:
                self._open_until = self._clock() + self._open_s
                self._probing = False

    def _state(self) -> BreakerState:
        if self._open_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self._clock() < self._open_until else BreakerState.HALF_OPEN
