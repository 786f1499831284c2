"""Show a report card: tables for a terminal and a figure."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rllib_plugins.grading.card import ReportCard

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TUTOR, _ORACLE, _CONSTANT = "#1f6feb", "#2da44e", "#9a9a9a"


def render(card: ReportCard) -> RenderableType:
    """Return the card as tables for a terminal: verdict, figures, and agreement by situation and label."""
    parts: list[RenderableType] = [Text(card.verdict, style="bold"), _figures(card)]
    if card.situations:
        parts.append(_situations(card))
    if card.labels:
        parts.append(_labels(card))
    return Group(*parts)


def _figures(card: ReportCard) -> Table:
    table = Table(
        "figure", "value", "beside it", title=f"Report card: {card.tutor} on {card.task}", title_justify="left"
    )
    constant = f"always '{card.constant_action}': {_percent(card.constant_agreement)}"
    rows = [
        ("visits graded", str(card.num_visits), f"{card.num_states} distinct states, {card.answered:.0%} answered"),
        ("agreement, best guess", _percent(card.agreement), constant if card.constant_action else ""),
        ("agreement, sampled", _percent(card.agreement_sampled), ""),
        (
            "regret per decision, best guess",
            _number(card.regret),
            f"constant {_number(card.constant_regret)}, random {_number(card.random_regret)}",
        ),
        ("regret per decision, sampled", _number(card.regret_sampled), ""),
        ("label bias", _number(card.label_bias), "0 none, 1 always the wrong label"),
        ("order sensitivity", _number(card.order_sensitivity), f"best guess flips in {_percent(card.order_flips)}"),
        ("excess on the first label", _number(card.first_label_excess), "0 where order does not matter"),
        ("legal mass", _number(card.legal_mass), f"least {_number(card.legal_mass_min)}"),
        (
            "ms per advice",
            _number(card.latency_ms, 1) or ("–" if card.from_store else ""),
            f"{_percent(card.from_store)} came from the store",
        ),
        ("tokens per advice", _number(card.tokens, 0), ""),
        ("best trivial player's return", _number(card.trivial), card.trivial_player or ""),
    ]
    for name, value, beside in rows:
        if value:
            table.add_row(name, value, beside)
    return table


def _situations(card: ReportCard) -> Table:
    table = Table("situation", "share", "agreement", "constant answer", "regret")
    for item in card.situations:
        table.add_row(
            item.name,
            _percent(item.share),
            _percent(item.agreement),
            _percent(item.constant_agreement),
            _number(item.regret),
        )
    return table


def _labels(card: ReportCard) -> Table:
    table = Table("label", "tutor's mean probability", "oracle's")
    for label, ours, oracle in card.labels:
        table.add_row(label, _number(ours), _number(oracle))
    return table


def write_figure(card: ReportCard, path: str | Path) -> Path:
    """Write the card as an image (suffix png, svg or pdf): agreement by situation, and mean probability by label."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = max(3.2, 1.6 + 0.45 * max(len(card.situations), len(card.labels)))
    figure = Figure(figsize=(10.5, height), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    situations = card.situations[::-1]
    places = np.arange(len(situations))
    tutor = f"tutor: {card.tutor}"
    left.barh(places + 0.2, [item.agreement for item in situations], 0.4, color=_TUTOR, label=tutor)
    left.barh(
        places - 0.2,
        [item.constant_agreement for item in situations],
        0.4,
        color=_CONSTANT,
        label=f"always '{card.constant_action}'",
    )
    left.set_yticks(places, [f"{item.name} ({item.share:.0%})" for item in situations])
    left.set(xlim=(0, 1), xlabel="agreement with the oracle", title="By situation (share of visits)")
    labels = card.labels[::-1]
    places = np.arange(len(labels))
    right.barh(places + 0.2, [ours for _, ours, _ in labels], 0.4, color=_TUTOR, label=tutor)
    if any(oracle is not None for _, _, oracle in labels):
        right.barh(places - 0.2, [oracle or 0.0 for _, _, oracle in labels], 0.4, color=_ORACLE, label="oracle")
    right.set_yticks(places, [label for label, _, _ in labels])
    right.set(xlim=(0, 1), xlabel="mean probability", title="By label")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        if axes.patches:
            _legend_below(axes)
    figure.suptitle(textwrap.fill(card.verdict, 120), fontsize="medium")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)
    return path


def _legend_below(axes: Axes) -> None:
    """Put the legend under the axis' own label, however high the figure is."""
    axes.legend(loc="upper left", bbox_to_anchor=(0, 0), borderaxespad=3.8, ncols=2, frameon=False, fontsize="small")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"
