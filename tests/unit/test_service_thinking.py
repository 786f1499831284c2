"""A thought's own tokens, its end and the cue to answer."""

from types import SimpleNamespace

import pytest

from tests.unit.service_fakes import FakeTokenizer
from tutor_service.engines.thinking import CUE, Thinking


class Plain(FakeTokenizer):
    """Spells the marks of a thought letter by letter."""

    all_special_ids = (1, 2, 3)


class Marking(Plain):
    """Has a token of its own for the end of a thought, which it does not call special."""

    def encode(self, text, **options):
        before, mark, after = text.partition("</think>")
        ids = super().encode(before, **options)
        return [*ids, 5, *super().encode(after, **options)] if mark else ids

    def decode(self, ids, **options):
        return "".join("</think>" if number == 5 else super(Marking, self).decode([number]) for number in ids)


def completion(tokenizer, text, *more, said=None):
    ids = tokenizer.encode(text, add_special_tokens=False)
    return SimpleNamespace(token_ids=[*ids, *more], text=text.partition("</think>")[0] if said is None else said)


@pytest.mark.parametrize("tokenizer", [Plain(), Marking()])
@pytest.mark.parametrize("text", ["I hit", "I hit</think>", ""])
def test_a_thought_is_scored_on_its_own_tokens_behind_a_cue(tokenizer, text):
    thinking = Thinking(tokenizer)
    thought = thinking.ended(completion(tokenizer, text))
    own = tokenizer.encode(text.partition("</think>")[0], add_special_tokens=False)
    tail = tokenizer.encode(f"\n</think>\n\n{CUE}", add_special_tokens=False)
    assert thought.token_ids == (*own, *tail)
    assert thought.text == text.partition("</think>")[0]


def test_the_end_of_a_turn_is_no_thought():
    tokenizer = Plain()
    thought = Thinking(tokenizer).ended(completion(tokenizer, "I hit", 2))
    assert 2 not in thought.token_ids and thought.text == "I hit"


def test_a_thought_is_opened_unless_the_template_did():
    tokenizer = Plain()
    thinking = Thinking(tokenizer)
    prompt = tuple(tokenizer.encode("Play.", add_special_tokens=False))
    opened = thinking.opened(prompt)
    assert tokenizer.decode(opened) == "Play.<think>\n"
    assert thinking.opened(opened) == opened


def test_models_stop_at_their_own_mark():
    assert Thinking(Plain()).stop == {"stop": ["</think>"]}
    assert Thinking(Marking()).stop == {"stop_token_ids": [5]}
