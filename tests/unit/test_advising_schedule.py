"""P(τ)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rllib_plugins.advising.schedule import LinearSchedule

probability = st.floats(0, 1)


@given(initial=probability, final=probability, theta=st.floats(1, 1e6), step=st.integers(0, 2_000_000))
def test_stays_between_its_ends_and_moves_towards_the_final(initial, final, theta, step):
    schedule = LinearSchedule(initial, final, theta)
    value = schedule(step)
    assert min(initial, final) - 1e-12 <= value <= max(initial, final) + 1e-12
    assert abs(schedule(step + 1) - final) <= abs(value - final) + 1e-12
    assert schedule(0) == initial
    assert schedule(int(theta) + 1) == final


def test_the_papers_values():
    schedule = LinearSchedule(1.0, 0.1, 20_000)
    assert schedule(10_000) == pytest.approx(0.55)
    assert schedule(20_000) == schedule(40_000) == 0.1


@pytest.mark.parametrize(
    "arguments, field",
    [
        ((1.1, 0, 1), "initial"),
        ((0, -0.1, 1), "final"),
        ((1, 0, 0), "theta"),
        ((1, 0, -1), "theta"),
        ((float("nan"), 0, 1), "initial"),
    ],
)
def test_out_of_range_is_named(arguments, field):
    with pytest.raises(ValueError, match=field):
        LinearSchedule(*arguments)
