import asyncio
import itertools
import random

import pytest

from tests.unit.service_fakes import FakeModel, FakeStore, FakeTokenizer, make_gateway, request
from tutor_service.gateway.gateway import MAX_LIST
from tutor_service.gateway.metrics import GatewayMetrics, exposition
from tutor_service.schema import Advice, AdviceError, AdviceRequest
from tutor_service.store.best_effort import BestEffortStore


def sources(answers):
    return [answer.source if isinstance(answer, Advice) else "error" for answer in answers]


async def idle(gateway):
    """Waits until nothing is under way."""
    async with asyncio.timeout(10):
        while gateway.num_pending:
            await asyncio.sleep(0.001)
    await turns()


async def turns(number=200):
    """Lets the event loop do all that it can do now, or in so many turns."""
    for _ in range(number):
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


@pytest.mark.parametrize("max_waiting", [92, 1000])
async def test_what_nobody_waits_for_any_more_is_dropped_from_the_queue(max_waiting):
    model, store = FakeModel(), FakeStore()
    model.open.clear()
    gateway = make_gateway(model, store, batch=4, in_flight_per_replica=8, max_waiting=max_waiting, aborts=False)
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
    gateway = make_gateway(model, store, in_flight_per_replica=4, max_waiting=6)
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


async def test_small_lists_of_several_callers_are_looked_up_together():
    model, store = FakeModel(), FakeStore()
    looked_up: list[int] = []
    get_many = store.get_many
    store.get_many = lambda keys: looked_up.append(len(keys)) or get_many(keys)
    gateway = make_gateway(model, store)
    calls = [asyncio.create_task(gateway.advise([request((n, m)) for m in range(8)])) for n in range(9)]
    await asyncio.sleep(0)
    gave_up = calls.pop(5)
    gave_up.cancel()
    answers = await asyncio.gather(*calls)
    assert looked_up == [8, 32, 24], "the first caller met nobody; the one that gave up is not looked up"
    assert all(sources(items) == ["model"] * 8 for items in answers)
    assert len(model.evaluated) == len({prompt.token_ids for prompt in model.evaluated}) == 64


@pytest.mark.parametrize(("at_the_model", "max_waiting"), [(4, 6), (32, 10)])
async def test_beyond_its_bound_requests_are_refused_for_the_moment(at_the_model: int, max_waiting: int):
    """What goes to the model at once does not count as waiting."""
    model = FakeModel()
    model.open.clear()
    gateway = make_gateway(model, in_flight_per_replica=at_the_model, max_waiting=max_waiting)
    flood = asyncio.create_task(gateway.advise([request(n) for n in range(60)]))
    await turns()
    assert gateway.num_pending == at_the_model + max_waiting
    refused = await gateway.advise([request("new")])
    assert refused[0].retry and "overloaded" in refused[0].reason
    model.open.set()
    answers = await flood
    assert sources(answers).count("model") == at_the_model + max_waiting
    assert all(answer.retry for answer in answers if isinstance(answer, AdviceError))
    assert sources(await gateway.advise([request(59)])) == ["model"]


async def test_the_queue_that_prometheus_sees_is_the_one_of_this_moment():
    model, metrics = FakeModel(), GatewayMetrics("fake")
    model.open.clear()
    gateway = make_gateway(model, metrics=metrics)
    asked = asyncio.create_task(gateway.advise([request(n) for n in range(7)]))
    await turns()
    assert b'tutor_pending_prompts{tutor="fake"} 7.0' in exposition([metrics.families()])
    model.open.set()
    await asked
    assert b'tutor_pending_prompts{tutor="fake"} 0.0' in exposition([metrics.families()])


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


async def test_what_was_under_way_when_answers_were_replaced_is_not_remembered():
    model, store = FakeModel(), FakeStore()
    gateway = make_gateway(model, store)
    model.open.clear()
    asking = asyncio.create_task(gateway.advise([request(1)]))
    await turns()
    store.replaced += 1
    await gateway.advise([])
    model.open.set()
    await asking
    store.kept = dict.fromkeys(store.kept, Advice((0.125, 0.875), 0.5, "store"))
    (answer,) = await gateway.advise([request(1)])
    assert answer.probabilities == (0.125, 0.875)


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
    assert b'tutor_invalid_answers_total{tutor="fake"} 3.0' in exposition([metrics.families()])


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


async def test_what_is_answered_at_the_deadline_is_returned_and_the_rest_is_kept_for_the_next_time():
    model, store, metrics = FakeModel(), FakeStore(), GatewayMetrics("fake")
    gateway = make_gateway(model, store, metrics, batch=2, in_flight_per_replica=4)
    await gateway.advise([request(0)])
    model.open.clear()
    answers = await gateway.advise([request(n) for n in range(9)], within_s=0.05)
    assert sources(answers) == ["store", *["error"] * 8]
    assert all(answer.retry and "advice.deadline_s" in answer.reason for answer in answers[1:])
    assert metrics.failed == {"late": 8}
    another = asyncio.create_task(gateway.advise([request(9)]))
    await turns()
    model.open.set()
    assert sources(await another) == ["model"]
    await idle(gateway)
    assert len(model.evaluated) == len(store.kept) == 6, "what was at the model is finished, what queued is dropped"
    assert sources(await gateway.advise([request(1), request(8)])) == ["store", "model"]


