import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutor_service.schema import TOLERANCE, Advice


@pytest.mark.parametrize(
    "fields",
    [
        {"probabilities": (math.nan, 1.0)},
        {"probabilities": (1.0, math.nan)},
        {"probabilities": (0.5, 0.4)},
        {"probabilities": (1.5, -0.5)},
        {"probabilities": (math.inf, -math.inf)},
        {"probabilities": ()},
        {"legal_mass": math.nan},
        {"legal_mass": 0.0},
        {"legal_mass": 1.1},
        {"invalid": -1},
        {"tokens": 2**32},
    ],
)
def test_what_is_no_distribution_is_no_advice(fields):
    with pytest.raises(ValueError):
        Advice(**{"probabilities": (0.25, 0.75), "legal_mass": 1.0, **fields})


@given(st.lists(st.floats(0, 1), min_size=1, max_size=62).filter(any), st.floats(-0.9, 0.9))
def test_rounding_within_one_tolerance_is_forgiven(weights, error):
    total = math.fsum(weights)
    advice = Advice(tuple(weight / total * (1 + error * TOLERANCE) for weight in weights), 1.0)
    assert pickle.loads(pickle.dumps(advice)) == advice
