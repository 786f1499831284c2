"""The engine for other people's endpoints against stand-ins on a loopback port: every behaviour has its outcome."""

from __future__ import annotations

import asyncio
import json
import ssl

import pytest

from tests.unit import endpoint_standin as standin
from tests.unit.endpoint_standin import Refused, error, good, reply, running
from tutor_service import proxies
from tutor_service.config import TutorConfig
from tutor_service.engines.endpoint import retries
from tutor_service.engines.endpoint.engine import OpenAIEngine
from tutor_service.errors import UserError
from tutor_service.prompts.messages import MessagePrompts
from tutor_service.schema import Advice, AdviceError, AdviceRequest
from tutor_service.tutor_files import load_tutor


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(retries, "BACKOFF_S", 0.001)


def tutor(endpoint, **fields):
    return TutorConfig(name="remote", backend="openai", model="m", base_url=endpoint.url, **fields)


def prompts(decoding, number=1, actions=("left", "right")):
    return [MessagePrompts(decoding).build(AdviceRequest("Rules.", f"State {n}.", actions)) for n in range(number)]


async def started(endpoint, **fields):
    engine = OpenAIEngine(tutor(endpoint, **fields))
    facts = await engine.start()
    return engine, facts


@pytest.mark.parametrize("name", standin.SCORED)
async def test_log_probabilities_are_read(name):
    with running(standin.SCORED[name]) as endpoint:
        engine, facts = await started(endpoint)
        assert facts.decoding == "scored"
        (answer,) = await engine.evaluate(prompts("scored"))
        assert isinstance(answer, Advice), answer
        assert answer.probabilities == pytest.approx((0.2, 0.8)) and answer.legal_mass == pytest.approx(1)


@pytest.mark.parametrize("name", standin.READ_AS_WORDS)
async def test_without_usable_log_probabilities_words_are_read(name):
    with running(standin.READ_AS_WORDS[name]) as endpoint:
        engine, facts = await started(endpoint)
        assert facts.decoding == "text"
        assert any("log-probabilities" in note for note in facts.notes), "said why"
        (answer,) = await engine.evaluate(prompts("text"))
        assert isinstance(answer, Advice), answer
        assert answer.probabilities == (0, 1)
        assert len(endpoint.bodies) <= 20, "a few requests"


@pytest.mark.parametrize("name", standin.UNREADABLE)
@pytest.mark.parametrize("decoding", ["scored", "text"])
async def test_one_bad_reply_among_many_costs_its_own_prompt_only(name, decoding):
    with running(standin.one_in(4, standin.UNREADABLE[name])) as endpoint:
        engine, facts = await started(endpoint, decoding=decoding, text_attempts=1)
        assert facts.decoding == decoding
        before = len(endpoint.bodies)
        answers = await engine.evaluate(prompts(decoding, 8))
        bad = sum(number % 4 == 3 for number in range(before + 1, before + 9))
        missed = [answer for answer in answers if isinstance(answer, AdviceError)]
        assert len(missed) == bad and all(error.reason.startswith("endpoint: ") for error in missed)
        wanted = (0.2, 0.8) if decoding == "scored" else (0, 1)
        read = [answer for answer in answers if isinstance(answer, Advice)]
        assert len(read) == 8 - bad and all(answer.probabilities == pytest.approx(wanted) for answer in read)


@pytest.mark.parametrize("name", [name for name in standin.UNREADABLE if name not in ("two labels", "another word")])
async def test_an_endpoint_that_never_answers_is_refused_at_the_start_or_misses(name):
    with running(lambda body, number: standin.UNREADABLE[name]) as endpoint:
        engine = OpenAIEngine(tutor(endpoint, text_attempts=2))
        try:
            facts = await engine.start()
        except UserError as refusal:
            assert "nothing that can be read" in str(refusal)
        else:
            (answer,) = await engine.evaluate(prompts(facts.decoding))
            assert isinstance(answer, AdviceError)


