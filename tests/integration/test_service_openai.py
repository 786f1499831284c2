"""The engine for OpenAI-compatible endpoints, against a real HTTP server."""

from __future__ import annotations

import pytest

from tests.integration.endpoint_fake import running_endpoint
from tutor_service.config import TutorConfig
from tutor_service.engines.openai import OpenAIEngine
from tutor_service.errors import UserError
from tutor_service.prompts.messages import MessagePrompts
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


@pytest.mark.parametrize(
    ("status", "fields", "said"),
    [
        (401, {}, "asks for a key"),
        (401, {"api_key_env": "REMOTE_KEY"}, "refused the key in 'REMOTE_KEY'"),
        (404, {}, "404 for model 'm'"),
    ],
)
async def test_a_start_that_cannot_work_says_why(endpoint, monkeypatch, status, fields, said):
    monkeypatch.setenv("REMOTE_KEY", "sesame")
    endpoint.status = status
    with pytest.raises(UserError, match=said) as refusal:
        await OpenAIEngine(tutor(endpoint, **fields)).start()
    assert "sesame" not in str(refusal.value)


async def test_the_key_is_read_from_a_mounted_file_too(endpoint, tmp_path):
    file = tmp_path / "key"
    file.write_text("sesame\n")
    await OpenAIEngine(tutor(endpoint, api_key_file=str(file))).start()
    assert set(endpoint.keys) == {"Bearer sesame"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"api_key_env": "NO_SUCH_KEY"},
            r"tutor 'remote': environment variable 'NO_SUCH_KEY' holds no API key on node",
        ),
        ({"api_key_file": "/no/such/key"}, r"tutor 'remote': file '/no/such/key' with the API key cannot be read on"),
        ({"api_key_env": "A", "api_key_file": "/b"}, "not by both"),
    ],
)
async def test_a_key_that_its_node_has_not_got_is_named(endpoint, monkeypatch, fields, said):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(UserError, match=said):
        await OpenAIEngine(tutor(endpoint, **fields)).start()
    assert endpoint.bodies == [], "nothing was asked with a made-up key"


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