async def test_a_slow_half_of_a_list_does_not_hold_up_the_other_one():
    held = asyncio.Event()

    async def evaluate(prompts):
        if any("slow" in prompt_text(prompt) for prompt in prompts):
            await held.wait()
        return await FakeModel()(prompts)

    gateway = make_gateway(evaluate, batch=1)  # type: ignore[arg-type]
    answers = await gateway.advise([request("slow"), request("quick")], within_s=0.1)
    assert sources(answers) == ["error", "model"]
    held.set()


def prompt_text(prompt):
    return FakeTokenizer().decode(prompt.token_ids)


async def test_the_window_follows_the_replicas_that_live():
    model = FakeModel()
    model.open.clear()
    gateway = make_gateway(model, batch=4, in_flight_per_replica=8)
    asked = asyncio.create_task(gateway.advise([request(n) for n in range(64)]))
    await turns()
    assert sum(model.batches) == 8
    gateway.set_replicas(3)
    await turns()
    assert sum(model.batches) == 24
    gateway.set_replicas(0)
    model.open.set()
    assert "error" not in sources(await asked)
    assert set(model.batches) == {4}


async def test_what_finishes_together_is_written_together():
    model, store = FakeModel(), FakeStore()
    model.open.clear()
    gateway = make_gateway(model, store, batch=2, in_flight_per_replica=100)
    call = asyncio.create_task(gateway.advise([request(n) for n in range(100)]))
    await turns()
    model.open.set()
    assert sources(await call).count("model") == 100
    assert len(store.commits) < 10 and sum(store.commits) == 100


async def test_work_that_nobody_has_a_use_for_is_ended_when_others_wait():
    ended: list[int] = []
    model = FakeModel()
    model.open.clear()

    async def evaluate(prompts):
        try:
            return await model(prompts)
        except asyncio.CancelledError:
            ended.append(len(prompts))
            raise

    gateway = make_gateway(evaluate, batch=4, in_flight_per_replica=8)  # type: ignore[arg-type]
    gone = asyncio.create_task(gateway.advise([request(n) for n in range(8)]))
    await turns()
    gone.cancel()
    await turns()
    assert not ended, "nobody else waits: it is finished"
    calls = [asyncio.create_task(gateway.advise([request(n)])) for n in (8, 0)]
    await turns()
    assert ended == [4, 4]
    model.open.set()
    assert sources([answer for call in calls for answer in await call]) == ["model", "model"]
    assert gateway.num_pending == 0


async def test_what_one_caller_left_behind_is_not_ended_for_the_rest_of_it():
    model, store = FakeModel(), FakeStore()
    model.open.clear()
    gateway = make_gateway(model, store, batch=4, in_flight_per_replica=8)
    gone = asyncio.create_task(gateway.advise([request(n) for n in range(30)]))
    await turns()
    gone.cancel()
    await turns()
    model.open.set()
    await idle(gateway)
    assert len(model.evaluated) == len(store.kept) == 8


@pytest.mark.parametrize("seed", range(20))
async def test_callers_who_come_and_go_at_any_turn_leave_nothing_under_way(seed):
    dice = random.Random(seed)
    model = FakeModel()
    gateway = make_gateway(model, batch=2, in_flight_per_replica=4, max_waiting=20)
    calls = []

    async def caller():
        calls.append(asyncio.create_task(gateway.advise([request(dice.randrange(12)) for _ in range(3)])))
        call = calls[-1]
        await turns(dice.randrange(6))
        call.cancel()

    for _ in range(30):
        model.open.clear() if dice.random() < 0.5 else model.open.set()
        await asyncio.gather(*(caller() for _ in range(dice.randrange(1, 6))))
    model.open.set()
    await idle(gateway)
    model.open.clear()
    model.batches.clear()
    asked = asyncio.create_task(gateway.advise([request(n) for n in range(100, 116)]))
    await turns()
    assert model.batches == [2, 2], "as many as may be at the model at a time"
    model.open.set()
    assert set(sources(await asyncio.wait_for(asked, 5))) == {"model"}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_two_gateways_on_one_store_give_one_answer(order, tmp_path):
    models = [FakeModel(lambda prompt: (0.9, 0.1)), FakeModel(lambda prompt: (0.2, 0.8))]
    stores = [BestEffortStore(tmp_path), BestEffortStore(tmp_path)]
    gateways = [make_gateway(model, store) for model, store in zip(models, stores, strict=True)]
    for model in models:
        model.open.clear()
    calls = [asyncio.create_task(gateway.advise([request(1)])) for gateway in gateways]
    await turns()
    for number in order:
        models[number].open.set()
        await calls[number]
    first = (await calls[order[0]])[0].probabilities
    (later,) = await calls[order[1]]
    assert (later.probabilities, later.source) == (first, "model") and later.tokens > 0
    for gateway in gateways:
        assert (await gateway.advise([request(1)]))[0].probabilities == first, "in memory, too"
    for store in stores:
        store.close()