async def test_answers_that_name_no_action_are_asked_for_again_and_then_missed():
    answers = iter(["<action>B</action>", "hm", "<action>A</action>", "hm", "hm", "hm"])
    with running(lambda body, number: reply(next(answers))) as endpoint:
        engine, _ = await started(endpoint, decoding="text")
        (answer,) = await engine.evaluate(prompts("text"))
        assert isinstance(answer, Advice) and answer.probabilities == (1, 0) and answer.invalid == 1
        assert endpoint.bodies[-1]["temperature"] == 1.0 and endpoint.bodies[-1]["seed"] == 1
        (answer,) = await engine.evaluate(prompts("text"))
        assert isinstance(answer, AdviceError) and "names no legal action: 'hm' (asked 3 times)" in answer.reason


async def test_what_was_found_is_used_and_told():
    with running(standin.reasons_only) as endpoint:
        engine, facts = await started(endpoint)
        await engine.evaluate(prompts("text"))
        body = endpoint.bodies[-1]
        assert body["max_completion_tokens"] == 512 + 64 and "temperature" not in body and "logprobs" not in body
        said = "\n".join(facts.notes)
        assert "thinks first" in said and "Only the default (1) is supported. (HTTP 400)" in said
    with running(standin.capped(5)) as endpoint:
        await started(endpoint)
        assert endpoint.bodies[-1]["top_logprobs"] == 5
    with running(good) as endpoint:
        await started(endpoint)
        assert len(endpoint.bodies) == 1, "where all is taken one request says so"


async def test_a_lone_log_probability_is_said():
    lone = {"content": [{"token": "B", "logprob": -0.2, "top_logprobs": []}]}
    with running(standin.scored(lone)) as endpoint:
        engine, facts = await started(endpoint)
        assert any("only its log-probability is given" in note for note in facts.notes)
        (answer,) = await engine.evaluate(prompts("scored"))
        assert answer.probabilities == (0, 1)


async def test_the_reason_is_the_providers():
    with running(standin.LOGPROBS_REFUSED["unknown_field"]) as endpoint:
        _, facts = await started(endpoint)
        assert any("body.logprobs: Extra inputs are not permitted (HTTP 422)" in note for note in facts.notes)


async def test_what_the_file_says_is_not_asked():
    fields = {"top_logprobs": 3, "temperature": False, "length_field": "max_completion_tokens", "least_tokens": 4}
    with running(good) as endpoint:
        _, facts = await started(endpoint, capabilities=fields)
        assert facts.decoding == "scored" and len(endpoint.bodies) == 1
        body = endpoint.bodies[0]
        assert body["top_logprobs"] == 3 and body["max_completion_tokens"] == 4 and "temperature" not in body
    with (
        running(standin.refuses("seed")) as endpoint,
        pytest.raises(UserError, match=r"nope.*capabilities says \(top_l"),
    ):
        await started(endpoint, capabilities={"top_logprobs": 0, "seed": True})


async def test_options_of_the_engine_are_in_every_request():
    with running(good) as endpoint:
        engine, _ = await started(endpoint, engine={"top_logprobs": 5, "reasoning_effort": "low"})
        await engine.evaluate(prompts("scored"))
        assert all(body["reasoning_effort"] == "low" and body["top_logprobs"] == 5 for body in endpoint.bodies)


async def test_a_model_that_only_streams_is_read_by_the_engines_option():
    def behave(body, number):
        if not body.get("stream"):
            raise Refused(400, error("This model only supports stream mode"))
        return standin.stream(body, number)

    with running(behave) as endpoint:
        with pytest.raises(
            UserError, match=r"only supports stream mode \(HTTP 400\)\. Check base_url, model and engine"
        ):
            await started(endpoint)
        engine, _ = await started(endpoint, engine={"stream": True})
        (answer,) = await engine.evaluate(prompts("text"))
        assert isinstance(answer, Advice) and answer.probabilities == (0, 1)


