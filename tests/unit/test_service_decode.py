import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutor_service.engines.decode import averaged, one_hot, parse_action, renormalise
from tutor_service.schema import AdviceError

LOGPROBS = st.lists(st.floats(-60, 0) | st.just(-math.inf), min_size=2, max_size=10)


@given(LOGPROBS)
def test_renormalised_sums_to_one_and_keeps_ratios(logprobs):
    read = renormalise(logprobs)
    expected = math.fsum(math.exp(value) for value in logprobs)
    if expected == 0:
        assert read is None
        return
    assert math.isclose(math.fsum(read.probabilities), 1)
    assert math.isclose(read.mass, min(1, expected), rel_tol=1e-9)
    for value, probability in zip(logprobs, read.probabilities, strict=True):
        assert math.isclose(probability, math.exp(value) / expected, rel_tol=1e-9, abs_tol=1e-300)


@pytest.mark.parametrize("nothing", [-math.inf, math.nan, -9999.0, -701.0])
def test_nothing_on_any_label_is_a_miss(nothing):
    assert renormalise([nothing, -math.inf]) is None
    miss = averaged([[nothing, nothing]], tokens=7)
    assert isinstance(miss, AdviceError) and miss.invalid == 1 and miss.tokens == 7 and not miss.retry
    assert renormalise([nothing, math.log(0.5)]) == (pytest.approx((0.0, 1.0)), pytest.approx(0.5))


def test_tiny_masses_do_not_underflow():
    read = renormalise([-600.0, -601.0])
    assert read.probabilities[0] == pytest.approx(1 / (1 + math.exp(-1))) and 0 < read.mass < 1e-200


@given(st.lists(st.lists(st.floats(-20, -2), min_size=3, max_size=3), min_size=1, max_size=5))
def test_thoughts_are_averaged_by_what_each_says_of_the_labels(logprobs):
    answer = averaged(logprobs, tokens=9, thought="hm")
    marginal = [math.fsum(math.exp(row[label]) for row in logprobs) / len(logprobs) for label in range(3)]
    assert answer.legal_mass == pytest.approx(math.fsum(marginal))
    assert answer.probabilities == pytest.approx([value / math.fsum(marginal) for value in marginal])
    assert (answer.tokens, answer.thought) == (9, "hm")


def test_a_thought_that_says_nothing_counts_as_mass_that_went_elsewhere():
    said = [math.log(0.2), math.log(0.6)]
    answer = averaged([said, [-math.inf, -math.inf]], tokens=1)
    assert answer.probabilities == pytest.approx((0.25, 0.75)) and answer.legal_mass == pytest.approx(0.4)
    assert isinstance(averaged([[-math.inf] * 2] * 3, tokens=1), AdviceError)


def test_one_hot():
    assert one_hot(1, 3) == (0, 1, 0)


@pytest.mark.parametrize(
    ("answer", "index"),
    [
        ("<action>hit</action>", 1),
        ("I think <ACTION> Hit. </ACTION>", 1),
        ("<action>stick", 0),
        ("Format: <action>your choice</action>. So: <action>hit</action>", 1),
        ('<action>"hit"</action>', 1),
        ("hit", None),
        ("<action>fold</action>", None),
        ("<action></action>", None),
        ("", None),
    ],
)
def test_actions_are_read_from_tags(answer, index):
    assert parse_action(answer, ("stick", "hit")) == index


def test_case_is_not_forgiven_where_it_tells_labels_apart():
    assert parse_action("<action>a</action>", ("A", "a")) == 1
    assert parse_action("<action>Up</action>", ("UP", "up")) is None


@given(st.text(), st.lists(st.text(min_size=1, max_size=5), min_size=2, max_size=5, unique=True))
def test_any_text_is_a_label_or_nothing(answer, labels):
    index = parse_action(f"<action>{answer}</action>", labels)
    assert index is None or 0 <= index < len(labels)
