"""Gateways that share a store evaluate a state once, whoever of them is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.unit.service_fakes import FakeDatabase, FakeModel, make_gateway, request
from tests.unit.test_service_gateway import idle, sources
from tutor_service.gateway.gateway import Gateway
from tutor_service.gateway.sharing import SharedQueue
from tutor_service.schema import Advice
from tutor_service.store.best_effort import BestEffortStore
from tutor_service.store.shared import SharedStore


@pytest.fixture
def database() -> FakeDatabase:
    return FakeDatabase()


class Gateways:
    """Make gateways that share a database, each with a model of its own."""

    def __init__(self, database: FakeDatabase, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self.models: list[FakeModel] = []
        self.stores: list[SharedStore] = []

    def make(self, lease_s: float = 30, **settings: object) -> Gateway:
        share = len(self.models)
        model = FakeModel(lambda prompt: (0.9 - share / 10, 0.1 + share / 10))
        store = SharedStore(BestEffortStore(self.folder / str(share)), self.database, lease_s)
        self.models.append(model)
        self.stores.append(store)
        return make_gateway(model, store, make_queue=partial(SharedQueue, store=store), **settings)

    @property
    def evaluated(self) -> list[object]:
        return [prompt.token_ids for model in self.models for prompt in model.evaluated]


@pytest.fixture
def gateways(database: FakeDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateways]:
    monkeypatch.setattr("tutor_service.gateway.sharing.LOOK_AGAIN_S", 0.01)
    monkeypatch.setattr("tutor_service.store.shared.AWAY_S", 0.05)
    made = Gateways(database, tmp_path)
    yield made
    for store in made.stores:
        store.close()


async def test_eight_callers_of_two_gateways_have_each_state_evaluated_once(gateways: Gateways) -> None:
    pair = [gateways.make(batch=8, in_flight_per_replica=16) for _ in range(2)]
    asked = [request(number) for number in range(200)]
    lists = [asked[25 * caller :] + asked[: 25 * caller] for caller in range(8)]
    answers = await asyncio.gather(*(pair[caller % 2].advise(items) for caller, items in enumerate(lists)))
    assert len(gateways.evaluated) == len(set(gateways.evaluated)) == 200
    assert all(model.evaluated for model in gateways.models), "both do their part"
    for items, found in zip(lists, answers, strict=True):
        first = dict(zip(lists[0], answers[0], strict=True))
        assert [a.probabilities for a in found] == [first[item].probabilities for item in items]
    assert sum(sources(found).count("model") for found in answers) == 200
    for gateway in pair:
        await idle(gateway)
        assert gateway._queue._num_waiting() == 0 and gateway._queue._in_flight == 0


async def test_a_known_state_needs_no_model_and_no_room_at_it(gateways: Gateways) -> None:
    one, two = gateways.make(), gateways.make(in_flight_per_replica=1, batch=1)
    await one.advise([request(1)])
    gateways.models[1].open.clear()
    busy = asyncio.create_task(two.advise([request("busy")]))
    (answer,) = await asyncio.wait_for(two.advise([request(1)]), 5)
    assert (answer.source, answer.tokens, answer.probabilities) == ("store", 0, (0.9, 0.1))
    gateways.models[1].open.set()
    await busy


async def test_a_gateway_waits_for_another_ones_answer(gateways: Gateways) -> None:
    one, two = gateways.make(), gateways.make()
    gateways.models[0].open.clear()
    first = asyncio.create_task(one.advise([request(1)]))
    while not gateways.models[0].batches:
        await asyncio.sleep(0.01)
    second = asyncio.create_task(two.advise([request(1), request(2)]))
    (late,) = await two.advise([request(1)], within_s=0.2)
    assert late.retry and len(gateways.evaluated) == 1, "the other state is evaluated meanwhile"
    gateways.models[0].open.set()
    answers = await asyncio.wait_for(second, 5)
    assert sources(answers) == ["store", "model"] and answers[0].probabilities == (await first)[0].probabilities
    assert len(gateways.evaluated) == 2


async def test_a_gateway_that_is_gone_is_waited_for_no_longer_than_its_lease(gateways: Gateways) -> None:
    await gateways.make().advise([request(1)])
    (key,) = gateways.database.kept
    while gateways.database.leases:
        await asyncio.sleep(0.01)
    gateways.database.kept.clear()
    gateways.database.take_leases([key], b"gone", 0.5)
    other = gateways.make()
    (late,) = await other.advise([request(1)], within_s=0.2)
    assert late.retry
    assert sources(await asyncio.wait_for(other.advise([request(1)]), 5)) == ["model"]


async def test_a_failed_evaluation_leaves_the_state_to_others(gateways: Gateways) -> None:
    one, two = gateways.make(), gateways.make()
    gateways.models[0].failing = RuntimeError("replica died")
    assert sources(await one.advise([request(1)])) == ["error"]
    assert sources(await asyncio.wait_for(two.advise([request(1)]), 5)) == ["model"]


async def test_what_nobody_waits_for_any_more_is_given_back(gateways: Gateways) -> None:
    one, two = gateways.make(in_flight_per_replica=1, batch=1), gateways.make()
    gateways.models[0].open.clear()
    gone = asyncio.create_task(one.advise([request(1)]))
    while not gateways.models[0].batches:
        await asyncio.sleep(0.01)
    gone.cancel()
    waiting = asyncio.create_task(one.advise([request(2)]))
    assert sources(await asyncio.wait_for(two.advise([request(1)]), 5)) == ["model"]
    gateways.models[0].open.set()
    assert sources(await waiting) == ["model"]
    await idle(one)
    assert len(gateways.evaluated) == len(set(gateways.evaluated)) == 2


async def test_while_the_database_is_away_gateways_go_on_alone(gateways: Gateways, database: FakeDatabase) -> None:
    one, two = gateways.make(), gateways.make()
    await one.advise([request(1)])
    database.away = True
    answers = [(await gateway.advise([request(1), request(2)])) for gateway in (one, two)]
    assert sources(answers[0]) == ["store", "model"] and sources(answers[1]) == ["model", "model"]
    database.away = False
    async with asyncio.timeout(10):
        while any(store.num_unsent() for store in gateways.stores):
            await asyncio.sleep(0.01)
    assert len(database.kept) == 2
    kept = {gateway: await make(gateways, gateway) for gateway in range(2)}
    assert kept[0] == kept[1], "after a restart all give the answers of the database"


async def test_an_answer_that_gave_way_to_the_databases_is_given_no_more(
    gateways: Gateways, database: FakeDatabase
) -> None:
    gateway = gateways.make()
    database.away = True
    (mine,) = await gateway.advise([request(1)])
    (store,) = gateways.stores
    (key,) = store._local.unsent(2)
    (entry,) = store._local.find_many([key])
    assert entry is not None
    winner = database.kept[key] = entry._replace(advice=Advice((0.25, 0.75), 0.5, "store"))
    database.away = False
    while store.num_unsent():
        await asyncio.sleep(0.01)
    (now,) = await gateway.advise([request(1)])
    assert mine.probabilities != now.probabilities == winner.advice.probabilities


async def make(gateways: Gateways, number: int) -> list[object]:
    """Answers of a gateway that begins anew on the disk of an earlier one."""
    store = gateways.stores[number]
    again = make_gateway(FakeModel(), store, make_queue=partial(SharedQueue, store=store))
    return [answer.probabilities for answer in await again.advise([request(1), request(2)])]


async def test_a_full_queue_counts_what_is_elsewhere(gateways: Gateways) -> None:
    one = gateways.make()
    gateways.models[0].open.clear()
    held = asyncio.create_task(one.advise([request(number) for number in range(10)]))
    while sum(gateways.models[0].batches) < 10:
        await asyncio.sleep(0.01)
    two = gateways.make(max_waiting=6, in_flight_per_replica=4, batch=4)
    waiting = asyncio.create_task(two.advise([request(number) for number in range(10)]))
    await asyncio.sleep(0.1)
    (refused,) = await two.advise([request("one more")])
    assert "overloaded" in refused.reason
    gateways.models[0].open.set()
    assert "error" not in sources(await waiting) and "error" not in sources(await held)
