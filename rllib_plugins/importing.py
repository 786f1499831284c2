"""Import what a user names by ``module:object``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType


def import_from_here(module: str) -> ModuleType:
    """Import a module, which may also lie in the working directory.

    Raises:
        ImportError: There is none, or it imports another that is not there.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    return importlib.import_module(module)
