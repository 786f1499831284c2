"""The engine for OpenAI-compatible endpoints, against a real HTTP server."""

from __future__ import annotations

import pytest

from tests.integration.endpoint_fake import running_endpoint
from tutor_service.config import TutorConfig
from tutor_service.engines.openai import OpenAIEngine
from tutor_service.errors import UserError
from tutor_service.prompt import MessagePrompts
from tutor_service.schema import AdviceError, AdviceRequest


@pytest.fixture
def endpoint():
    with running_endpoint() as endpoint:
        yield endpoint


def tutor(endpoint, **fields):
    return TutorConfig(name="remote", backend="openai", model="m", base_url=endpoint.url, **fields)


def prompt(decoding="scored", actions=("left", "right")):
    return MessagePrompts(decoding).build(AdviceRequest("Rules.", "State.", actions))


async def test_log_probabilities_become_a_distribution(endpoint, monkeypatch):
    monkeypatch.setenv("REMOTE_KEY", "sesame")
    engine = OpenAIEngine(tutor(endpoint, api_key_env="REMOTE_KEY", engine={"top_logprobs": 5}))
    facts = await engine.start()
    assert facts.decoding == "scored"
    (answer,) = await engine.evaluate([prompt()])
    assert answer.probabilities == pytest.approx((0.5, 0.5)) and answer.legal_mass == pytest.approx(0.6)
    assert answer.tokens == 91
    body = endpoint.bodies[-1]
    assert body["max_tokens"] == 1 and body["top_logprobs"] == 5 and body["temperature"] == 0
    assert set(endpoint.keys) == {"Bearer sesame"} and "sesame" not in facts.identity


async def test_without_log_probabilities_words_are_read(endpoint):
    endpoint.logprobs = False
    engine = OpenAIEngine(tutor(endpoint))
    facts = await engine.start()
    assert facts.decoding == "text"
    endpoint.text = ["hm", "<action>A</action>"]
    (answer,) = await engine.evaluate([prompt("text")])
    assert answer.probabilities == (1, 0) and answer.invalid == 1
    scored = OpenAIEngine(tutor(endpoint))
    endpoint.logprobs = True
    assert (await scored.start()).identity != facts.identity


async def test_reasoning_gets_room_for_its_thought(endpoint):
    engine = OpenAIEngine(tutor(endpoint, decoding="reasoned", thinking_tokens=100, answer_tokens=10))
    assert (await engine.start()).decoding == "text"
    await engine.evaluate([prompt("text")])
    assert endpoint.bodies[-1]["max_tokens"] == 110


@pytest.mark.parametrize(("status", "said"), [(401, "refused the key"), (404, "404 for model 'm'")])
async def test_a_start_that_cannot_work_says_why(endpoint, status, said):
    endpoint.status = status
    with pytest.raises(UserError, match=said):
        await OpenAIEngine(tutor(endpoint)).start()


async def test_nobody_at_the_address(endpoint, monkeypatch):
    config = TutorConfig(name="r", backend="openai", model="m", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(UserError, match=r"base_url = 'http://127\.0\.0\.1:9/v1' cannot be reached"):
        await OpenAIEngine(config).start()


@pytest.mark.parametrize(("status", "retry"), [(400, False), (429, True), (500, True)])
async def test_failures_of_single_requests(endpoint, status, retry):
    engine = OpenAIEngine(tutor(endpoint))
    await engine.start()
    endpoint.status = status
    (answer,) = await engine.evaluate([prompt()])
    assert isinstance(answer, AdviceError) and answer.retry is retry
