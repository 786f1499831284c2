"""Averaging a tutor's answers over the orders of its labels."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutor_service.config import TutorConfig
from tutor_service.engines.base import EngineFacts
from tutor_service.engines.orders import OrderAveraging, averaged_over_orders
from tutor_service.prompts.messages import MessagePrompts
from tutor_service.prompts.orders import OrderedPrompts
from tutor_service.schema import Advice, AdviceError, AdviceRequest
from tutor_service.serving.prompting import make_builder

WORDS = ("north", "east", "south", "west")


class Listed:
    """An engine that answers by where a label stands in the prompt, and by what it is."""

    def __init__(self, by_place, by_word):
        self.by_place, self.by_word = by_place, by_word

    async def start(self):
        return EngineFacts(json.dumps({"model": "m"}), "scored", max_prompt_tokens=None)

    async def evaluate(self, prompts):
        return [self.answer(prompt.labels) for prompt in prompts]

    def answer(self, labels):
        weights = [self.by_place[place] * self.by_word[word] for place, word in enumerate(labels)]
        return Advice(tuple(weight / sum(weights) for weight in weights), legal_mass=0.5, tokens=10)


def prompts_of(actions, num_orders):
    builder = OrderedPrompts(MessagePrompts("scored"), num_orders)
    return builder.build_many([AdviceRequest("Rules.", "A state.", actions)])


async def test_a_tutor_that_prefers_what_stands_first_prefers_nothing():
    engine = OrderAveraging(Listed(by_place=[0.7, 0.1, 0.1, 0.1], by_word=dict.fromkeys(WORDS, 1.0)), num_orders=4)
    (answer,) = await engine.evaluate(prompts_of(WORDS, 4))
    assert answer.probabilities == pytest.approx([0.25] * 4)
    assert (answer.legal_mass, answer.tokens) == (0.5, 40)


@given(
    weights=st.lists(st.floats(0.01, 1.0), min_size=2, max_size=6),
    num_orders=st.integers(1, 8),
)
async def test_what_a_tutor_says_of_the_words_stays_with_them(weights, num_orders):
    words = (*WORDS, "up", "down")[: len(weights)]
    engine = OrderAveraging(Listed([1.0] * len(words), dict(zip(words, weights, strict=True))), num_orders)
    prompts = prompts_of(words, num_orders)
    assert len(prompts[0].rotated) == min(num_orders, len(words)) - 1
    (answer,) = await engine.evaluate(prompts)
    assert answer.probabilities == pytest.approx(np.array(weights) / sum(weights))


async def test_answers_go_to_their_own_questions():
    engine = OrderAveraging(Listed([1.0] * 4, {"north": 3.0, "east": 1.0, "south": 1.0, "west": 1.0}), num_orders=2)
    questions = prompts_of(("north", "south"), 2) + prompts_of(("east", "north", "west"), 2)
    answers = [answer.probabilities for answer in await engine.evaluate(questions)]
    assert answers == [pytest.approx([0.75, 0.25]), pytest.approx([0.2, 0.6, 0.2])]


def test_answers_count_by_their_mass_on_the_labels_and_an_error_is_one():
    surer = averaged_over_orders([Advice((1.0, 0.0), legal_mass=0.9), Advice((1.0, 0.0), legal_mass=0.1)])
    assert surer.probabilities == pytest.approx([0.9, 0.1])
    error = averaged_over_orders([Advice((1.0, 0.0), 1.0, tokens=5), AdviceError("nothing read", invalid=1, tokens=7)])
    assert error == AdviceError("nothing read", invalid=1, tokens=12)


async def test_the_number_of_orders_is_part_of_the_identity():
    facts = await OrderAveraging(Listed([], {}), num_orders=3).start()
    assert json.loads(facts.identity) == {"model": "m", "label_orders": 3}


def test_a_prompt_lists_its_labels_in_each_order_and_one_order_needs_no_wrapper():
    (prompt,) = prompts_of(("left", "right"), 3)
    assert [one.labels for one in (prompt, *prompt.rotated)] == [("left", "right"), ("right", "left")]
    assert "left, right" in prompt.text and "right, left" in prompt.rotated[0].text
    assert prompt.num_tokens == len(prompt.text)
    tutor = TutorConfig(name="t", backend="openai", model="m", base_url="http://127.0.0.1:1")
    assert isinstance(make_builder(tutor, "scored", None), MessagePrompts)
    assert isinstance(make_builder(tutor.model_copy(update={"label_orders": 2}), "scored", None), OrderedPrompts)


def test_labels_that_cannot_be_told_apart_are_refused_once():
    class Refusing(MessagePrompts):
        def build_many(self, requests):
            from tutor_service.errors import UserError

            return [UserError("no such token") for _ in requests]

    (refusal,) = OrderedPrompts(Refusing("scored"), 2).build_many([AdviceRequest("Rules.", "A state.", ("a", "b"))])
    assert str(refusal) == "no such token"
