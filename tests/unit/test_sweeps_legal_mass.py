"""A tutor that puts little of its probability on the legal actions is doubted before a sweep, and in its report."""

from dataclasses import replace

import pytest

from rllib_plugins.tasks import load_task
from tests.unit.test_sweeps_report import record, run
from tune_sweeps.report.analysis import analyse
from tune_sweeps.report.notes import notes
from tune_sweeps.run.legal_mass import NUM_STATES, find_doubt
from tutor_service.config import TutorConfig
from tutor_service.schema import Advice

TUTOR = TutorConfig(name="shaky", model="a/b", least_legal_mass=0.3, hint=True)


def answering(*masses: float | None):
    """A tutor with these legal masses in turn; None: no answer."""
    asked = []

    def ask(requests):
        asked.extend(requests)
        found = [masses[index % len(masses)] for index in range(len(requests))]
        share = 1 / len(requests[0].actions)
        return [None if mass is None else Advice((share,) * len(requests[0].actions), mass) for mass in found]

    ask.asked = asked
    return ask


@pytest.mark.parametrize(
    ("masses", "said"),
    [((0.1,), "10.0%"), ((0.1, None), "10.0%"), ((0.1, 0.4), "25.0%"), ((0.3,), None), ((0.9,), None), ((None,), None)],
)
def test_the_mean_over_answered_states_counts(masses, said):
    ask = answering(*masses)
    doubt = find_doubt(TUTOR, load_task("blackjack").with_hint(TUTOR.hint), ask)
    assert len(ask.asked) == NUM_STATES and all("Hint: " in request.rules for request in ask.asked)
    if said is None:
        assert doubt is None
    else:
        assert doubt is not None and said in doubt and "least_legal_mass = 0.3" in doubt


def test_the_report_says_so():
    sweep = record([run("none", seed, 8_000) for seed in range(6)])
    assert not [note for note in notes(analyse(sweep)) if "shaky" in note]
    doubted = replace(sweep, doubts={"shaky on blackjack": "it is mostly noise."})
    assert "shaky on blackjack: it is mostly noise." in notes(analyse(doubted))
