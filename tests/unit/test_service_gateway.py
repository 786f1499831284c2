import asyncio
import itertools
import random

import pytest

from tests.unit.service_fakes import FakeModel, FakeStore, make_gateway, request
from tutor_service.gateway.gateway import MAX_LIST
from tutor_service.gateway.metrics import GatewayMetrics
from tutor_service.schema import Advice, AdviceError, AdviceRequest


def sources(answers):
    return [answer.source if isinstance(answer, Advice) else "error" for answer in answers]


async def turns():
    """Lets the event loop do all that it can do now."""
    for _ in range(200):
        await asyncio.sleep(0)


async def test_a_state_is_evaluated_once_however_often_it_is_asked():
    model, store = FakeModel(), FakeStore()
    gateway = make_gateway(model, store)
    first = await gateway.advise([request(1), request(2), request(1)])
    assert sources(first) == ["model", "model", "store"]
    assert sources(await gateway.advise([request(2), request(1)])) == ["store", "store"]
    assert sources(await make_gateway(model, store).advise([request(1)])) == ["store"]
    assert len(model.evaluated) == 2
    assert first[0].probabilities == (0.75, 0.25) and first[0].legal_mass == 0.5
    assert first[0].tokens > 0 and first[2].tokens == 0


async def test_eight_callers_with_overlapping_sets_evaluate_each_state_once():
    model = FakeModel()
    model.open.clear()
    gateway = make_gateway(model, batch=7)
    draw = random.Random(0)
    lists = [[request(draw.randrange(200)) for _ in range(100)] for _ in range(8)]
    calls = [asyncio.create_task(gateway.advise(items)) for items in lists]
    await turns()
    model.open.set()
    answers = await asyncio.gather(*calls)
    distinct = {item for items in lists for item in items}
    assert len(model.evaluated) == len({prompt.token_ids for prompt in model.evaluated}) == len(distinct)
    assert sum(sources(items).count("model") for items in answers) == len(distinct)
    assert max(model.batches) <= 7
    assert gateway.num_pending == 0


async def test_a_bad_request_does_not_harm_its_list():
    model = FakeModel()
    gateway = make_gateway(model, max_prompt_tokens=200)
    bad = [
        AdviceRequest("r", "", ("a", "b")),
        AdviceRequest("r", "s", ["a", "b"]),  # type: ignore[arg-type]
        None,
        AdviceRequest("r", "s" * 300, ("a", "b")),
        AdviceRequest("r", "\udfff", ("a", "b")),
    ]
    answers = await gateway.advise([request(1), *bad, request(2)])
    assert sources(answers) == ["model", *["error"] * len(bad), "model"]
    assert not any(answer.retry for answer in answers[1:-1])
    assert "tokens in the prompt" in answers[4].reason
    assert len(model.evaluated) == 2


async def test_what_a_caller_gave_up_on_is_finished_and_kept():
    model, store = FakeModel(), FakeStore()
    model.open.clear()
    gateway = make_gateway(model, store)
    impatient = asyncio.create_task(gateway.advise([request(1)]))
    patient = asyncio.create_task(gateway.advise([request(1)]))
    await turns()
    impatient.cancel()
    await turns()
    model.open.set()
    assert sources(await patient) == ["store"]
    assert len(store.kept) == len(model.evaluated) == 1


@pytest.mark.parametrize("max_pending", [100, 1000])
async def test_what_nobody_waits_for_any_more_is_dropped_from_the_queue(max_pending):
    model, store = FakeModel(), FakeStore()
    model.open.clear()
    gateway = make_gateway(model, store, batch=4, max_in_flight=8, max_pending=max_pending)
    flood = asyncio.create_task(gateway.advise([request(n) for n in range(100)]))
    await turns()
    assert gateway.num_pending == 100 and sum(model.batches) == 8
    flood.cancel()
    await turns()
    late = asyncio.create_task(gateway.advise([request(99), request("late")]))
    await turns()
    model.open.set()
    assert sources(await late) == ["model", "model"]
    assert len(model.evaluated) == len(store.kept) == 10
    assert gateway.num_pending == 0


async def test_a_flood_leaves_the_event_loop_to_others():
    model, store = FakeModel(), FakeStore()
    looked_up: list[int] = []
    store.get_many = lambda keys: looked_up.append(len(keys)) or [None] * len(keys)
    gateway = make_gateway(model, store, max_pending=10)
    flood = [asyncio.create_task(gateway.advise([request((n, m)) for m in range(400)])) for n in range(16)]
    at_each_turn = [0]
    while not all(call.done() for call in flood[:2]):
        await asyncio.sleep(0)
        at_each_turn.append(sum(looked_up))
    assert max(after - before for before, after in itertools.pairwise(at_each_turn)) <= 32
    before = sum(looked_up)
    for call in flood:
        call.cancel()
    await asyncio.wait(flood)
    await turns()
    assert sum(looked_up) <= before + 32, "what nobody waits for any more is not looked up"


