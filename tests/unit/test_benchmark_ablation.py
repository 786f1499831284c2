"""What the forms of the ablation differ in, and how they are judged."""

from __future__ import annotations

import itertools
import math

from benchmarks import ablation
from benchmarks.shared.learning import Curve
from rllib_plugins.advising.config import PAPER_ADVICE, AdviceConfig

STEPS = [100.0 * k for k in range(101)]


def curves(full_at: float) -> list[Curve]:
    """Ramps to 1 within so many steps, a little apart."""
    return [Curve(STEPS, [min(1.0, step / (full_at + 50 * seed)) for step in STEPS], {}) for seed in range(4)]


def test_every_switch_of_the_ablation_changes_its_own_fields_alone() -> None:
    for algorithm in ablation.ALGORITHMS:
        forms = ablation.forms(algorithm)
        assert forms["paper"] == PAPER_ADVICE.model_copy(update={"theta_frac": ablation.THETA_FRAC})
        assert ("own exploration" in forms) == (algorithm == "dqn") == ("behaviour weights" not in forms)
        names = list(forms)
        for before, name in itertools.pairwise(names[:-1]):
            one, other = forms[before].model_dump(), forms[name].model_dump()
            assert {field for field in one if one[field] != other[field]} == set(ablation.SWITCHES[name].fields)
        unread = {"weights": "policy"} if algorithm == "dqn" else {"dqn_random_share": 0.0}
        coin = AdviceConfig(use="coin", theta_frac=ablation.THETA_FRAC, reuse_options={"budget": 3}, **unread)
        assert forms[names[-2]] == coin
        assert forms[names[-1]] == AdviceConfig()


def test_what_a_switch_brought_is_counted_from_random_play() -> None:
    arms = {"untutored": curves(8_000), "paper": curves(9_000), ablation.TOLD: curves(2_000)}
    found = ablation.summary(arms, floor=-1.0)
    assert found["paper"]["area"][0] < 0 < found[ablation.TOLD]["area"][0]
    assert found["defaults_over_paper"] == found[ablation.TOLD]["brought"]
    assert math.isclose(found[ablation.TOLD]["brought"][0] + found["paper"]["area"][0], found[ablation.TOLD]["area"][0])
