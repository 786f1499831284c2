"""The reader of endpoints' replies: whatever is sent, what was not read is no advice."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.endpoint_standin import likely, reply
from tutor_service.engines.decode import Distribution
from tutor_service.engines.endpoint.answer import named_action
from tutor_service.engines.endpoint.reading import read
from tutor_service.engines.endpoint.reply import NotRead, Reply, error_words, parse_reply

LABELS, WORDS = ("A", "B"), ("left", "right")

FIELDS = [
    *(
        "choices",
        "message",
        "delta",
        "content",
        "logprobs",
        "top_logprobs",
        "token",
        "logprob",
        "bytes",
        "text",
        "type",
    ),
    *("thinking", "reasoning", "usage", "total_tokens", "error", "finish_reason", "refusal", "tool_calls", "tokens"),
]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["A", "B", " B", "ĠB", "<action>B</action>", "<think>", "**A**", "length", "content_filter", -9999.0]
    ),
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(FIELDS) | st.text(max_size=5),
            inner,
            max_size=6,
        )
    ),
    max_leaves=30,
)


def maybe(shape):
    """Mostly what belongs there, now and then anything."""
    return shape | anything


entries = st.fixed_dictionaries(
    {}, optional={"token": scalars, "logprob": scalars, "bytes": maybe(st.lists(st.integers(0, 255), max_size=4))}
)
places = st.fixed_dictionaries(
    {}, optional={"token": scalars, "logprob": scalars, "top_logprobs": maybe(st.lists(entries))}
)
scores = maybe(st.fixed_dictionaries({}, optional={"content": maybe(st.lists(places, max_size=4))}))
messages = maybe(
    st.fixed_dictionaries(
        {}, optional={"content": anything, "reasoning": anything, "refusal": anything, "tool_calls": anything}
    )
)
choices = maybe(
    st.fixed_dictionaries(
        {}, optional={"message": messages, "logprobs": scores, "finish_reason": scalars, "text": anything}
    )
)
replies = maybe(st.fixed_dictionaries({"choices": maybe(st.lists(choices, max_size=3))}, optional={"usage": anything}))
bodies = st.one_of(
    replies.map(lambda data: json.dumps(data).encode()),
    replies.map(lambda data: json.dumps(data).encode()[: len(json.dumps(data)) // 2]),
    st.lists(replies, max_size=4).map(
        lambda chunks: b"".join(b"data: %s\n\n" % json.dumps(c).encode() for c in chunks)
    ),
    st.binary(max_size=60),
)


@given(
    body=bodies, scored=st.booleans(), labels=st.sampled_from([("A", "B"), ("hit", "stick", "hi"), ("a", "A", "+1")])
)
def test_any_reply_is_read_or_said_why_not(body, scored, labels):
    parsed = parse_reply(body)
    outcome = read(parsed, labels, scored=scored)
    if isinstance(outcome, NotRead):
        assert outcome.reason and outcome.reason.encode()
        return
    assert isinstance(parsed, Reply)
    assert math.fsum(outcome.probabilities) == pytest.approx(1) and 0 < outcome.mass <= 1
    assert len(outcome.probabilities) == len(labels)
    named = named_action(parsed.text, labels, cut=parsed.cut)
    if 1.0 in outcome.probabilities and named is not None:
        return
    assert scored and any(token.logprob > -math.inf for position in parsed.positions for token in position.top), (
        "what is no single action was read from log-probabilities"
    )


@given(body=bodies | anything.map(lambda data: json.dumps(data).encode()))
def test_any_error_has_words(body):
    words = error_words(body, "secret")
    assert len(words) <= 300 and "\n" not in words and words.encode() is not None


@given(noise=st.text(max_size=200))
def test_any_text_names_one_action_or_none(noise):
    for text in (noise, f"<action>{noise}", f"**{noise}**"):
        assert named_action(text, LABELS, WORDS) in (0, 1, None)


@given(padding=st.text(alphabet=" \n\t*_`\"'.:", max_size=6), index=st.integers(0, 1))
def test_a_label_alone_is_read_whatever_is_around_it(padding, index):
    for name in (LABELS[index], WORDS[index], WORDS[index].upper()):
        assert named_action(f"{padding}{name}{padding}", LABELS, WORDS) == index


@pytest.mark.parametrize(
    "text",
    [
        "B", "b", "B.", "(B)", "B)", "**B**", "“B”", "Ｂ", "right", "RIGHT!", "B - right", "B: right", "Option B",
        "The answer is B", "The answer is **B**.", "Final answer:\n\nB", "**Answer:** B", '{"action": "B"}',
        "I choose B because A is bad.", "B. Because A is dangerous.", "A good move is B", "I'd go with B",
        "Antwort: B", "La respuesta es B", "Réponse : B", "答案：B", "The answer is B and I am sure",
        "My answer: A. No wait, the answer is B", "I would go right here.", "\\boxed{B}", "$\\boxed{\\text{B}}$",
        "B because A is bad", "A dealer with a six is weak. Stick: B", "The answer is B because A is bad",
        "<action>B</action>", "<ACTION> b", "<action>B: right</action>", "<action>right</action>", "<action>B",
        "<action>B<action>",
        "Give it in tags: <action>your choice</action>. <action>B</action>",
    ],
)  # fmt: skip
def test_what_names_the_second_action(text):
    assert named_action(text, LABELS, WORDS) == 1


@pytest.mark.parametrize(
    "text",
    [
        "The answer is A because B is bad", "I choose A since B loses", "A, since B is risky", "A because B is risky",
        "A — B is risky", "**A** because B is bad", "I pick A to be safe", "I would say A is best", "A seems safer",
    ],
)  # fmt: skip
def test_the_first_letter_is_no_article_where_it_is_the_answer(text):
    assert named_action(text, LABELS, WORDS) == 0


@pytest.mark.parametrize(
    "text",
    [
        "A is better than B", "A beats B", "A would bust, so B", "I go: A over B", "Option B is better than option A",
        "", " ", "hm", "A or B", "either", "left or right?", "A: dangerous.\nB: safe.", "Left: dangerous. Right: safe.",
        "I would not go right", "Never choose A.", "I can't say whether right is good", "The answer is not A.",
        "<action>your choice</action>", "<action>fold</action>", "<action>not A</action>", "<action>A or B</action>",
        "Answer: A/B", "Answer: A or B", "Action: **A** | **B**", "The choice is A and B", "A and B are both fine",
        "Stay away from A", "Anything but A", "Everything except B", "Nicht A", "Ne choisis pas A", "不要选 A", "Не A",
        "**A** or **B**", "A good question.", "Bright lights", "I'm sorry, I can't help with that.", "ABBA", "AB",
    ],
)  # fmt: skip
def test_what_names_none(text):
    assert named_action(text, LABELS, WORDS) is None


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("1", 1), ("1.", 1), ("Answer: 1", 1), ("I choose action 0.", 0), ("Action **1** is best", 1), ("0) stay", 0),
        ("<action>1</action>", 1), ("<action>1 - right</action>", 1), ("1. It is safe.", 1),
        ("I go right (action 1)", 1),
        ("I have 10 points and 1 ace.", None), ("1. I have 12.\n2. The dealer has 6.\nSo I stay.", None),
        ("Answer: 1.5", None), ("The value is 0.1", None), ("12", None),
    ],
)  # fmt: skip
def test_numbers_are_labels_only_where_they_are_said_to_be(text, index):
    assert named_action(text, ("0", "1")) == index


def test_what_is_cut_off_may_go_on():
    assert named_action("Let me see. If I went right", LABELS, WORDS) is None
    assert named_action("Let me see, right is safe", LABELS, WORDS, cut=True) is None
    assert named_action("Let me see, right is safe", LABELS, WORDS) == 1


def test_names_that_contain_each_other_are_told_apart():
    assert named_action("up-left", ("up", "up-left")) == 1
    assert named_action("I go up-left.", ("up", "up-left")) == 1
    assert named_action("Action 10", ("1", "10")) == 1
    assert named_action("a", ("a", "A")) == 0 and named_action("A", ("a", "A")) == 1


def read_scores(tokens, labels, words=()):
    return read(parse_reply(json.dumps(reply("x", likely(tokens))).encode()), labels, words, scored=True)


def test_words_of_several_tokens_are_scored_by_what_tells_them_apart():
    found = read_scores({" st": 0.6, "h": 0.2, "hit": 0.1, "The": 0.1}, ("hit", "stick"))
    assert isinstance(found, Distribution)
    assert found.probabilities == pytest.approx((1 / 3, 2 / 3)) and found.mass == pytest.approx(0.9)
    found = read_scores({"St": 0.6, "Hit": 0.3}, ("hit", "stick"))
    assert isinstance(found, Distribution) and found.probabilities == pytest.approx((1 / 3, 2 / 3))
    found = read_scores({"So": 0.6, "I": 0.2, " nor": 0.1, "south": 0.1}, ("north", "south"))
    assert isinstance(found, Distribution) and found.probabilities == pytest.approx((0.5, 0.5))
    assert isinstance(read_scores({"s": 0.9}, ("stay", "stick")), NotRead), "both begin so"
    assert read_scores({"right": 0.3, "B": 0.3, "A": 0.2}, LABELS, WORDS).probabilities == pytest.approx((0.25, 0.75))


def test_words_beyond_ascii_are_recognised_as_byte_level_tokens():
    assert read_scores({"ĠÃ©": 0.5, "Ãł": 0.25}, ("é", "à")).probabilities == pytest.approx((2 / 3, 1 / 3))


def test_reasons_say_what_was_found():
    found = read_scores({"Sure": 0.6, "The": 0.3}, LABELS)
    assert found == NotRead("no legal answer is among the 2 likeliest tokens ('Sure', 'The')")
    assert parse_reply(b"<html><body>Log in</body></html>") == NotRead("the reply is not JSON: 'Log in'")
    thought = read(parse_reply(json.dumps(reply("", reasoning="hm")).encode()), LABELS, scored=False)
    assert isinstance(thought, NotRead) and "raise thinking_tokens" in thought.reason
