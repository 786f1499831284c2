"""Turns the signals that end a program into one orderly interrupt. Knows nothing of sweeps."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

EXIT_INTERRUPTED = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ENOUGH = 3
_AGAIN_S = 0.05

_handler: Callable[[int, Any], None] | None = None


@contextmanager
def interruptible() -> Iterator[None]:
    """Raises KeyboardInterrupt once, at the first Ctrl-C, SIGTERM or SIGHUP; a third one ends the process at once.

    The second is ignored, so that an impatient user does not cut short what cleans up. A first one that comes while a
    module is being imported waits for the end of that import: raised there, it would leave import locks held, and the
    next import would wait for ever. Does nothing outside of the main thread, where signals cannot be handled.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    global _handler
    count = 0

    def handle(number: int, frame: Any) -> None:
        nonlocal count
        count += 1
        if count == 1:
            interrupt(number, frame)
        if count >= _ENOUGH:
            os._exit(EXIT_INTERRUPTED)

    def interrupt(number: int, frame: Any) -> None:
        if _is_importing(frame):
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
        else:
            raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (*_SIGNALS, signal.SIGALRM)}
    signal.signal(signal.SIGALRM, interrupt)
    _handler = handle
    rearm()
    try:
        yield
    finally:
        _handler = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def rearm() -> None:
    """Takes the signals back from a library that has put its own handlers in place, as ``ray.init`` does."""
    if _handler is not None and threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            signal.signal(number, _handler)


def _is_importing(frame: FrameType | None) -> bool:
    """Whether Python's import system is at work in a frame or in one that called it."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
