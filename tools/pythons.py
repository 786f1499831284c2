"""Run the quick tier under every other Python that the project fits and that is installed here.

    .venv/bin/python -m tools.pythons      # or: make test-pythons

Each gets a virtual environment with the pinned packages, without vLLM, in a temporary folder. A version that is not
installed is named and left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tools import bootstrap

QUICK_TIER = ("-m", "pytest", "tests/unit", "-p", "no:schemathesis", "--numprocesses", "logical", "--maxprocesses", "4")


def candidates(name: str) -> Iterator[Path]:
    """Yield the programs of a name such as ``python3.12``: on the PATH, then what pyenv has, active or not."""
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for folder in (*folders, *sorted(pyenv.glob("versions/*/bin"))):
        if os.access(folder / name, os.X_OK):
            yield folder / name


def interpreter(version: tuple[int, int]) -> Path | None:
    """Return a program of that version which can make a virtual environment; None where there is none."""
    check = f"import ensurepip, sys, venv; sys.exit(sys.version_info[:2] != {version})"
    for path in candidates(f"python{bootstrap.dotted(version)}"):
        if subprocess.run([path, "-c", check], capture_output=True).returncode == 0:
            return path
    return None


def run_quick_tier(path: Path) -> int:
    """Install the pinned packages for an interpreter in a new environment; return the status of the quick tier."""
    with tempfile.TemporaryDirectory(prefix="llm-tutors-python-") as folder:
        subprocess.run([path, "-m", "venv", folder], check=True)
        python = Path(folder) / "bin" / "python"
        bootstrap.install("none", python)
        return subprocess.call([python, *QUICK_TIER], cwd=bootstrap.ROOT)


def main() -> int:
    """Entry point; returns the exit status."""
    failed = []
    for version in bootstrap.FITTING:
        name = f"Python {bootstrap.dotted(version)}"
        if version == sys.version_info[:2]:
            continue
        path = interpreter(version)
        if path is None:
            print(f"[pythons] {name} is not installed here: left out", flush=True)
            continue
        print(f"[pythons] the quick tier under {name} ({path})", flush=True)
        try:
            status = run_quick_tier(path)
        except bootstrap.SetupError as error:
            print(f"[pythons] {name}: {error}", file=sys.stderr)
            status = 1
        if status:
            failed.append(name)
    if failed:
        print(f"[pythons] failed under {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
