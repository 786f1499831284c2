"""Machine code for the few loops that run at every vector step or update."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compile a function of arrays and numbers when it is first called.

    The machine code is kept beside the module or in the user's cache folder, so that only the first process ever pays
    for it; where neither can be written, each process compiles for itself.
    """
    try:
        return njit(cache=True)(function)
    except RuntimeError:
        return njit(function)
