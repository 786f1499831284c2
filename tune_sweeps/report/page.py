"""Write a report as one page that needs nothing else: its text, figures with values under the pointer, and pictures."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from markdown_it import MarkdownIt

from tune_sweeps.report import figure_style
from tune_sweeps.report.results import Analysis, CellResult
from tune_sweeps.report.statistics import band
from tune_sweeps.report.tables import by_task

DRAWN_HERE = frozenset({"learning_curves", "speed_up", "speed_up_by_threshold"})
"""Figures that the page draws itself."""

_TEMPLATE = Path(__file__).with_name("page.html")
_RESULTS = "\n## Results\n"


def to_page(analysis: Analysis, text: str, figures: Sequence[Path]) -> str:
    """Return a report as one HTML page.

    Args:
        analysis: The results.
        text: The report in Markdown, without figures.
        figures: Figures as PNG files; those that the page does not draw itself become part of it.
    """
    before, heading, after = text.partition(_RESULTS)
    pictures = [path for path in figures if path.suffix == ".png" and path.stem not in DRAWN_HERE]
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"Sweep {analysis.sweep.name}"),
        before=to_html(before),
        after=to_html(heading + after) + "\n".join(_picture(path) for path in pictures),
        data=json.dumps(figure_data(analysis)).replace("<", "\\u003c"),
    )


def figure_data(analysis: Analysis) -> list[dict[str, Any]]:
    """Return what the page draws: learning curves, speed-ups, and speed-ups by threshold, those that there are."""
    level = analysis.sweep.config.statistics.confidence
    found: list[dict[str, Any]] = [
        {"title": "Greedy return over training, tutor off (band: one standard error)", "panels": _curves(analysis)},
        {
            "title": f"Speed-up over the untutored student, with {level:.0%} intervals",
            "rows": _speed_ups(analysis),
            "limits": figure_style.ratio_limits(
                [cell.speed_up for cell in analysis.cells if cell.speed_up is not None]
            ),
        },
        {"title": "Speed-up by share of the way", "panels": _thresholds(analysis)},
    ]
    return [figure for figure in found if figure.get("panels") or figure.get("rows")]


def _panels(analysis: Analysis) -> Iterator[tuple[str, list[CellResult]]]:
    for (algorithm, task), cells in groupby(
        by_task(analysis.cells), key=lambda result: (result.cell.algorithm, result.cell.task)
    ):
        yield f"{algorithm} · {task}", list(cells)


def _curves(analysis: Analysis) -> list[dict[str, Any]]:
    panels = []
    for title, cells in _panels(analysis):
        lines = []
        for cell in cells:
            steps, curves = figure_style.aligned([trial.run.curve for trial in cell.trials])
            if len(steps):
                lines.append(_line(analysis, cell, steps, band(curves)))
        level = next((cell.threshold.level for cell in cells if cell.cell.baseline), None)
        if lines:
            panels.append({"title": title, "xlabel": "env steps", "level": level, "log": False, "lines": lines})
    return panels


def _thresholds(analysis: Analysis) -> list[dict[str, Any]]:
    panels = []
    for title, cells in _panels(analysis):
        lines = []
        for cell in cells:
            points = [(p.frac, p.sustained) for p in cell.speed_ups if p.sustained]
            if points:
                ends = [
                    (found.value, *((found.low, found.high) if found.has_interval else [found.value] * 2))
                    for _, found in points
                ]
                lines.append(_line(analysis, cell, [frac for frac, _ in points], list(zip(*ends, strict=True))))
        if lines:
            panels.append({"title": title, "xlabel": "share of the way", "level": 1.0, "log": True, "lines": lines})
    return panels


def _line(
    analysis: Analysis, cell: CellResult, x: Iterable[float], values: Iterable[Iterable[float]]
) -> dict[str, Any]:
    y, low, high = (np.asarray(list(row), dtype=float).tolist() for row in values)
    return {
        "name": figure_style.label(cell, analysis),
        "colour": figure_style.colours(analysis)[cell.cell.tutor],
        "dash": {"-": "", "--": "6 4", ":": "2 3"}[figure_style.line(cell)],
        "x": np.asarray(list(x), dtype=float).tolist(),
        "y": y,
        "low": low,
        "high": high,
    }


def _speed_ups(analysis: Analysis) -> list[dict[str, Any]]:
    colours = figure_style.colours(analysis)
    return [
        {
            "name": cell.cell.label,
            "colour": colours[cell.cell.tutor],
            "value": found.value,
            "low": found.low if found.has_interval else None,
            "high": found.high if found.has_interval else None,
            "censored": cell.num_converged < len(cell.trials),
            "note": f"{cell.num_converged} of {len(cell.trials)} trials reached the threshold for good",
        }
        for cell in by_task(analysis.cells)
        if (found := cell.speed_up) is not None
    ]


def to_html(text: str) -> str:
    """Turn the Markdown of a report into HTML: what is no Markdown stays text, and nothing is fetched for it."""
    return MarkdownIt("commonmark", {"html": False}).enable("table").disable("image").render(text)


def _picture(path: Path) -> str:
    name = escape(path.stem.replace("_", " "))
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<h3>{name}</h3><img alt="{name}" src="data:image/png;base64,{data}">'