@pytest.mark.parametrize(
    ("status", "fields", "said"),
    [
        (401, {}, r"Incorrect API key \(HTTP 401\)\. Name its key in api_key_env"),
        (401, {"api_key_env": "REMOTE_KEY"}, r"Check the key in 'REMOTE_KEY'"),
        (403, {"api_key_env": "REMOTE_KEY"}, r"Check the key in 'REMOTE_KEY' and what it may do"),
        (404, {}, r"refuses model 'm': Incorrect API key \(HTTP 404\)\. Check model, and base_url"),
        (400, {}, r"\(HTTP 400\)\. Check base_url, model and engine\."),
        (400, {"template_arguments": {"a": 1}}, r"\(HTTP 400\)\. Check base_url, model and engine, and template_arg"),
        (402, {}, "has to be paid"),
        (407, {}, "http://USER:PASSWORD@HOST"),
        (429, {}, "lower concurrency"),
        (500, {}, "its own log"),
        (503, {}, "try again when its model is loaded"),
    ],
)
async def test_a_real_refusal_is_an_error_in_the_providers_words(monkeypatch, status, fields, said):
    monkeypatch.setenv("REMOTE_KEY", "sesame")
    monkeypatch.setattr("tutor_service.engines.endpoint.engine._MAX_LOADING_S", 0.3)

    def refuse(body, number):
        raise Refused(status, error("Incorrect API key"))

    with running(refuse) as endpoint, pytest.raises(UserError, match=said) as refusal:
        await started(endpoint, **fields)
    assert "sesame" not in str(refusal.value)


async def test_a_key_that_the_provider_repeats_is_left_out(monkeypatch):
    monkeypatch.setenv("REMOTE_KEY", "sesame")

    def refuse(body, number):
        raise Refused(401, error("Incorrect API key provided: sesame"))

    with running(refuse) as endpoint, pytest.raises(UserError, match="provided: …") as refusal:
        await started(endpoint, api_key_env="REMOTE_KEY")
    assert "sesame" not in str(refusal.value) and set(endpoint.keys) == {"Bearer sesame"}


async def test_a_server_that_loads_its_model_is_waited_for_at_the_start():
    def behave(body, number):
        if number <= 10:
            raise Refused(503, {"error": "Model m is currently loading", "estimated_time": 20.0})
        return good(body, number)

    with running(behave) as endpoint:
        _, facts = await started(endpoint)
        assert facts.decoding == "scored" and len(endpoint.bodies) == 11


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('\ufeff{"error": {"message": "bad key"}}', r"'m': bad key \("),
        ({"detail": [{"loc": ["body", "a"], "msg": "x"}, {"loc": ["b"], "msg": "y"}]}, r"'m': body\.a: x; b: y \("),
        ([{"error": {"code": 400, "message": "not valid"}}], r"'m': not valid \("),
    ],
)
async def test_refusals_are_told_in_one_line(body, said):
    def refuse(request, number):
        raise Refused(400, body)

    with running(refuse) as endpoint, pytest.raises(UserError, match=said):
        await started(endpoint)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            {"choices": None, "base_resp": {"status_msg": "login fail"}},
            r"no choices: .*login fail.*Check that base_url",
        ),
        (standin.HTML, r"502 Bad Gateway.*Check that base_url .*, and model 'm'"),
        (standin.cut("Let me see. Left is"), r"cut off: raise answer_tokens\. Check model 'm'"),
        (standin.cut("", reasoning="hm"), r"raise thinking_tokens\. Check model 'm'"),
    ],
)
async def test_what_was_not_read_is_told_with_its_remedy(answer, said):
    with running(lambda body, number: answer) as endpoint, pytest.raises(UserError, match=said):
        await started(endpoint)


