"""Ties vLLM's engine process to the replica that started it. Knows vLLM's executors and nothing of tutors.

The engine core is a spawned process of its own; when its replica is killed with signal 9 nothing ends it, and it keeps
its memory and its GPU. The kernel can: a process may ask to be killed when its parent dies. vLLM unpickles the executor
class in the engine process before anything else of ours runs there, so that is where we ask.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal

from vllm.platforms import current_platform
from vllm.v1.executor import Executor
from vllm.v1.executor.multiproc_executor import MultiprocExecutor
from vllm.v1.executor.uniproc_executor import UniProcExecutor

_PR_SET_PDEATHSIG = 1


class GuardedUniProcExecutor(UniProcExecutor):
    """One device, model in the engine process."""


class GuardedMultiprocExecutor(MultiprocExecutor):
    """Several devices; vLLM's own pipes end the worker processes with the engine process."""


def guarded(executor: type[Executor], world_size: int) -> type[Executor]:
    """The executor class that ties the engine process to its parent; others than vLLM's two local ones are left as is.

    On a CPU vLLM gives even a single worker a process of its own, to set its threads there. Ours are set by the
    environment of the engine process, so the worker can live in it: less memory, a quicker start, one hop less.
    """
    if executor is UniProcExecutor or (executor is MultiprocExecutor and world_size == 1 and current_platform.is_cpu()):
        return GuardedUniProcExecutor
    return GuardedMultiprocExecutor if executor is MultiprocExecutor else executor


def die_with_parent() -> None:
    """Asks the kernel to kill this spawned process when its parent dies; does nothing elsewhere."""
    parent = multiprocessing.parent_process()
    if parent is None or not hasattr(signal, "SIGKILL"):
        return
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):  # not Linux
        return
    if os.getppid() != parent.pid:  # it died before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)


die_with_parent()