async def test_beyond_its_bound_requests_are_refused_for_the_moment():
    model = FakeModel()
    model.open.clear()
    gateway = make_gateway(model, max_pending=10)
    flood = asyncio.create_task(gateway.advise([request(n) for n in range(25)]))
    await turns()
    assert gateway.num_pending == 10
    refused = await gateway.advise([request("new")])
    assert refused[0].retry and "overloaded" in refused[0].reason
    model.open.set()
    answers = await flood
    assert sources(answers).count("model") == 10
    assert all(answer.retry for answer in answers if isinstance(answer, AdviceError))
    assert sources(await gateway.advise([request(24)])) == ["model"]


async def test_the_queue_that_prometheus_sees_is_the_one_of_this_moment():
    model, metrics = FakeModel(), GatewayMetrics("fake")
    model.open.clear()
    gateway = make_gateway(model, metrics=metrics)
    asked = asyncio.create_task(gateway.advise([request(n) for n in range(7)]))
    await turns()
    assert b'tutor_pending_prompts{tutor="fake"} 7.0' in metrics.exposition()
    model.open.set()
    await asked
    assert b'tutor_pending_prompts{tutor="fake"} 0.0' in metrics.exposition()


async def test_a_model_that_fails_says_so_and_is_asked_again():
    model, store = FakeModel(), FakeStore()
    model.failing = ConnectionError("replica died")
    gateway = make_gateway(model, store)
    (answer,) = await gateway.advise([request(1)])
    assert isinstance(answer, AdviceError) and answer.retry
    assert not store.kept and gateway.num_pending == 0
    model.failing = None
    assert sources(await gateway.advise([request(1)])) == ["model"]


async def test_answers_that_do_not_match_the_prompts_are_not_believed():
    model = FakeModel()

    async def short(prompts):
        return (await FakeModel.__call__(model, prompts))[:-1]

    gateway = make_gateway(short)  # type: ignore[arg-type]
    assert sources(await gateway.advise([request(1), request(2)])) == ["error", "error"]


async def test_identity_separates_what_is_stored():
    model, store = FakeModel(), FakeStore()
    for identity in ("revision 1", "revision 2"):
        assert sources(await make_gateway(model, store, identity=identity).advise([request(1)])) == ["model"]
    assert len(store.kept) == 2


async def test_what_could_not_be_read_is_a_miss_and_is_not_kept():
    model, store = FakeModel(), FakeStore()
    read = FakeModel.__call__

    async def half(prompts):
        answers = await read(model, prompts)
        return [AdviceError("nothing", invalid=3, tokens=9) if index % 2 else a for index, a in enumerate(answers)]

    metrics = GatewayMetrics("fake")
    gateway = make_gateway(half, store, metrics)  # type: ignore[arg-type]
    answers = await gateway.advise([request(1), request(2), request(2)])
    assert sources(answers) == ["model", "error", "error"]
    assert [answer.invalid for answer in answers] == [0, 3, 0] and not answers[1].retry
    assert len(store.kept) == 1
    assert b'tutor_invalid_answers_total{tutor="fake"} 3.0' in metrics.exposition()


async def test_an_answer_with_another_number_of_actions_is_not_believed():
    model, store = FakeModel(lambda prompt: (1.0,)), FakeStore()
    (answer,) = await make_gateway(model, store).advise([request(1)])
    assert "1 probabilities for 2 actions" in answer.reason and not store.kept


async def test_an_endless_list_is_refused_whole():
    answers = await make_gateway(FakeModel()).advise([request(1)] * (MAX_LIST + 1))
    assert len(answers) == MAX_LIST + 1 and isinstance(answers[0], AdviceError)


async def test_nothing_asked_nothing_answered():
    assert await make_gateway(FakeModel()).advise([]) == []


async def test_why_there_was_no_advice_is_counted_in_words():
    async def unread(prompts):
        return [AdviceError("endpoint: the reply is empty", invalid=1)] * len(prompts)

    metrics = GatewayMetrics("fake")
    gateway = make_gateway(unread, metrics=metrics)  # type: ignore[arg-type]
    await gateway.advise([request(n) for n in range(3)])
    await gateway.advise([request(0), request(actions=())])
    assert metrics.reasons["endpoint: the reply is empty"] == 4 and metrics.failed == {"not_read": 4, "refused": 1}
    for n in range(200):
        metrics.called([AdviceError(f"reason {n}")], 0.0)
    assert len(metrics.reasons) <= 60 and sum(metrics.reasons.values()) == 205


async def test_a_caller_whose_deadline_passed_is_counted_with_the_remedy():
    model, metrics = FakeModel(), GatewayMetrics("fake")
    model.open.clear()
    call = asyncio.create_task(make_gateway(model, metrics=metrics).advise([request(1), request(2)]))
    await turns()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert metrics.failed == {"abandoned": 2}
    ((reason, number),) = metrics.reasons.items()
    assert number == 2 and "advice.deadline_s" in reason
    model.open.set()
