"""Turns the signals that end a program into one orderly interrupt. Knows nothing of sweeps."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

EXIT_INTERRUPTED = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ENOUGH = 3


class _State:
    """What has arrived within the ``interruptible`` block that is open, if one is."""

    armed = False
    received = 0
    cleaning = False


@contextmanager
def interruptible() -> Iterator[None]:
    """Raises KeyboardInterrupt at Ctrl-C, SIGTERM and SIGHUP, until cleaning up has begun.

    From then on (``cleaning_up``) signals are ignored, so that an impatient user does not cut short what leaves nothing
    behind, except the third of all, which ends the process at once. Does nothing outside of the main thread, where
    signals cannot be handled.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    _State.armed, _State.received, _State.cleaning = True, 0, False
    rearm()
    try:
        yield
    finally:
        _State.armed = False
        for number, handler in before.items():
            signal.signal(number, handler)


def rearm() -> None:
    """Takes the signals back from a library that has put its own handlers in place, as ``ray.init`` does."""
    if _State.armed and threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            signal.signal(number, _handle)


def cleaning_up() -> None:
    """From here on signals wait until everything is put away."""
    _State.cleaning = True


def cleaned_up() -> None:
    """Everything is put away: signals interrupt again what comes after."""
    _State.cleaning, _State.received = False, 0


def raise_if_interrupted() -> None:
    """Raises the KeyboardInterrupt of a signal that a library has swallowed; to be called between steps."""
    if _State.armed and _State.received and not _State.cleaning:
        raise KeyboardInterrupt


def _handle(number: int, frame: Any) -> None:
    _State.received += 1
    if _State.cleaning:
        if _State.received >= _ENOUGH:
            os._exit(EXIT_INTERRUPTED)
        return
    raise KeyboardInterrupt
