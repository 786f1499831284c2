"""Stop waiting for a call when its time is up, whatever the call does. Knows nothing of what is called."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class StillBusy(Exception):
    """Report that too many earlier calls have not come back yet."""


class BoundedCalls:
    """Run calls in threads of their own, so that one that hangs costs its caller no more than the time allowed.

    No thread can be stopped from outside: one that hangs lives on until its call comes back, and their number is
    bounded. They do not keep the process from ending.

    Args:
        max_calls: Most calls that may be under way, the given-up ones included.
    """

    def __init__(self, max_calls: int = 8) -> None:
        self._free = threading.BoundedSemaphore(max_calls)

    def run(self, call: Callable[[], T], timeout_s: float) -> T:
        """Return what ``call`` returns, or raise what it raises.

        Raises:
            TimeoutError: It did not come back within ``timeout_s``; what it returns later is lost.
            StillBusy: Too many given-up calls still hang.
        """
        if not self._free.acquire(blocking=False):
            raise StillBusy
        done = threading.Event()
        results: list[T] = []
        errors: list[BaseException] = []

        def target() -> None:
            try:
                results.append(call())
            except BaseException as error:  # carried over to the caller
                errors.append(error)
            finally:
                self._free.release()
                done.set()

        try:
            threading.Thread(target=target, name="tutor-call", daemon=True).start()
        except RuntimeError:
            self._free.release()
            raise
        if not done.wait(timeout_s):
            raise TimeoutError
        if errors:
            raise errors[0]
        return results[0]
