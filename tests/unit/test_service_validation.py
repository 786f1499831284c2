import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutor_service.schema import AdviceRequest
from tutor_service.validation import MAX_STATE_CHARS, problem


def test_a_valid_request_has_no_problem():
    assert problem(AdviceRequest("Rules.", "State\nof\tthings.", ("go left", "右", "3"))) is None


@pytest.mark.parametrize(
    ("rules", "state", "actions", "said"),
    [
        ("", "s", ("a", "b"), "rules: is empty"),
        ("r", "  \n", ("a", "b"), "state: is empty"),
        ("r", "s" * (MAX_STATE_CHARS + 1), ("a", "b"), "state: .* at most"),
        ("r", "\ud800", ("a", "b"), "state: is not valid Unicode"),
        ("r", b"s", ("a", "b"), "state: expected text"),
        ("r", "s", (), "actions: 0 labels"),
        ("r", "s", ("a",), "actions: 1 labels"),
        ("r", "s", ("a", "a"), "distinct"),
        ("r", "s", ("a", ""), "empty"),
        ("r", "s", ("a", " b"), "white space"),
        ("r", "s", ("a", "b\x00c"), "control character"),
        ("r", "s", ("a", "b\nc"), "control character"),
        ("r", "s", ("a", "b\u2028c"), "control character"),
        ("r", "s", ("a", "b" * 65), "at most 64"),
        ("r", "s", ("a", 3), "expected text"),
        ("r", "s", ["a", "b"], "expected a tuple"),
        ("r", "s", tuple(map(str, range(63))), "63 labels"),
    ],
)
def test_every_flaw_is_named(rules, state, actions, said):
    found = problem(AdviceRequest(rules, state, actions))
    assert found is not None

    assert re.search(said, found), found


@pytest.mark.parametrize(
    ("synonyms", "said"),
    [
        ((("c",),), "synonyms: one tuple of words for each of the 2 actions"),
        ([("c",), ()], "synonyms: one tuple"),
        (("cd", ()), "expected a tuple of words, got str"),
        ((("c",), (" d",)), "white space"),
        ((("c",), (3,)), "expected text"),
    ],
)
def test_flaws_of_synonyms_are_named(synonyms, said):
    found = problem(AdviceRequest("r", "s", ("a", "b"), synonyms))
    assert found is not None and said in found
    assert problem(AdviceRequest("r", "s", ("a", "b"), (("c", "d"), ()))) is None


def test_something_else_is_no_request():
    assert "AdviceRequest" in problem("hit or stick?")  # type: ignore[arg-type,operator]


@given(st.text(st.characters()), st.text(st.characters()), st.lists(st.text(st.characters())))
def test_any_text_is_judged_without_an_exception(rules, state, actions):
    problem(AdviceRequest(rules, state, tuple(actions)))
