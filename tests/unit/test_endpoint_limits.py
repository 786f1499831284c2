"""Pace, budget and pauses of an endpoint, by a clock of the test's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutor_service.config import BudgetConfig, TutorConfig
from tutor_service.engines.endpoint.limits import Booking, Budget, Pace
from tutor_service.engines.endpoint.transport import retry_after


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@given(rate=st.integers(1, 600), arrivals=st.lists(st.floats(0, 5), min_size=1, max_size=80))
def test_no_minute_holds_more_requests_than_allowed(rate, arrivals):
    clock, sent = Clock(), []
    pace = Pace(rate, None, clock)
    for pause in arrivals:
        clock.now += pause
        sent.append(clock.now + pace.book(0))
    assert sent == sorted(sent)
    for index, start in enumerate(sent):
        assert sum(start <= at < start + 60 - 1e-6 for at in sent[index:]) <= rate


@given(
    rate=st.integers(60, 6000),
    requests=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=60),
)
def test_tokens_are_spread_by_what_they_were_in_the_end(rate, requests):
    clock = Clock()
    pace = Pace(None, rate, clock)
    total = 0
    for booked, used in requests:
        clock.now += pace.book(booked)
        pace.settle(booked, used)
        assert total <= rate * clock.now / 60 + 1e-6, "what went before has been waited for"
        total += used


def test_a_pause_holds_everything():
    clock = Clock()
    pace = Pace(None, None, clock)
    assert pace.book(10) == 0 and pace.held_s == 0
    pace.hold(5)
    pace.hold(2)
    assert pace.held_s == 5
    clock.now = 5
    assert pace.held_s == 0


@given(
    limits=st.fixed_dictionaries({}, optional={"max_requests": st.integers(0, 8), "max_tokens": st.integers(0, 500)}),
    requests=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=20),
)
def test_a_budget_is_never_exceeded(limits, requests):
    budget = Budget(BudgetConfig(**limits))
    for prompt, completion in requests:
        booking = Booking(prompt, completion)
        if budget.exceeded_by(booking) is None:
            budget.open(booking)
            budget.close(booking, prompt, completion // 2, stated=True)
    spent = budget.spent
    assert spent.requests <= limits.get("max_requests", 100)
    assert spent.prompt_tokens + spent.completion_tokens <= limits.get("max_tokens", 10_000)


def test_what_is_under_way_counts():
    budget = Budget(BudgetConfig(max_requests=2, max_cost=1.0, price_in=1e6))
    one, two = Booking(0, 0), Booking(1, 0)
    budget.open(one)
    budget.open(two)
    assert budget.exceeded_by(Booking(0, 0)) == "budget.max_requests = 2"
    budget.close(two, 1, 0, stated=False)
    assert budget.exceeded_by(Booking(0, 0)) == "budget.max_requests = 2"
    assert budget.words() == "1 of 2 requests, 1 tokens, 1.0000 of 1 cost, tokens of 1 requests estimated"


@pytest.mark.parametrize(
    ("milliseconds", "value", "seconds"),
    [
        (None, "7", 7),
        ("1500", "2", 1.5),
        (None, "0.5", 0.5),
        (None, "Thu, 01 Jan 1970 00:01:40 GMT", 90),
        (None, "Thu, 01 Jan 1970 00:00:01 GMT", 0),
        (None, None, None),
        (None, "soon", None),
        ("x", "inf", None),
        (None, "-3", None),
    ],
)
def test_what_a_server_asks_to_wait(milliseconds, value, seconds):
    assert retry_after(milliseconds, value, now=10.0) == seconds


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"backend": "vllm", "concurrency": 3}, "concurrency is a field of backend openai"),
        ({"backend": "openai", "budget": {"max_cost": 3}}, "max_cost needs price_in and price_out"),
        (
            {"backend": "openai", "requests_per_minute": 3, "scaling": {"max_replicas": 2}},
            "set scaling.max_replicas to 1",
        ),
    ],
)
def test_limits_that_mean_nothing_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        TutorConfig(name="t", model="m", **fields)