async def test_a_failure_that_passes_is_tried_again():
    def behave(body, number):
        if number in (2, 3):
            raise Refused((503, 429)[number - 2], error("busy"), {"Retry-After": "0"} if number == 3 else None)
        return good(body, number)

    with running(behave) as endpoint:
        engine, _ = await started(endpoint)
        (answer,) = await engine.evaluate(prompts("scored"))
        assert isinstance(answer, Advice) and len(endpoint.bodies) == 4


@pytest.mark.parametrize(("status", "retry"), [(400, False), (403, False), (429, True), (500, True), (529, True)])
async def test_failures_of_single_requests(status, retry):
    def behave(body, number):
        if number > 1:
            raise Refused(status, error("as told"))
        return good(body, number)

    with running(behave) as endpoint:
        engine, _ = await started(endpoint)
        (answer,) = await engine.evaluate(prompts("scored"))
        assert answer == AdviceError(f"endpoint: as told (HTTP {status})", retry=retry)


@pytest.mark.parametrize("pause", ["3600", "1764510000", "Wed, 21 Oct 2099 07:28:00 GMT"])
async def test_a_long_pause_is_kept_for_an_hour_and_nothing_is_sent_meanwhile(pause):
    def behave(body, number):
        if number > 1:
            raise Refused(429, error("Daily limit reached"), {"Retry-After": pause})
        return good(body, number)

    with running(behave) as endpoint:
        engine, _ = await started(endpoint)
        answers = [*await engine.evaluate(prompts("scored")), *await engine.evaluate(prompts("scored", 5))]
        assert len(endpoint.bodies) == 2
        assert all(isinstance(answer, AdviceError) and answer.retry for answer in answers)
        assert all("pause of 3600 s: Daily limit reached" in answer.reason for answer in answers)


async def test_an_answer_that_takes_too_long_is_a_miss(monkeypatch):
    hold = asyncio.Event()
    with running(good) as endpoint:
        engine, _ = await started(endpoint)
        monkeypatch.setattr(engine._session._transport, "_timeout_s", 0.05)
        monkeypatch.setattr(engine._session._transport, "_post", lambda body: hold.wait())
        (answer,) = await engine.evaluate(prompts("scored"))
        assert answer == AdviceError("endpoint: no answer within timeout_s = 0.05", retry=True)


async def test_no_more_requests_at_a_time_than_allowed(monkeypatch):
    with running(good) as endpoint:
        engine, _ = await started(endpoint, concurrency=3)
        under_way, most = 0, 0
        post = engine._session._transport.post

        async def counted(body):
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0)
            try:
                return await post(body)
            finally:
                under_way -= 1

        monkeypatch.setattr(engine._session._transport, "post", counted)
        await engine.evaluate(prompts("scored", 12))
        assert most == 3


@pytest.mark.parametrize(
    ("budget", "answered"),
    [
        ({"max_requests": 6}, 5),
        ({"max_tokens": 51 * 6 + 20}, 5),
        ({"max_cost": 51e-6 * 6.4, "price_in": 1, "price_out": 1}, 5),
        ({}, 12),
    ],
)
async def test_a_budget_that_is_used_up_leaves_misses(budget, answered):
    with running(good) as endpoint:
        engine, _ = await started(endpoint, budget=budget, concurrency=1)
        answers = await engine.evaluate(prompts("scored", 12))
        assert sum(isinstance(answer, Advice) for answer in answers) == answered
        assert len(endpoint.bodies) == answered + 1, "the start's request counts"
        refused = [answer for answer in answers if isinstance(answer, AdviceError)]
        limit = next(iter(budget), "")
        assert all(f"budget.{limit}" in answer.reason and not answer.retry for answer in refused)


