"""Turn the signals that end a program into one orderly interrupt.

Python raises KeyboardInterrupt wherever the main thread happens to be. Within a module's import that may leave the
import lock taken for good; within a weak reference's callback it is swallowed. So none is raised during imports, and
one that had no effect is raised again, until cleaning up has begun.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_INTERRUPTED = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ENOUGH = 3
_RETRY_S = 0.05
_REPEAT_S = 1.0
_IMPORTLIB = "<frozen importlib._bootstrap>"


class _State:
    """What has arrived within the ``interruptible`` block that is open, if one is."""

    armed = False
    received = 0
    cleaning = False


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt at Ctrl-C, SIGTERM and SIGHUP, until cleaning up has begun.

    From then on (``cleaning_up``) signals are ignored, so that an impatient user does not cut short what leaves nothing
    behind, except the third of all, which ends the process at once. Does nothing outside of the main thread, where
    signals cannot be handled. Takes SIGALRM for itself meanwhile.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (*_SIGNALS, signal.SIGALRM)}
    _State.armed, _State.received, _State.cleaning = True, 0, False
    rearm()
    try:
        yield
    finally:
        _State.armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def rearm() -> None:
    """Take the signals back from a library that has put its own handlers in place, as ``ray.init`` does."""
    if _State.armed and threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            signal.signal(number, _received)
        signal.signal(signal.SIGALRM, _deliver)


def cleaning_up() -> None:
    """Have signals wait until everything is put away."""
    _State.cleaning = True


def cleaned_up() -> None:
    """Let signals interrupt again: everything is put away."""
    _State.received, _State.cleaning = 0, False


def _received(number: int, frame: FrameType | None) -> None:
    _State.received += 1
    if _State.cleaning and _State.received >= _ENOUGH:
        os._exit(EXIT_INTERRUPTED)
    _deliver(number, frame)


def _deliver(number: int, frame: FrameType | None) -> None:
    """Raise the interrupt, or come back a moment later where that would do harm."""
    if not _State.armed or _State.cleaning or not _State.received:
        return
    importing = _imports(frame)
    signal.setitimer(signal.ITIMER_REAL, _RETRY_S if importing else _REPEAT_S)
    if not importing:
        raise KeyboardInterrupt


def _imports(frame: FrameType | None) -> bool:
    """Say whether a module is being imported in this stack."""
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTLIB:
            return True
        frame = frame.f_back
    return False
