"""What a running sweep says of its tutors."""

from __future__ import annotations

from dataclasses import replace

from tune_sweeps.run.tutor_watch import TutorWatch
from tutor_service.serving import TutorStatus

STATUS = TutorStatus("hosted", "RUNNING", "", 1, 2.0, {"model": 3}, 3, "/x", (), "", {})


def test_what_was_spent_and_why_advice_is_missing_is_said():
    spent = replace(STATUS, spent="5 of 9 requests", reasons={"rare": 1, "often": 8, "now and then": 3, "once": 1})
    watch = TutorWatch(["hosted"], lambda: [replace(spent, name="other"), spent])
    assert watch.lines() == []
    watch.look()
    assert watch.lines() == [
        "tutor hosted: asked of the endpoint so far: 5 of 9 requests",
        "tutor hosted: 8 without advice: often",
        "tutor hosted: 3 without advice: now and then",
        "tutor hosted: 1 without advice: rare",
    ]


def test_what_was_seen_stays_while_a_service_changes():
    seen = [[replace(STATUS, spent="1 requests")], []]

    def status():
        if not seen:
            raise RuntimeError("no controller")
        return seen.pop(0)

    with TutorWatch(["hosted"], status) as watch:
        for _ in range(4):
            watch.look()
        assert watch.lines() == ["tutor hosted: asked of the endpoint so far: 1 requests"]


def test_nobody_is_watched_where_no_tutor_is_served():
    with TutorWatch([], lambda: 1 / 0) as watch:
        assert watch.lines() == []
