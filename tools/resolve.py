"""Resolve each set of packages that is installed somewhere, by uv on the indexes that pip is set to.

Owns the list of these sets. Knows nothing of which versions are wanted: constraints are given.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tools.bootstrap import FITTING, OVERRIDES, ROOT, index_options

SETS = {
    "make setup": ["cpu", "dev"],
    "make setup ENGINE=gpu": ["gpu", "dev"],
    "make setup ENGINE=none": ["dev"],
    "docker cpu": ["cpu", "cluster"],
    "docker gpu": ["gpu", "cluster"],
    "docker mlflow": ["mlflow-server"],
}
"""The extras of each set, by where it is installed."""

_AT_ONCE = 16
_TIMEOUT_S = 600.0


class Case(NamedTuple):
    """A set of packages and the Python that it is installed with, such as ``"3.11"``."""

    name: str
    python: str


CASES = [
    Case(name, f"{major}.{minor}") for name in SETS for major, minor in (FITTING if "make" in name else FITTING[:1])
]  # the images are of one Python


class Resolved(NamedTuple):
    """What the resolver said: versions by package without local parts, or why there are none."""

    versions: dict[str, str]
    complaint: str

    @property
    def lacks_cpu_torch(self) -> bool:
        """Whether the index lacks torch's CPU build, which ``make setup`` then takes from PyTorch's own."""
        return re.search(r"torch==\S+\+cpu", self.complaint) is not None


def requirements(name: str) -> list[str]:
    """Return what ``pyproject.toml`` asks for in the set ``name``, its pins included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    return [*project["dependencies"], *(asked for extra in SETS[name] for asked in optional[extra])]


def resolve(asked: Mapping[Case, Sequence[str]], constraints: Iterable[str]) -> dict[Case, Resolved]:
    """Resolve the requirements of each case under the constraints; the cases wait for the index together."""
    held = list(constraints)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = pool.map(lambda case: compiled(asked[case], held, case.python, "cpu" in SETS[case.name]), asked)
        return dict(zip(asked, found, strict=True))


def compiled(
    asked: Sequence[str], constraints: Sequence[str], python: str, for_cpu: bool = False, alone: bool = False
) -> Resolved:
    """Resolve requirements for a Python by ``uv pip compile``.

    Args:
        asked: The requirements.
        constraints: Bounds on whatever is taken.
        python: Version of Python, such as ``"3.11"``.
        for_cpu: Whether what the CPU's set leaves out is left out.
        alone: Whether what the requirements themselves depend on is not looked at.
    """
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
    command += ["--python-version", python, *(["--override", str(OVERRIDES)] if for_cpu else [])]
    command += ["--no-deps"] if alone else []
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as bounds:  # uv takes constraints from files alone
        bounds.write("\n".join(constraints))
        bounds.flush()
        done = subprocess.run(
            [*command, "--constraints", bounds.name, "-"],
            input="\n".join(asked),
            cwd=ROOT,
            env={**os.environ, **index_options(Path(sys.executable))},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
    if done.returncode:
        return Resolved({}, done.stderr.strip() or f"uv ended with status {done.returncode}")
    return Resolved(pins(done.stdout), "")


def pins(text: str) -> dict[str, str]:
    """Return version by package of lines ``name==version``, without local parts such as ``+cpu``."""
    lines = (line.partition("==") for line in text.split())
    return {name: version.partition("+")[0] for name, _, version in lines}
