"""Show an audition: a table for a terminal, a figure, and the tutor file that it ends with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

if TYPE_CHECKING:
    from rllib_plugins.audition.audition import Audition, Played
    from rllib_plugins.audition.race import Score

_TUTOR, _ORACLE, _TRIVIAL, _DROPPED = "#1f6feb", "#2da44e", "#9a9a9a", "#a9c7f5"
_MOST_ROWS = 40


def ways_table(audition: Audition) -> Table:
    """Return the ways with their returns, the best first, and below them who was played beside."""
    table = Table(
        *("decoding", "briefing", "calibration", "advice", "return", "95 % interval", "episodes", "dropped in round"),
        title=f"{audition.tutor} on {audition.task}",
        title_justify="left",
    )
    for standing in audition.race.standings[:_MOST_ROWS]:
        asking, calibration, advice = standing.player
        table.add_row(*asking, calibration, advice, *_figures(standing.score), str(standing.dropped or ""))
    table.add_section()
    for name, score in sorted(audition.references.items(), key=lambda item: -item[1].mean):
        table.add_row(name, "", "", "", *_figures(score), "")
    return table


def ways_values(audition: Audition) -> dict[str, Any]:
    """Return the verdict, the ways, the best first, and who was played beside, for a program."""
    ways = []
    for standing in audition.race.standings:
        asking, calibration, advice = standing.player
        way = {**asking._asdict(), "calibration": calibration, "advice": advice}
        ways.append({**way, **_values(standing.score), "dropped_in_round": standing.dropped})
    return {
        "tutor": audition.tutor,
        "task": audition.task,
        "verdict": audition.verdict,
        "ways": ways,
        "references": {name: _values(score) for name, score in audition.references.items()},
    }


def returns_table(played: Played) -> Table:
    """Return who returns what when played, the best first."""
    table = Table("played by itself", "return", "95 % interval", "episodes")
    rows = {f"{played.name}, followed": played.score, **played.references}
    for name, score in sorted(rows.items(), key=lambda item: -item[1].mean):
        table.add_row(name, *_figures(score), style="bold" if score is played.score else None)
    return table


def left_out_lines(audition: Audition) -> list[str]:
    """Return a line per reason for which ways were not tried."""
    by_reason: dict[str, list[str]] = {}
    for way, reason in audition.left_out.items():
        by_reason.setdefault(reason, []).append(way.words)
    return [f"left out: {', '.join(ways)}: {reason}" for reason, ways in by_reason.items()]


def cost_table(audition: Audition) -> Table:
    """Return what each asking took."""
    table = Table("decoding", "briefing", "states asked", "answered", "legal mass", "evaluated now", "seconds")
    for asking, answers in audition.answers.items():
        cost = answers.cost
        table.add_row(
            *asking,
            f"{cost.states:,}",
            f"{1 - cost.missed / cost.states:.0%}" if cost.states else "",
            "" if np.isnan(cost.legal_mass) else f"{cost.legal_mass:.3f}",
            f"{cost.evaluations:,}",
            f"{cost.seconds:.1f}",
        )
    return table


def write_figure(audition: Audition, path: Path) -> Path:
    """Write the returns of all ways beside those of the references, with their intervals; return the path."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    bars: list[tuple[str, Score, str]] = [
        (standing.player.words, standing.score, _DROPPED if standing.dropped else _TUTOR)
        for standing in audition.race.standings[:_MOST_ROWS]
    ]
    bars += [(name, score, _ORACLE if name == "oracle" else _TRIVIAL) for name, score in audition.references.items()]
    bars.sort(key=lambda bar: bar[1].mean)
    figure = Figure(figsize=(9, 1.4 + 0.32 * len(bars)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    places = np.arange(len(bars))
    halves = [0.0 if score.exact else 1.96 * min(score.standard_error, 1e9) for _, score, _ in bars]
    axes.barh(places, [score.mean for _, score, _ in bars], 0.7, color=[color for *_, color in bars], xerr=halves)
    axes.set_yticks(places, [name for name, *_ in bars], fontsize="small")
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set(xlabel="return of an episode, mean and 95 % interval")
    axes.spines[["top", "right"]].set_visible(False)
    title = f"{audition.tutor} on {audition.task}: decoding · briefing · calibration · advice"
    figure.suptitle(title, fontsize="medium")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)
    return path


def _values(score: Score) -> dict[str, float]:
    low, high = score.interval()
    return {"return": score.mean, "return_low": low, "return_high": high, "episodes": score.episodes}


def _figures(score: Score) -> tuple[str, str, str]:
    if score.exact:
        return f"{score.mean:.3f}", "exact", ""
    low, high = score.interval()
    return f"{score.mean:.3f}", f"{low:.3f} to {high:.3f}", str(score.episodes)
