"""Import what a user names by ``module:object``."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType


def import_from_here(module: str) -> ModuleType:
    """Import a module, which may also lie in the working directory.

    Raises:
        ModuleNotFoundError: There is none, or it imports another that is not there.
        ImportError: It is named by a path, or fails or ends the program while it is imported.
    """
    if not module or "/" in module or "\\" in module or module.startswith(".") or module.endswith(".py"):
        raise ImportError(
            f"'{module}' is no module: name it as Python imports it from the working directory, e.g. my_task:MyTask "
            "for my_task.py, folder.my_task:MyTask for folder/my_task.py."
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise
    except (Exception, SystemExit) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        if isinstance(error, SystemExit):
            what = "ends the program"
            remedy = " Put what is for a script alone under if __name__ == '__main__'."
        else:
            what, remedy = f"fails with {type(error).__name__}: {error}", ""
        place = "" if isinstance(error, SyntaxError) else f" (line {last.lineno} of {last.filename})"
        raise ImportError(f"module '{module}' {what} while it is imported{place}.{remedy}") from error
