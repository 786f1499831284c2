import asyncio
import hashlib

import httpx
import pytest

from tests.unit.service_fakes import FakeModel, make_gateway, no_figures
from tutor_service.gateway.http import AccessSettings, BodyLimit, build_app
from tutor_service.schema import AdviceError

GOOD = {"rules": "Play.", "state": "sum 12", "actions": ["stick", "hit"]}


def client(access=None, advise=None):
    advise = advise or make_gateway(FakeModel()).advise
    app = build_app("fake", advise, no_figures, access or AccessSettings())
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_advice_in_the_requests_order():
    async with client() as http:
        reply = await http.post("/advise", json={"requests": [GOOD, {**GOOD, "state": " "}, GOOD]})
    assert reply.status_code == 200
    first, bad, again = reply.json()["advice"]
    assert first["probabilities"] == [0.75, 0.25] and first["source"] == "model" and again["source"] == "store"
    assert "state" in bad["reason"] and bad["retry"] is False


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"requests": [{**GOOD, "actions": ["hit", "hit"]}]}, 400, "distinct"),
        ({"requests": [{**GOOD, "actions": ["hit", "st\x00ick"]}]}, 400, "control character"),
        ({"requests": [{**GOOD, "state": "   "}]}, 400, "empty"),
        ({"requests": [{**GOOD, "state": ""}]}, 422, "state"),
        ({"requests": [{**GOOD, "actions": ["hit"]}]}, 422, "actions"),
        ({"requests": [{**GOOD, "actions": "hit"}]}, 422, "actions"),
        ({"requests": [{**GOOD, "sate": "x"}]}, 422, "sate"),
        ({"requests": []}, 422, "requests"),
        ({}, 422, "requests"),
        ([], 422, ""),
    ],
)
async def test_bad_bodies_get_a_4xx_with_the_reason(body, status, said):
    async with client() as http:
        reply = await http.post("/advise", json=body)
    assert reply.status_code == status and said in reply.text


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"\xff\xfe", b'{"requests": "\xff"}', b'{"requests": [{"state": "\\ud800"}]}']
)
async def test_bytes_that_are_no_json_get_a_4xx(raw):
    async with client() as http:
        reply = await http.post("/advise", content=raw, headers={"Content-Type": "application/json"})
    assert 400 <= reply.status_code < 500


async def test_lone_surrogates_get_a_4xx_that_can_be_read():
    raw = b'{"requests": [{"rules": "r", "state": "\\ud800", "actions": ["a", "b"]}]}'
    async with client() as http:
        reply = await http.post("/advise", content=raw, headers={"Content-Type": "application/json"})
    assert 400 <= reply.status_code < 500 and reply.json()


async def test_large_bodies_are_refused_declared_or_not():
    async def chunks():
        for _ in range(100):
            yield b"x" * 100

    async with client(AccessSettings(max_body_bytes=500)) as http:
        assert (await http.post("/advise", content=b"x" * 501)).status_code == 413
        assert (await http.post("/advise", content=chunks())).status_code == 413


async def test_a_declared_large_body_is_refused_before_it_is_read():
    sent = []

    async def receive():
        raise AssertionError("the body was read")

    async def send(message):
        sent.append(message)

    async def inner(scope, receive, send):
        raise AssertionError("the application was reached")

    scope = {"type": "http", "method": "POST", "path": "/advise", "headers": [(b"content-length", b"501")]}
    await BodyLimit(inner, max_bytes=500, max_held_bytes=1000)(scope, receive, send)
    assert sent[0]["status"] == 413


async def test_bodies_of_calls_under_way_are_bounded_together():
    answer = asyncio.Event()
    reached = []

    async def inner(scope, receive, send):
        reached.append((await receive())["body"])
        await answer.wait()

    def post(limit):
        parts = [{"type": "http.request", "body": b"x" * 200, "more_body": more} for more in (False, True)]

        async def receive():
            return parts.pop()

        sent = []

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/advise", "headers": []}
        return asyncio.create_task(limit(scope, receive, send)), sent

    limit = BodyLimit(inner, max_bytes=500, max_held_bytes=1000)
    calls = [post(limit) for _ in range(3)]
    await asyncio.wait_for(calls[2][0], 10)
    headers = dict(calls[2][1][0]["headers"])
    assert calls[2][1][0]["status"] == 503 and headers[b"retry-after"] == b"1" and len(reached) == 2
    answer.set()
    for call, _ in calls:
        await call
    await post(limit)[0]
    assert len(reached) == 3, "what was answered is held no longer"


async def test_the_token_is_asked_for_and_told_apart():
    access = AccessSettings(token_sha256=hashlib.sha256(b"geheim").digest())
    async with client(access) as http:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic geheim"}):
            reply = await http.post("/advise", json={"requests": [GOOD]}, headers=headers)
            assert reply.status_code == 401 and reply.headers["WWW-Authenticate"] == "Bearer"
            assert (await http.get("/metrics", headers=headers)).status_code == 401
        right = {"Authorization": "Bearer geheim"}
        assert (await http.post("/advise", json={"requests": [GOOD]}, headers=right)).status_code == 200
        assert (await http.get("/metrics", headers=right)).text.startswith("tutor_advice_total")
        assert (await http.get("/healthz")).json() == {"status": "ok", "tutor": "fake"}


async def test_a_tutor_that_cannot_answer_now_says_when_to_come_back():
    async def busy(requests, within_s):
        return [AdviceError("tutor: overloaded", retry=True)] * len(requests)

    async with client(advise=busy) as http:
        reply = await http.post("/advise", json={"requests": [GOOD]})
    assert reply.status_code == 503 and reply.headers["Retry-After"] and "overloaded" in reply.text


async def test_among_many_reasons_the_one_that_the_status_stands_for_is_told():
    async def busy_and_bad(requests, within_s):
        bad = [AdviceError(f"actions: label {number} is empty") for number in range(len(requests) - 1)]
        return [*bad, AdviceError("tutor: overloaded", retry=True)]

    async with client(advise=busy_and_bad) as http:
        reply = await http.post("/advise", json={"requests": [GOOD] * 20})
    assert reply.status_code == 503
    assert len(reply.json()["detail"]) == 10 and reply.json()["detail"][0] == "tutor: overloaded"


async def test_a_caller_says_how_long_it_waits():
    told = []

    async def advise(requests, within_s):
        told.append(within_s)
        return [AdviceError("late", retry=True)] * len(requests)

    async with client(advise=advise) as http:
        for body in ({"within_s": 2.5}, {}):
            await http.post("/advise", json={"requests": [GOOD], **body})
        assert (await http.post("/advise", json={"requests": [GOOD], "within_s": 0.0})).status_code == 422
    assert told == [2.5, None]


async def test_the_api_documents_itself():
    async with client() as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
    assert set(paths) == {"/advise", "/healthz", "/metrics"}
