"""A report's page needs nothing but itself, and draws the numbers of the results."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.unit.test_sweeps_report import record, run, tutored, two_to_one
from tune_sweeps.report.analysis import analyse
from tune_sweeps.report.build import to_markdown
from tune_sweeps.report.figure_style import ratio_limits
from tune_sweeps.report.page import figure_data, to_html, to_page
from tune_sweeps.report.statistics import Interval


class Parsed(HTMLParser):
    """Keeps what is opened, the text after it, and every address that would be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self._said: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_data(self, data: str) -> None:
        if data.strip():
            self._said.append((self.tags[-1], data))

    def said(self, tag: str) -> list[str]:
        """What stands in elements of a kind, before any element within."""
        return [data for within, data in self._said if within == tag]


def test_the_page_fetches_nothing_and_has_every_part_of_the_report(tmp_path: Path) -> None:
    analysis = two_to_one()
    figures = [tmp_path / name for name in ("learning_curves.png", "survival.png", "survival.svg")]
    for path in figures:
        path.write_bytes(b"picture")
    text = to_markdown(analysis, [])
    page = to_page(analysis, text, figures)
    parsed = Parsed(page)
    assert [address.partition(",")[0] for address in parsed.addresses] == ["data:image/png;base64"]  # the one not drawn
    assert parsed.tags.count("table") == text.count("| --- |\n") > 4
    for heading in re.findall(r"^#+ (.*)", text, re.MULTILINE):
        assert heading in page
    assert "## " not in page.partition("<script")[0]


def test_the_figures_hold_the_numbers_of_the_results() -> None:
    analysis = two_to_one()
    curves, speed_ups, by_threshold = figure_data(analysis)
    cell = tutored(analysis)
    (panel,) = curves["panels"]
    assert panel["title"] == "ppo · blackjack" and panel["level"] == cell.threshold.level
    assert [line["name"] for line in panel["lines"]] == ["untutored", "oracle"]
    assert panel["lines"][1]["y"][-1] == 1.0
    assert cell.speed_up is not None
    (row,) = speed_ups["rows"]
    assert (row["value"], row["low"], row["high"]) == (cell.speed_up.value, cell.speed_up.low, cell.speed_up.high)
    (line,) = by_threshold["panels"][0]["lines"]
    assert line["x"][0] == 0.5 and len(line["x"]) == len(line["low"]) == 10


def test_an_interval_without_end_does_not_squeeze_the_others() -> None:
    assert ratio_limits([Interval(1.5, 1.2, 1.9)]) == (0.5, 2.0)
    assert ratio_limits([Interval(3.0, 0.4, 9.0)]) == (0.4, 9.0)
    low, high = ratio_limits([Interval(1.5, 1.2, 1.9), Interval(2.5, 1e-6, 1e9), Interval(4.0)])
    assert (low, high) == (0.5 / 4, 4.0 * 4), "all values, and a few times beyond"
    assert figure_data(two_to_one())[1]["limits"][1] >= figure_data(two_to_one())[1]["rows"][0]["value"]


@pytest.mark.skipif(shutil.which("node") is None, reason="the page's own code is run by node")
def test_the_page_draws_an_arrow_where_an_interval_goes_on() -> None:
    code = to_page(two_to_one(), "", []).partition('"use strict";')[2].partition("for (const figure of JSON")[0]
    stand_in = """
const made = [];
const element = () => ({ set: {}, setAttribute(k, v) { this.set[k] = v; }, appendChild(e) { return e; }, append() {},
  addEventListener() {}, style: {} });
const document = { createElementNS: (_, name) => { const e = element(); made.push([name, e.set]); return e; },
  getElementById: element, createElement: element };
"""
    rows = [{"name": name, "colour": "red", "value": 2, "low": low, "high": high, "censored": False, "note": ""}
            for name, low, high in (("whole", 1, 3), ("goes on", 1, 1e9), ("both", 1e-9, 1e9))]  # fmt: skip
    run_it = f"forest({json.dumps(rows)}, [0.5, 8], element()); console.log(JSON.stringify(made));"
    done = subprocess.run(["node", "-e", stand_in + code + run_it], capture_output=True, text=True, check=True)
    made = json.loads(done.stdout)
    arrows = [set_["points"] for name, set_ in made if name == "polygon"]
    assert len(arrows) == 3, "one of the second row, two of the third"
    ends = [(set_["x1"], set_["x2"]) for name, set_ in made if name == "line" and "stroke-width" in set_]
    assert ends[1][1] == ends[2][1] == 760 and ends[2][0] == 280, "lines end where the axis does"


@pytest.mark.parametrize("random_return", [0.0, None])
def test_one_seed_or_no_reference_makes_a_page_of_plain_json(random_return: float | None) -> None:
    analysis = analyse(record([run("none", 0, 8_000), run("oracle", 0, 4_000)], random_return=random_return))
    page = to_page(analysis, to_markdown(analysis, []), [])
    (data,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    found = json.loads(data, parse_constant=pytest.fail)  # no NaN, which browsers do not read
    assert len(found) == (1 if random_return is None else 3)


def test_text_is_text_whatever_is_in_it() -> None:
    html = to_html(
        "# A <b>\n\n- one\n- two `x`\n\n| a | b |\n| --- | --- |\n| 1 | <script> |\n\n3 < 4 ![x](http://away/x.png)"
    )
    page = Parsed(html)
    assert page.said("h1") == ["A <b>"]
    assert page.said("li") == ["one", "two "] and page.said("code") == ["x"]
    assert page.said("th") == ["a", "b"] and page.said("td") == ["1", "<script>"]
    assert page.said("p")[0].startswith("3 < 4")
    assert {"b", "script", "img"}.isdisjoint(page.tags), "what looks like HTML is text"


def test_a_cell_that_holds_a_bar_and_a_list_after_a_line_are_read_as_markdown_is() -> None:
    page = Parsed(to_html("Notes:\n- a_b_c\n\n| a |\n| --- |\n| x \\| y |"))
    assert page.said("p") == ["Notes:"] and page.said("li") == ["a_b_c"] and page.said("td") == ["x | y"]