@pytest.mark.parametrize("when_spent", ["miss", "fail"])
async def test_a_budget_that_is_used_up_ends_students_where_it_says_so(when_spent):
    with running(good) as endpoint:
        engine, _ = await started(endpoint, budget={"max_requests": 1, "when_spent": when_spent})
        (question,) = prompts("scored")
        for answer in (*await engine.evaluate([question]), await engine.write(question, 16)):
            assert isinstance(answer, AdviceError) and answer.fatal is (when_spent == "fail")


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"])
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks4://127.0.0.1:9", "nonsense://x"])
@pytest.mark.parametrize("spared", [None, "example.org"])
async def test_loopback_is_reached_whatever_the_proxy(monkeypatch, variable, proxy, spared):
    monkeypatch.setenv(variable, proxy)
    monkeypatch.delenv("NO_PROXY", raising=False)
    if spared:
        monkeypatch.setenv("NO_PROXY", spared)
    with running(good) as endpoint:
        engine, _ = await started(endpoint)
        (answer,) = await engine.evaluate(prompts("scored"))
        assert isinstance(answer, Advice)
        elsewhere = TutorConfig(name="r", backend="openai", model="m", base_url="http://llm.example.org/v1")
        if variable.lower() != "https_proxy" and not spared:
            with pytest.raises(UserError, match=r"proxy|PROXY"):
                await OpenAIEngine(elsewhere).start()


async def test_nobody_at_the_address():
    config = TutorConfig(name="r", backend="openai", model="m", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(UserError, match=r"base_url = 'http://127\.0\.0\.1:9/v1' cannot be reached"):
        await OpenAIEngine(config).start()


async def test_a_moody_endpoint_is_not_taken_for_one_without_log_probabilities():
    with running(lambda body, number: reply(None) if number == 1 else good(body, number)) as endpoint:
        _, facts = await started(endpoint)
        assert facts.decoding == "scored"


@pytest.mark.parametrize("ending", ["/", "/chat/completions", "/chat/completions/", "?api-version=1", "#top", " \n"])
async def test_addresses_as_people_write_them(ending):
    with running(good) as endpoint:
        config = TutorConfig(name="r", backend="openai", model="m", base_url=endpoint.url + ending)
        await OpenAIEngine(config).start()
        assert endpoint.paths == ["/v1/chat/completions" + (ending if "?" in ending else "")]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("localhost:11434/v1", "begins neither with http:// nor with https://"),
        ("127.0.0.1:11434/v1", "begins neither with http:// nor with https://"),
        ("http:///v1", "names no host"),
        ("http://127.0.0.1:99999/v1", "out of range"),
        ("http://::1:8000/v1", "Port could not be cast"),
        ("http://me:sesame@127.0.0.1/v1", "api_key_env or api_key_file, as 'Basic '"),
    ],
)
def test_addresses_that_are_none_are_refused_when_the_file_is_read(address, said):
    with pytest.raises(ValueError, match=said) as refusal:
        TutorConfig(name="r", backend="openai", model="m", base_url=address)
    assert "sesame" not in str(refusal.value)


async def test_an_address_without_an_api_is_told_with_what_was_called():
    def refuse(body, number):
        raise Refused(404, {"detail": "Not Found"})

    with running(refuse) as endpoint, pytest.raises(UserError, match=r"ends in /v1: http://\S+/chat/completions was"):
        await started(endpoint)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_followed_with_the_question_and_the_key_stays_with_its_host(monkeypatch, status):
    monkeypatch.setenv("REMOTE_KEY", "sesame")
    with running(standin.redirected(status, lambda: "/v2/chat/completions")) as endpoint:
        _, facts = await started(endpoint, api_key_env="REMOTE_KEY")
        assert facts.decoding == "scored" and endpoint.paths[1] == "/v2/chat/completions"
        assert endpoint.bodies[0] == endpoint.bodies[1] and endpoint.keys == ["Bearer sesame"] * 2
    with (
        running(good) as other,
        running(standin.redirected(status, lambda: f"{other.url}/chat/completions")) as endpoint,
    ):
        await started(endpoint, api_key_env="REMOTE_KEY")
        assert other.keys == [None]


