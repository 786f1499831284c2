"""Declare what a way to reach a tutor service must do.

Owns transport and its failures. A backend makes one attempt; it must not know retries, deadlines over several
attempts, or what was answered before: those are the client's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tutor_service.schema import Advice, AdviceError, AdviceRequest


class BackendError(Exception):
    """Report that a whole call brought nothing.

    Args:
        reason: What went wrong, for a person.
        retry: Whether the same call may succeed a moment later.
    """

    def __init__(self, reason: str, *, retry: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry = retry


def service_share_s(timeout_s: float) -> float:
    """Return the seconds after which the service is to answer with what it has, in time for its caller's timeout."""
    return max(timeout_s - 1.0, 0.8 * timeout_s)


class Backend(Protocol):
    """Reach one tutor. Cheap to make, to copy and to pickle: it connects at the first call."""

    def advise(self, requests: Sequence[AdviceRequest], timeout_s: float) -> list[Advice | AdviceError]:
        """Make one attempt at all ``requests``.

        Args:
            requests: Distinct, at least one.
            timeout_s: Seconds after which the attempt is to be given up. The service answers with what it has after
                ``service_share_s`` of them.

        Returns:
            An answer per request, in order.

        Raises:
            BackendError: The call as a whole failed.
        """
