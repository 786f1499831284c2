"""The circuit breaker against a model of it."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tutor_service.client.breaker import BreakerState, CircuitBreaker

LIMIT, OPEN_S, MAX_OPEN_S = 3, 5.0, 20.0


class BreakerMachine(RuleBasedStateMachine):
    """Calls are made whenever the breaker lets them; the world decides how they end, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = CircuitBreaker(LIMIT, OPEN_S, MAX_OPEN_S, clock=lambda: self.now)
        self.under_way = 0
        self.failed_in_a_row = 0
        self.opened_at: float | None = None
        self.probes = 0

    @rule(seconds=st.floats(0.1, 30))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def call(self) -> None:
        allowed = self.breaker.allow()
        assert allowed == (self.breaker.state is BreakerState.CLOSED)
        self.under_way += allowed

    @rule()
    def probe(self) -> None:
        allowed = self.breaker.allow_probe()
        assert allowed == (self.breaker.state is BreakerState.HALF_OPEN and self.probes == 0)
        self.probes += allowed
        self.under_way += allowed

    @precondition(lambda self: self.under_way)
    @rule()
    def answered(self) -> None:
        self.under_way -= 1
        self.breaker.succeeded()
        self.failed_in_a_row, self.opened_at, self.probes = 0, None, 0
        assert self.breaker.state is BreakerState.CLOSED

    @precondition(lambda self: self.under_way)
    @rule()
    def fails(self) -> None:
        self.under_way -= 1
        state = self.breaker.state
        self.breaker.failed()
        if state is BreakerState.OPEN:
            return
        self.failed_in_a_row += 1
        if state is BreakerState.HALF_OPEN or self.failed_in_a_row >= LIMIT:
            assert self.breaker.state is BreakerState.OPEN
            self.opened_at, self.probes = self.now, 0

    @invariant()
    def open_for_no_longer_than_it_may(self) -> None:
        if self.opened_at is None:
            assert self.breaker.state is BreakerState.CLOSED
        elif self.now < self.opened_at + OPEN_S:
            assert self.breaker.state is BreakerState.OPEN
        elif self.now >= self.opened_at + MAX_OPEN_S:
            assert self.breaker.state is BreakerState.HALF_OPEN


TestBreaker = BreakerMachine.TestCase
TestBreaker.settings = settings(max_examples=60, stateful_step_count=30)


def test_each_failed_probe_doubles_the_wait() -> None:
    now = [0.0]
    breaker = CircuitBreaker(1, OPEN_S, MAX_OPEN_S, clock=lambda: now[0])
    breaker.allow()
    breaker.failed()
    for wait_s in (5.0, 10.0, 20.0, 20.0):
        assert breaker.patience_s == wait_s
        now[0] += wait_s - 0.5
        assert not breaker.allow_probe()
        now[0] += 0.5
        assert breaker.allow_probe() and not breaker.allow_probe() and not breaker.allow()
        breaker.failed()
    now[0] += MAX_OPEN_S
    assert breaker.allow_probe()
    breaker.succeeded()
    breaker.failed()
    now[0] += OPEN_S
    assert breaker.state is BreakerState.HALF_OPEN, "a success forgets how long it had been open"


def test_impossible_settings_are_refused() -> None:
    for wrong in ({"failures": 0}, {"open_s": 0.0}, {"open_s": 9.0, "max_open_s": 3.0}):
        with pytest.raises(ValueError, match="breaker"):
            CircuitBreaker(**wrong)
