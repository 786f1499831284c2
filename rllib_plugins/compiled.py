"""Machine code for the loops that run at every vector step or update, and where it is kept."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from numba import config, njit
from numba.core.dispatcher import Dispatcher

from tutor_service.paths import home

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compile a function of arrays and numbers when it is first called; division by zero gives ∞ or NaN, as in numpy.

    The machine code is kept in ``cache_folder``, so that only the first process ever pays for it. Where no folder can
    be written, each process compiles for itself.
    """
    given, folder = config.CACHE_DIR, cache_folder(_digest(function))
    if folder is None:
        return njit(error_model="numpy")(function)
    try:
        config.CACHE_DIR = str(folder)  # read when a function is decorated
        return njit(cache=True, error_model="numpy")(function)
    finally:
        config.CACHE_DIR = given


def cache_folder(digest: str) -> Path | None:
    """Return a folder for machine code that can be written, or None.

    It is in ``$NUMBA_CACHE_DIR``, else in ``$LLM_TUTORS_HOME`` or the user's cache folder; if that cannot be written,
    in a folder of this user's own among the temporary files.

    Args:
        digest: Of the sources that the code was compiled from.
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
    """Return a digest of the sources of a function and of the compiled ones that it calls.

    The compiler's own cache notices changes to the function's file only, and its code holds that of what it calls.
    """
    digest = hashlib.sha256()
    for source in sorted(_sources(function)):
        digest.update(_digest_of_file(source))
    return digest.hexdigest()[:16]


def _sources(function: Any) -> set[str]:
    files = {function.__code__.co_filename}
    for name in function.__code__.co_names:
        used = function.__globals__.get(name)
        if isinstance(used, Dispatcher) and used.py_func is not function:
            files |= _sources(used.py_func)
    return files


@lru_cache
def _digest_of_file(path: str) -> bytes:
    return hashlib.sha256(Path(path).read_bytes()).digest()
