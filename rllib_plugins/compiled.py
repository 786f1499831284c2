"""Compile the loops that run at every vector step or update, and keep their machine code."""

from __future__ import annotations

import hashlib
import inspect
import os
import stat
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numba import config, njit
from numba.core.caching import UserProvidedCacheLocator
from numba.core.dispatcher import Dispatcher

from tutor_service.paths import home

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compile a function of arrays and numbers when it is first called; division by zero gives ∞ or NaN, as in numpy.

    The machine code is kept in ``cache_folder``, so that only the first process ever pays for it, wherever its copy of
    the sources lies. Where no folder can be written, each process compiles for itself.
    """
    return _compiled(function, into_callers=False)


def inlined(function: Function) -> Function:
    """Compile a function as `compiled` does, and into each compiled function that calls it.

    It is for parts of an inner loop, where a call's own cost shows.
    """
    return _compiled(function, into_callers=True)


def _compiled(function: Function, into_callers: bool) -> Function:
    given, folder = (config.CACHE_DIR, config.CACHE_LOCATOR_CLASSES), cache_folder(_digest(function))
    if folder is None:
        return njit(error_model="numpy", forceinline=into_callers)(function)
    try:  # both are read when a function is decorated
        config.CACHE_DIR, config.CACHE_LOCATOR_CLASSES = str(folder), f"{__name__}.{_ByDigest.__name__}"
        return njit(cache=True, error_model="numpy", forceinline=into_callers)(function)
    finally:
        config.CACHE_DIR, config.CACHE_LOCATOR_CLASSES = given


class _ByDigest(UserProvidedCacheLocator):
    """Find code in the folder that is named by what it was compiled from; numba's own asks where that lies, and when
    it was written, too."""

    def __init__(self, py_func: Callable[..., object], py_file: str) -> None:
        super().__init__(py_func, py_file)
        self._cache_path = config.CACHE_DIR

    def get_source_stamp(self) -> str:
        return ""


def cache_folder(digest: str) -> Path | None:
    """Return a folder for machine code that can be written, or None.

    It is in ``$NUMBA_CACHE_DIR``, else in ``$LLM_TUTORS_HOME`` or the user's cache folder; if that cannot be written,
    in a folder of this user's own among the temporary files.

    Args:
        digest: Of what the code was compiled from.
    """
    own = Path(tempfile.gettempdir()) / f"llm-tutors-{os.getuid()}"
    for base in (Path(config.CACHE_DIR) if config.CACHE_DIR else home() / "compiled", own):
        folder = base / digest
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if base == own:
                base.chmod(0o700)
                found = base.lstat()
                if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                    continue  # code is run that is found there: it must be this user's
            if os.access(folder, os.W_OK):
                return folder
        except OSError:
            continue
    return None


def _digest(function: Callable[..., object]) -> str:
    """Return a digest of what a function is compiled from: its source, and what it names and is compiled into it.

    Machine code refers to functions by their modules' names, so these belong to it.
    """
    digest = hashlib.sha256()
    for ingredient in sorted(_ingredients(function)):
        digest.update(ingredient)
    return digest.hexdigest()[:16]


def _ingredients(function: Any) -> set[bytes]:
    found = {function.__module__.encode() + _digest_of_file(function.__code__.co_filename)}
    for name in function.__code__.co_names:
        used = function.__globals__.get(name)
        if isinstance(used, Dispatcher) and used.py_func is not function:
            found |= _ingredients(used.py_func)
        elif isinstance(used, int | float | np.generic):
            found.add(f"{name}={used!r}".encode())
        elif isinstance(used, type) and hasattr(used, "_fields"):
            found.add(_digest_of_file(inspect.getfile(used)))
    return found


@lru_cache
def _digest_of_file(path: str) -> bytes:
    return hashlib.sha256(Path(path).read_bytes()).digest()
