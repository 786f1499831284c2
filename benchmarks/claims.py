"""Read the figures that prose quotes from committed results, and compare them.

A quoted figure is followed by an invisible comment that names its source, a result file and a dotted path in it:
``5.0<!-- acceleration: checks.median_ratio -->``. With ``min``, ``median`` or ``max`` before it, a path may hold ``*``
and match several figures. The quoted figure must be the source's, rounded to as many places as it is quoted with.

Run ``.venv/bin/python -m benchmarks.claims`` to list those that are not; ``--write`` puts the measured ones in place.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Iterator
from fnmatch import translate
from functools import cache
from typing import Any, NamedTuple

from benchmarks.harness import FOLDER, RESULTS

ROOT = FOLDER.parent
PROSE = (ROOT / "README.md", FOLDER / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
"""Files whose quoted figures are held to the results."""

_MARKED = re.compile(
    r"(?P<quoted>[−-]?[\d,]*\.?\d+)<!-- (?P<file>\w+): (?:(?P<how>min|median|max) )?(?P<path>\S.*?) -->"
)
_MET = re.compile(r"\[(?:all|both) bars met\]\((?:\S*/)?results/(?P<file>\w+)\.json\)")
_AGGREGATES = {"min": min, "median": statistics.median, "max": max}


class Claim(NamedTuple):
    """A figure in prose.

    Attributes:
        quoted: As it is written.
        source: The result file and the path in it.
        measured: What the file says.
    """

    quoted: str
    source: str
    measured: float

    @property
    def holds(self) -> bool:
        """The quoted figure is the measured one, rounded."""
        return self.quoted.replace(",", "") == self.rounded.replace(",", "")

    @property
    def rounded(self) -> str:
        """The measured figure, with as many places, and written as the quoted one is."""
        places = len(self.quoted.partition(".")[2])
        separator = "," if "," in self.quoted else ""
        return f"{self.measured:{separator}.{places}f}".replace("-", "−")


def claims(text: str) -> list[Claim]:
    """Return the marked figures of a text.

    Raises:
        LookupError: A source that does not exist, or that is several figures.
    """
    return [
        Claim(
            found["quoted"], f"{found['file']}: {found['path']}", measured(found["file"], found["path"], found["how"])
        )
        for found in _MARKED.finditer(text)
    ]


def corrected(text: str) -> str:
    """Return a text whose marked figures are the measured ones."""
    found = iter(claims(text))
    return _MARKED.sub(lambda marked: marked[0].replace(marked["quoted"], next(found).rounded, 1), text)


def measured(name: str, path: str, how: str | None = None) -> float:
    """Return a figure of a result file, or the aggregate of several.

    Args:
        name: The file's name without its ending.
        path: Dotted; ``*`` matches anything. A check's path leads to its value.
        how: min, median or max.
    """
    figures = _figures_of_file(name)
    is_match = re.compile(translate(path)).match
    found = [figures[path]] if path in figures else [value for key, value in figures.items() if is_match(key)]
    if not found or (how is None and len(found) > 1):
        raise LookupError(f"{name}.json has {len(found)} figures at '{path}'")
    return float(_AGGREGATES[how](found) if how else found[0])


def unmet(text: str) -> list[str]:
    """Name the results of which a text says that all bars are met, and that fall short."""
    names = [found["file"] for found in _MET.finditer(text)]
    checks = {name: json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["checks"] for name in names}
    return [name for name in names if not all(check["ok"] for check in checks[name].values())]


@cache
def _figures_of_file(name: str) -> dict[str, float]:
    return dict(_figures(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")), ""))


def _figures(value: Any, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        inner = [("value", value["value"])] if {"value", "bar", "ok"} <= set(value) else list(value.items())
        for key, item in inner:
            yield from _figures(item, path if key == "value" else f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _figures(item, f"{path}.{index}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, float(value)


def main() -> int:
    """Lists the figures in prose that are not the measured ones, and corrects them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the measured figures in their place")
    args = parser.parse_args()
    num_wrong = 0
    for path in PROSE:
        text = path.read_text(encoding="utf-8")
        wrong = [claim for claim in claims(text) if not claim.holds]
        num_wrong += len(wrong)
        for claim in wrong:
            print(f"{path.relative_to(ROOT)}: {claim.quoted} is {claim.rounded} ({claim.source})")
        if wrong and args.write:
            path.write_text(corrected(text), encoding="utf-8")
    return int(num_wrong > 0 and not args.write)


if __name__ == "__main__":
    sys.exit(main())
