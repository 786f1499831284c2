"""What README and docs quote is what committed results say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.claims import PROSE, ROOT, Claim, claims, corrected, measured, unmet

_DECIMAL = re.compile(r"(?<![\w.\-−/=])\d+\.\d+(?![\w.\-/])(?!<!--)")


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.name)
def test_quoted_figures_are_the_measured_ones(path: Path) -> None:
    wrong = [claim for claim in claims(path.read_text(encoding="utf-8")) if not claim.holds]
    assert not wrong


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.name)
def test_bars_are_met_where_prose_says_so(path: Path) -> None:
    assert unmet(path.read_text(encoding="utf-8")) == []


def test_every_decimal_figure_of_the_readmes_summary_names_its_source() -> None:
    (summary,) = re.findall(r"\[Measured\].*?\n\n", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.S)
    assert claims(summary)
    assert not _DECIMAL.findall(summary)


def test_a_figure_that_drifted_is_found() -> None:
    now = f"{measured('acceleration', 'checks.median_ratio'):.1f}"
    text = f"{now}<!-- acceleration: checks.median_ratio --> and 99.9<!-- acceleration: checks.median_ratio -->"
    assert [claim.quoted for claim in claims(text) if not claim.holds] == [c.quoted for c in claims(text)][-1:]
    assert (
        Claim("1,736", "", 1735.6).holds and Claim("−0.05", "", -0.0466).holds and not Claim("0.92", "", 0.9251).holds
    )
    assert [claim.holds for claim in claims(corrected(text))] == [True, True]
    with pytest.raises(LookupError, match="0 figures"):
        measured("acceleration", "checks.nothing")
    with pytest.raises(LookupError):
        measured("student_speed", "checks.*_over_sb3")
    assert measured("student_speed", "checks.*_over_sb3", "min") < measured("student_speed", "checks.*_over_sb3", "max")
