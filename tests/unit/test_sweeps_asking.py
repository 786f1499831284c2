"""Questions to a tutor are asked a few at a time, in order, and shown on the way."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from rich.console import Console

from tune_sweeps.console import counting
from tune_sweeps.console.asking import AT_ONCE, asking
from tutor_service.schema import Advice, AdviceRequest


@pytest.mark.parametrize("terminal", [True, False])
def test_answers_come_back_in_order_and_lines_tell_how_far_it_is(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "_LINE_EVERY_S", 0.0)
    sizes: list[int] = []

    def tutor(requests: list[AdviceRequest]) -> Sequence[Advice | None]:
        sizes.append(len(requests))
        return [
            None if request.state == "3" else Advice((0.5, 0.5), float(request.state) / 100) for request in requests
        ]

    screen = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    requests = [AdviceRequest("rules", str(number), ("a", "b")) for number in range(1, 71)]
    with asking(screen, tutor) as ask:
        answers = ask(requests)
        assert ask(requests[:1])[0].legal_mass == 0.01
    assert sizes == [AT_ONCE, AT_ONCE, 70 - 2 * AT_ONCE, 1]
    assert answers[2] is None and [answer.legal_mass for answer in answers[3:]] == [n / 100 for n in range(4, 71)]
    assert ("asked 64 of 70 questions" in screen.file.getvalue()) is not terminal


def test_items_are_passed_on_in_order_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_LINE_EVERY_S", 0.0)
    screen = Console(file=io.StringIO(), force_terminal=False, width=100)
    with counting.counting(screen, "reading trials", "read {} trials") as count:
        assert list(count.follow(iter("abc"), 3)) == ["a", "b", "c"]
    assert "read 2 of 3 trials" in screen.file.getvalue()
