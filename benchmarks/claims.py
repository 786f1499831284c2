"""Read the figures that prose quotes from committed results, and compare them.

A quoted figure is followed by an invisible comment that names its source, a result file and a dotted path in it:
``5.0<!-- acceleration: checks.median_ratio -->``. With ``min``, ``median`` or ``max`` before it, a path may hold ``*``
and match several figures. The quoted figure must be the source's, rounded to as many places as it is quoted with.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterator
from fnmatch import translate
from functools import cache
from typing import Any, NamedTuple

from benchmarks.harness import RESULTS

_MARKED = re.compile(r"(?P<quoted>[−-]?[\d,]*\.?\d+)<!-- (?P<file>\w+): (?:(?P<how>min|median|max) )?(?P<path>\S+) -->")
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
        text = self.quoted.replace(",", "").replace("−", "-")
        places = len(text.partition(".")[2])
        return f"{self.measured:.{places}f}" == text


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
