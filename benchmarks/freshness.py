"""Say which committed results are older than the code that they measure.

Run ``.venv/bin/python -m benchmarks.freshness`` in a checkout with its history: a line per result, with the revision it
was measured on and how many later commits touched the packages that its benchmark names. A result is not wrong because
code changed; it is a figure of that revision, and this says of which.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import FOLDER, RESULTS

ROOT = FOLDER.parent


class Age(NamedTuple):
    """How old a result is; ``num_changes`` is None where its revision is not in this history."""

    result: str
    revision: str
    num_changes: int | None


def measured_paths(benchmark: str) -> list[str]:
    """Read the paths that a benchmark's constant ``MEASURES`` names, without importing it.

    Raises:
        KeyError: The benchmark names none.
    """
    tree = ast.parse((FOLDER / f"{benchmark}.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["MEASURES"]:
            return list(ast.literal_eval(node.value))
    raise KeyError(f"benchmarks/{benchmark}.py has no constant MEASURES")


def age_of(path: Path) -> Age:
    """Count the commits since a result's revision that touched what it measures."""
    found = json.loads(path.read_text(encoding="utf-8"))
    revision = found.get("versions", {}).get("commit", "")
    paths = measured_paths(found["benchmark"].removesuffix("_soak"))
    command = ["git", "-C", str(ROOT), "rev-list", "--count", f"{revision}..HEAD", "--", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    is_known = bool(revision) and done.returncode == 0
    return Age(path.stem, revision or "?", int(done.stdout) if is_known else None)


def main() -> int:
    """Print a line per result; the exit status is 0."""
    for age in (age_of(path) for path in sorted(RESULTS.glob("*.json"))):
        if age.num_changes is None:
            says = "its revision is not in this history"
        elif age.num_changes:
            says = f"{age.num_changes} later commits touch what it measures"
        else:
            says = "as new as the code"
        print(f"{age.result:24} {age.revision:14} {says}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
