"""What a sweep came to fits into its run's description."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tune_sweeps.tracking.summary import shortened


def test_a_short_text_stays_as_it_is() -> None:
    assert shortened("| a |\n| b |") == "| a |\n| b |"


@given(st.integers(1, 4000), st.integers(1, 80))
def test_a_long_one_is_cut_at_a_lines_end_and_says_so(num_lines: int, width: int) -> None:
    line = "x" * width
    text = "\n".join([line] * num_lines)
    cut = shortened(text)
    assert len(cut) <= 5_000
    if cut != text:
        *lines, _, last = cut.split("\n")
        assert set(lines) == {line} and "artifacts" in last
