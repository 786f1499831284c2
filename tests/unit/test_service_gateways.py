"""Several gateways of one tutor: whose a question is, handing on, shares of the bounds, figures put together."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.unit.service_fakes import FakeModel, FakeStore, make_gateway, request
from tutor_service.config import TutorConfig
from tutor_service.engines import models
from tutor_service.engines.base import EngineFacts
from tutor_service.errors import UserError
from tutor_service.gateway.gateway import MAX_LIST
from tutor_service.gateway.grouping import GroupCalls
from tutor_service.gateway.metrics import LATE, GatewayMetrics, exposition
from tutor_service.schema import Advice, AdviceError, AdviceRequest
from tutor_service.serving.checks import STORE_RESOURCE, store_resource
from tutor_service.serving.deployment import build
from tutor_service.serving.peers import FirstGatewaysNotes, Peers, Place
from tutor_service.serving.scaling import gateway_settings
from tutor_service.serving.stats import GatewayStats, together
from tutor_service.sharding import deployment_name, gateway_of, is_gateway, split

STATES = [f"state {number}" for number in range(60)]
FACTS = EngineFacts("identity", "scored", max_prompt_tokens=None)


@given(st.lists(st.text()), st.integers(1, 9))
def test_each_place_belongs_to_one_gateway_in_order(states: list[str], num_gateways: int) -> None:
    parts = split([request(state) for state in states], num_gateways)
    assert sorted(place for places in parts.values() for place in places) == list(range(len(states)))
    assert all(places == sorted(places) for places in parts.values())
    if num_gateways > 1:
        for number, places in parts.items():
            assert {gateway_of(states[place], num_gateways) for place in places} == {number}


def test_the_choice_is_the_same_in_every_process_and_near_even() -> None:
    assert [gateway_of(state, 4) for state in ("a", "b", "c", "d", "You hold 19.")] == EXPECTED
    counts = Counter(gateway_of(f"Hand {n}: your total is {n % 18 + 4}.", 4) for n in range(8000))
    assert all(1800 < count < 2200 for count in counts.values())


EXPECTED = [0, 0, 3, 1, 3]


def test_questions_of_one_prompt_meet_one_gateway() -> None:
    same = [request(" x\n"), request("x", ("hit", "stick")), request("x", rules="Other.")]
    assert len(split(same, 64)) == 1
    assert split([AdviceRequest("r", None, ("a", "b"))], 4) == {0: [0]}  # type: ignore[arg-type]


class Tutor:
    """Gateways of one tutor over one store, without Serve; a gateway may be dead or hang."""

    def __init__(self, num_gateways: int) -> None:
        self.model, self.store = FakeModel(), FakeStore()
        self.metrics = [GatewayMetrics("fake", number) for number in range(num_gateways)]
        self.gateways = [make_gateway(self.model, self.store, metrics) for metrics in self.metrics]
        self.peers = [
            Peers(Place("tutor-x", number, num_gateways), self._own(number), self.metrics[number], self._handle)
            for number in range(num_gateways)
        ]
        self.dead: set[int] = set()
        self.hanging: set[int] = set()
        self.handed_on: list[int] = []

    def _own(self, number: int) -> Callable[..., Any]:
        async def answer(requests: list[AdviceRequest], within_s: float | None) -> list[Advice | AdviceError]:
            return await self.gateways[number].advise(requests, within_s)

        return answer

    def _handle(self, deployment: str, application: str) -> Any:
        assert application == "tutor-x" and is_gateway(deployment)
        number = [deployment_name(n) for n in range(len(self.peers))].index(deployment)
        tutor = self

        class Method:
            def __init__(self, name: str) -> None:
                self.name = name

            def remote(self, *arguments: Any) -> Any:
                return Response(self.run(*arguments))

            async def run(self, *arguments: Any) -> Any:
                if number in tutor.hanging:
                    await asyncio.sleep(3600)
                if number in tutor.dead:
                    raise RuntimeError("died")
                if self.name == "families":
                    return tutor.metrics[number].families()
                if self.name == "brief":
                    return f"{arguments[0]} notes"
                requests, within_s, is_handed_on = arguments
                assert is_handed_on is True
                tutor.handed_on.append(number)
                return await tutor.gateways[number].advise(requests, within_s)

        class Handle:
            def __getattr__(self, name: str) -> Method:
                return Method(name)

        return Handle()


class Response:
    def __init__(self, running: Any) -> None:
        self._task = asyncio.ensure_future(running)

    def __await__(self) -> Any:
        return self._task.__await__()

    def cancel(self) -> None:
        self._task.cancel()


async def test_the_same_states_from_callers_everywhere_are_evaluated_once() -> None:
    tutor = Tutor(4)
    asked = [[request(state) for state in STATES[n:] + STATES[:n]] for n in range(8)]
    lists = await asyncio.gather(*(tutor.peers[n % 4].advise(asked[n], None) for n in range(8)))
    assert all(isinstance(answer, Advice) for answers in lists for answer in answers)
    assert len(tutor.model.evaluated) == len(STATES)
    assert {number for number, gateway in enumerate(tutor.gateways) if gateway._memory} == {0, 1, 2, 3}
    assert not await tutor.peers[0].advise([], None)


async def test_a_list_comes_back_in_order_with_errors_where_a_gateway_is_gone() -> None:
    tutor = Tutor(3)
    tutor.dead = {2}
    answers = await tutor.peers[0].advise([request(state) for state in STATES], None)
    for state, answer in zip(STATES, answers, strict=True):
        if gateway_of(state, 3) == 2:
            assert answer == AdviceError("tutor: gateway 2 failed (RuntimeError)", retry=True)
        else:
            assert isinstance(answer, Advice)
    assert tutor.metrics[0].failed["unavailable"] == sum(gateway_of(state, 3) == 2 for state in STATES)


async def test_partial_lists_stay_partial_where_a_gateway_hangs() -> None:
    tutor = Tutor(3)
    tutor.hanging = {1}
    answers = await asyncio.wait_for(tutor.peers[0].advise([request(state) for state in STATES], 0.3), 5)
    late = [state for state, answer in zip(STATES, answers, strict=True) if not isinstance(answer, Advice)]
    assert late == [state for state in STATES if gateway_of(state, 3) == 1]
    assert {answer.reason for answer in answers if isinstance(answer, AdviceError)} == {LATE}


async def test_what_is_not_ones_own_goes_no_further_than_one_step() -> None:
    """Two gateways of different configurations hold one another responsible: each answers what it is handed."""
    tutor = Tutor(2)
    state = next(state for state in STATES if gateway_of(state, 2) == 1)
    (answer,) = await tutor.peers[0].advise([request(state)], None)
    assert isinstance(answer, Advice) and tutor.handed_on == [1]
    too_long = [request(state)] * (MAX_LIST + 1)
    assert "at most" in (await tutor.peers[0].advise(too_long, None))[0].reason  # type: ignore[union-attr]
    assert tutor.handed_on == [1]


async def test_notes_are_written_by_the_first_gateway_alone() -> None:
    tutor = Tutor(2)
    notes = FirstGatewaysNotes(tutor.peers[1])
    tutor.dead = {0}
    failed = await notes.brief("Play.")
    assert isinstance(failed, AdviceError) and failed.retry
    tutor.dead = set()
    assert await notes.brief("Play.") == "Play. notes"
    tutor.dead = {0}
    assert await notes.brief("Play.") == "Play. notes"


async def test_each_gateway_is_counted_once_and_each_family_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tutor_service.serving.peers._FIGURES_S", 0.2)
    tutor = Tutor(3)
    await tutor.peers[0].advise([request(state) for state in STATES], None)
    text = exposition(await tutor.peers[0].families()).decode()
    counted = [line for line in text.splitlines() if line.startswith("tutor_advice_total{")]
    assert len(counted) == 3 and sum(float(line.split()[-1]) for line in counted) == len(STATES)
    assert text.count("# TYPE tutor_advice_total counter") == 1
    for number in range(3):
        assert f'tutor_call_latency_seconds_count{{gateway="{number}",tutor="fake"}} 1.0' in text
    tutor.hanging = {1}
    assert 'gateway="1"' not in exposition(await tutor.peers[0].families()).decode()
    alone = GatewayMetrics("fake")
    assert 'tutor_pending_prompts{tutor="fake"}' in exposition([alone.families()]).decode()


def tutor_of(num_gateways: int, **fields: object) -> TutorConfig:
    scaling = {"gateways": num_gateways, "max_pending": 1000}
    return TutorConfig.model_validate({"name": "t", "model": "a/b", "scaling": scaling, **fields})


def test_each_gateway_has_its_share_of_the_window_and_of_the_queue() -> None:
    whole, part = (gateway_settings(tutor_of(number), FACTS) for number in (1, 3))
    assert part.in_flight_per_replica * 3 == pytest.approx(whole.in_flight_per_replica) and whole.limits.batch == 32
    assert (whole.limits.max_waiting, part.limits.max_waiting) == (1000, 334)
    endpoint = {"backend": "openai", "base_url": "http://x", "concurrency": 8}
    assert gateway_settings(tutor_of(4, **endpoint), FACTS).in_flight_per_replica == 2


@pytest.mark.parametrize("num_gateways", [0, 65, 1.5])
def test_a_number_of_gateways_that_makes_no_sense_is_refused(num_gateways: float) -> None:
    with pytest.raises(ValidationError, match="gateways"):
        TutorConfig.model_validate({"name": "t", "model": "a/b", "scaling": {"gateways": num_gateways}})


def test_more_gateways_than_an_endpoint_takes_requests_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"scaling\.gateways = 4 share concurrency = 2"):
        tutor_of(4, backend="openai", base_url="http://x", concurrency=2)


def test_several_gateways_need_one_nodes_disk_or_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    nodes = [{"Alive": True, "Resources": {"CPU": 2.0}} for _ in range(2)]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    shared = {"store": "postgresql://u@h/d"}
    assert store_resource(tutor_of(1)) is None and store_resource(tutor_of(4, **shared)) is None
    with pytest.raises(UserError, match=r"scaling\.gateways = 4 share a folder on one node's disk"):
        store_resource(tutor_of(4))
    nodes[1]["Resources"] = {STORE_RESOURCE: 1.0}
    assert store_resource(tutor_of(4)) == store_resource(tutor_of(1)) == STORE_RESOURCE
    del nodes[1]
    assert store_resource(tutor_of(4)) is None


def test_an_application_has_so_many_gateways_and_one_set_of_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_hub_commit", lambda repo, revision: None)
    first = build(tutor_of(3), None, STORE_RESOURCE)._bound_deployment
    others = [each._bound_deployment for each in first.init_kwargs["others"]]
    assert [each.name for each in (first, *others)] == ["TutorGateway", "TutorGateway-1", "TutorGateway-2"]
    assert [each.init_kwargs.get("number", 0) for each in (first, *others)] == [0, 1, 2]
    assert len({id(each.init_args[1]) for each in (first, *others)}) == 1
    assert all(each.ray_actor_options["resources"] == {STORE_RESOURCE: 0.001} for each in (first, *others))
    assert build(tutor_of(1))._bound_deployment.init_kwargs == {"others": ()}


def stats(**fields: Any) -> GatewayStats:
    given = {
        **{"answered": {"model": 1}, "failed": {}, "pending": 1, "per_s": 0.5, "stored": 7},
        **{"store_path": "/x", "identity": "i", "notes": ("n",), "spent": "", "spent_at": 0.0, "reasons": {"r": 1}},
    }
    return GatewayStats(**{**given, **fields})  # type: ignore[arg-type]


def test_what_gateways_did_is_added_up_and_their_common_store_counted_once() -> None:
    two = stats(answered={"model": 2, "store": 5}, stored=8, spent="9 requests", spent_at=5.0)
    three = stats(spent="4 requests", spent_at=3.0, stored=None)
    found = together([stats(), two, three, None])
    assert found is not None
    assert found.answered == {"model": 4, "store": 5} and found.reasons == {"r": 3} and found.pending == 3
    assert (found.stored, found.per_s, found.spent) == (8, 1.5, "9 requests")
    assert found.notes == ("n", "1 of 4 gateways do not answer now: 3")
    assert together([None, None]) is None
    assert together([stats()]) == stats()


async def test_nobody_waits_for_a_group_that_ends_with_its_event_loop() -> None:
    at_work, may_end = threading.Event(), threading.Event()

    def work(items: Sequence[int]) -> Sequence[int]:
        at_work.set()
        may_end.wait(10)
        return items

    calls: GroupCalls[int, int] = GroupCalls(work)
    first = asyncio.create_task(calls.run([1]))
    assert await asyncio.to_thread(at_work.wait, 10)
    second = asyncio.create_task(calls.run([2]))
    await asyncio.sleep(0)
    assert calls._working is not None
    calls._working.cancel()
    ended = await asyncio.wait_for(asyncio.gather(first, second, return_exceptions=True), 5)
    assert all(isinstance(each, asyncio.CancelledError) for each in ended)
    may_end.set()
    assert await asyncio.wait_for(calls.run([3]), 10) == [3], "the next one begins anew"
