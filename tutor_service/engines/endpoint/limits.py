"""Hold an endpoint to a pace and to a budget. Pure except for a clock that is passed in; sends nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tutor_service.config import BudgetConfig

_MINUTE_S = 60.0
_MILLION = 1e6


class Pace:
    """Spread requests and tokens evenly over the minute, and pause while the endpoint asks for it.

    The generic cell rate algorithm (ITU-T I.371): each request moves the time of the next one on.

    Args:
        requests_per_minute: Most requests; None: any number.
        tokens_per_minute: Most tokens, prompt and answer; None: any number.
        clock: Seconds that never run backwards.
    """

    def __init__(
        self,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._request_s = _MINUTE_S / requests_per_minute if requests_per_minute else 0.0
        self._token_s = _MINUTE_S / tokens_per_minute if tokens_per_minute else 0.0
        self._clock = clock
        self._next_request = -float("inf")
        self._next_token = -float("inf")
        self._held_until = -float("inf")

    def book(self, tokens: int) -> float:
        """Take the next free place for a request of so many tokens. Returns the seconds until then."""
        now = self._clock()
        at = max(now, self._next_request, self._next_token)
        self._next_request = at + self._request_s
        self._next_token = max(self._next_token, at) + tokens * self._token_s
        return at - now

    def settle(self, booked: int, used: int) -> None:
        """Put right how many tokens a booked request took."""
        self._next_token += (used - booked) * self._token_s

    def hold(self, seconds: float) -> None:
        """Send nothing for so long."""
        self._held_until = max(self._held_until, self._clock() + seconds)

    @property
    def held_s(self) -> float:
        """Return the seconds for which nothing may be sent."""
        return max(0.0, self._held_until - self._clock())


@dataclass(slots=True)
class Spent:
    """Count what an endpoint was asked for so far.

    Attributes:
        requests: Requests sent, refused ones and those of the start included.
        prompt_tokens: Tokens of their prompts.
        completion_tokens: Tokens of their answers, thoughts included.
        estimated: Requests whose tokens the endpoint did not state: what they may have taken at most is counted.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: int = 0


@dataclass(frozen=True, slots=True)
class Booking:
    """Hold what one request may take at most, set aside until its reply is there.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        completion_tokens: Tokens of the answer.
    """

    prompt_tokens: int
    completion_tokens: int

    @property
    def tokens(self) -> int:
        """Add both up."""
        return self.prompt_tokens + self.completion_tokens


class Budget:
    """Count what is spent, and say when no further request may be sent.

    A request is let through where what it may take at most is still left, beside what is under way.

    Args:
        config: The limits; a limit that is None does not bind.
    """

    def __init__(self, config: BudgetConfig) -> None:
        self._config = config
        self._open: list[Booking] = []
        self.spent = Spent()

    @property
    def cost(self) -> float:
        """Return the money spent, in the unit of the prices; 0 without prices."""
        return self._cost(self.spent.prompt_tokens, self.spent.completion_tokens)

    def exceeded_by(self, booking: Booking) -> str | None:
        """Return the limit that one more request could exceed, as ``budget.FIELD = value``; None: it may be sent."""
        limits = self._config
        prompt = self.spent.prompt_tokens + sum(item.prompt_tokens for item in (*self._open, booking))
        completion = self.spent.completion_tokens + sum(item.completion_tokens for item in (*self._open, booking))
        if limits.max_requests is not None and self.spent.requests + len(self._open) + 1 > limits.max_requests:
            return f"budget.max_requests = {limits.max_requests}"
        if limits.max_tokens is not None and prompt + completion > limits.max_tokens:
            return f"budget.max_tokens = {limits.max_tokens}"
        if limits.max_cost is not None and self._cost(prompt, completion) > limits.max_cost:
            return f"budget.max_cost = {limits.max_cost:g}"
        return None

    def open(self, booking: Booking) -> None:
        """Set aside what a request may take."""
        self._open.append(booking)

    def close(self, booking: Booking, prompt_tokens: int, completion_tokens: int, *, stated: bool) -> None:
        """Count what the request took in place of what was set aside."""
        self._open.remove(booking)
        self.spent.requests += 1
        self.spent.prompt_tokens += prompt_tokens
        self.spent.completion_tokens += completion_tokens
        self.spent.estimated += not stated

    def words(self) -> str:
        """Say what was spent, of what there is to spend, on one line."""
        limits, spent = self._config, self.spent
        tokens = spent.prompt_tokens + spent.completion_tokens
        parts = [
            f"{spent.requests:,}{_of(limits.max_requests, ',')} requests",
            f"{tokens:,}{_of(limits.max_tokens, ',')} tokens",
        ]
        if limits.price_in or limits.price_out:
            parts.append(f"{self.cost:.4f}{_of(limits.max_cost, 'g')} cost")
        if spent.estimated:
            parts.append(f"tokens of {spent.estimated:,} requests estimated")
        return ", ".join(parts)

    def _cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self._config.price_in + completion_tokens * self._config.price_out) / _MILLION


def _of(limit: float | None, form: str) -> str:
    return "" if limit is None else f" of {limit:{form}}"
