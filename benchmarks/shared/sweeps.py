"""Run commands of ``tutor`` on a results folder, as a user would."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import FOLDER

CONSOLE = Path(sys.executable).with_name("tutor")


def run(folder: Path, *command: str) -> str:
    """Run a command of ``tutor`` on a results folder, and return what it printed; end this program where it fails."""
    whole = [str(CONSOLE), *command, "--results", str(folder)]
    done = subprocess.run(whole, cwd=FOLDER.parent, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{shlex.join(whole)} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def with_settings(settings: Sequence[str]) -> list[str]:
    """Return the words of a command line that change a preset's fields."""
    return [word for setting in settings for word in ("--set", setting)]
