"""Keys: the same question has the same key everywhere, and no two questions share one."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tutor_service.store import advice_key
from tutor_service.store.keys import KEY_BYTES

tokens = st.lists(st.integers(0, 2**40), max_size=4)
questions = st.tuples(st.text("ab1\0é", max_size=4), tokens, tokens)


@given(questions, questions)
def test_different_questions_have_different_keys(first: tuple, second: tuple) -> None:
    assert (advice_key(*first) == advice_key(*second)) == (first == second)


@given(st.text("ab1\0é", min_size=1, max_size=4), tokens, tokens, st.data())
def test_nothing_moves_between_the_parts(
    identity: str, prompt: list[int], labels: list[int], data: st.DataObject
) -> None:
    """Joined parts are cut elsewhere: the same numbers in a row, another question."""
    joined = prompt + labels
    cut = data.draw(st.integers(0, len(joined)))
    same = joined[:cut] == prompt
    assert (advice_key(identity, joined[:cut], joined[cut:]) == advice_key(identity, prompt, labels)) == same
    assert advice_key(identity[:-1], [ord(identity[-1]), *prompt], labels) != advice_key(identity, prompt, labels)


def test_a_key_is_the_same_in_every_process_and_for_every_sequence_type() -> None:
    key = advice_key("modèle", (1, 2, 70000), (5, 6))
    assert len(key) == KEY_BYTES
    assert key == advice_key("modèle", np.array([1, 2, 70000], dtype=np.int32), [5, 6])
    code = "from tutor_service.store.keys import advice_key; print(advice_key('modèle', [1, 2, 70000], [5, 6]).hex())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == key.hex()


def test_a_key_never_changes_between_versions() -> None:
    """A change here throws away every answer that users' tutors ever gave."""
    assert advice_key("m", [1, 2], [3]).hex() == "d20f92ef1b4dfbbc0bba3305f985290ea7b27b59a1145e619f2a2caf97232b31"