@pytest.mark.parametrize("to", ["/v1/chat/completions", "http://127.0.0.1:9/", "ftp://x/", "http://127.0.0.1:99999/"])
async def test_redirects_to_nowhere_are_told(to):
    def redirect(body, number):
        raise Refused(307, "", {"Location": to})

    with (
        running(redirect) as endpoint,
        pytest.raises(UserError, match=r"HTTP 307|cannot be reached \(.*after a redirect"),
    ):
        await started(endpoint)
    assert len(endpoint.bodies) <= 24


@pytest.mark.parametrize(
    ("key", "sent"),
    [
        ("sesame\n", "Bearer sesame"),
        ("\ufeffsesame", "Bearer sesame"),
        ("Bearer sesame", "Bearer sesame"),
        ("Basic c2VzYW1l", "Basic c2VzYW1l"),
        ("open\nsesame", None),
        ("sésame", None),
    ],
)
async def test_keys_as_they_stand_in_files(tmp_path, key, sent):
    file = tmp_path / "key"
    file.write_text(key, encoding="utf-8")
    with running(good) as endpoint:
        if sent is not None:
            await started(endpoint, api_key_file=str(file))
            assert endpoint.keys == [sent]
            return
        with pytest.raises(UserError, match=r"the API key in '.*key' is several lines") as refusal:
            await started(endpoint, api_key_file=str(file))
        assert "same" not in str(refusal.value) and not endpoint.keys


@pytest.mark.parametrize(
    "field",
    [
        "api_key: sk-sesame",
        "OPENAI_API_KEY: sk-sesame",
        "headers: {Authorization: Bearer sesame}",
        "api_key_env: sk-sesame",
        "api_key_env: gsk_sesame0123456789abcdefghij",
        "api_key_env: [sk-sesame]",
        "base_url: http://me:sesame@127.0.0.1/v1",
    ],
)
def test_a_key_that_stands_in_the_tutors_file_is_refused_and_not_shown(tmp_path, field):
    file = tmp_path / "remote.yaml"
    file.write_text(f"backend: openai\nmodel: m\n{field}\n")
    with pytest.raises(UserError, match=field.split(":")[0]) as refusal:
        load_tutor(str(file))
    assert "sesame" not in str(refusal.value) and "api_key_env" in str(refusal.value)


async def test_a_certificate_that_nobody_vouches_for(tmp_path, monkeypatch):
    certificate = standin.self_signed(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    proxies._ssl_context.cache_clear()
    with running(good, server) as endpoint:
        with pytest.raises(UserError, match=r"self-signed certificate .*; SSL_CERT_FILE names a file of certificates"):
            await started(endpoint)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        proxies._ssl_context.cache_clear()
        _, facts = await started(endpoint)
        assert facts.decoding == "scored"
    proxies._ssl_context.cache_clear()


async def test_https_where_a_server_speaks_http():
    async def answer(reader, writer):
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        address = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        with pytest.raises(UserError, match="is it http instead of https"):
            await OpenAIEngine(TutorConfig(name="r", backend="openai", model="m", base_url=address)).start()


async def test_a_long_pause_at_the_start_is_no_wrong_address():
    def refuse(body, number):
        raise Refused(429, error("Daily limit reached"), {"Retry-After": "3600"})

    with running(refuse) as endpoint, pytest.raises(UserError, match=r"may not be asked now.*3600 s: Daily limit"):
        await started(endpoint)


async def test_the_identity_is_that_of_what_can_change_an_answer():
    def identity(behave, **fields):
        async def start():
            with running(behave) as endpoint:
                _, facts = await started(endpoint, **fields)
                return json.loads(facts.identity) | {"base_url": ""}

        return start()

    plain = await identity(good)
    assert plain == await identity(
        good, concurrency=2, timeout_s=9, budget={"max_requests": 99}, requests_per_minute=1e6
    )
    for other in (standin.capped(5), standin.refuses("temperature"), standin.reasons_only):
        assert await identity(other) != plain
