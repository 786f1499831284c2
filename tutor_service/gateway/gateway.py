"""Answer lists of requests from memory, from the store, from evaluations under way, and only then from the model.

Owns the promise that a distinct state is evaluated once, whoever asks and how often. It takes the model as a function
and knows neither Serve nor vLLM.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol, TypeAlias

from tutor_service.errors import UserError
from tutor_service.gateway.briefing import Briefer
from tutor_service.gateway.grouping import GroupCalls
from tutor_service.gateway.metrics import LATE, GatewayMetrics
from tutor_service.gateway.queue import (
    Answers,
    Evaluate,
    Joined,
    JoiningQueue,
    Keep,
    QueueLimits,
    Ticket,
    known,
)
from tutor_service.prompts.layout import notes_in
from tutor_service.prompts.prompt import Prompt, PromptBuilder
from tutor_service.schema import Advice, AdviceError, AdviceRequest
from tutor_service.store import Context, Entry, advice_key
from tutor_service.validation import MAX_LIST, problem

MEMORY_ENTRIES = 200_000
MakeQueue: TypeAlias = Callable[[Evaluate, Keep, QueueLimits, int], JoiningQueue]
_LATE = AdviceError(LATE, retry=True)
_OVERLOADED = AdviceError("tutor: overloaded, too many states wait for the model", retry=True)
_SLICE = 32
"""Cold requests looked up at a time, of one caller or of several: milliseconds for which the event loop waits.

Many at a time, since a call of the tokenizer, of the store and of the model has a price of its own; with several
gateways every caller's list comes in small parts.
"""


class Store(Protocol):
    """Keep answers for a gateway; neither call raises. ``keep_many`` returns what counts, in order.

    ``replaced`` counts how often other answers took the place of some that it had given.
    """

    @property
    def replaced(self) -> int: ...  # noqa: D102

    def get_many(self, keys: Sequence[bytes]) -> list[Advice | None]: ...  # noqa: D102

    def keep_many(self, entries: Sequence[Entry]) -> list[Advice]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Say how a gateway answers.

    Attributes:
        identity: Of the tutor and everything that can change an answer beside the prompt; part of the store's key.
        limits: How many prompts go to a replica in one call, and how many may wait.
        max_prompt_tokens: Longest prompt that leaves room for the answer; None: no limit known.
        in_flight_per_replica: Most prompts at the replicas at a time, for each one that lives.
    """

    identity: str
    limits: QueueLimits
    max_prompt_tokens: int | None = None
    in_flight_per_replica: float = 128


@dataclass(frozen=True, slots=True)
class Explanation:
    """Show a person how one question was asked and answered.

    Attributes:
        prompt: What the tutor read, control tokens included.
        notes: The strategy notes in it; None where there are none.
        answer: What it answered, or why there is no answer.
        thought: What it thought before; empty where it does not think.
    """

    prompt: str
    notes: str | None
    answer: Advice | AdviceError
    thought: str


@dataclass(slots=True, eq=False)
class _Caller:
    """Hold what one caller asked and memory does not know.

    Attributes:
        found: What is known by now, in order; None: nothing.
        waiting: Places of what is under way, with what they wait for.
        unseen: How many were not looked up yet.
        gone: Whether it no longer waits.
    """

    found: list[Advice | AdviceError | None]
    waiting: list[tuple[int, Joined]] = field(default_factory=list)
    unseen: int = 0
    gone: bool = False


class _Cold(NamedTuple):
    """Name a request that is to be looked up, by its place in its caller's list."""

    caller: _Caller
    place: int
    request: AdviceRequest


class Gateway:
    """Answer all requests to a tutor; runs on one event loop.

    Args:
        settings: How to answer.
        builder: Makes prompts.
        briefing: Puts notes behind the rules.
        evaluate: The model: prompts to answers, in order; raises when it cannot be reached.
        store: Answers of the past.
        metrics: Counts what happens.
        make_queue: Makes what holds the prompts that have no answer yet.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        builder: PromptBuilder,
        briefing: Briefer,
        evaluate: Evaluate,
        store: Store,
        metrics: GatewayMetrics,
        make_queue: MakeQueue = JoiningQueue,
    ) -> None:
        self._settings = settings
        self._builder = builder
        self._briefing = briefing
        self._store = store
        self._metrics = metrics
        self._memory: OrderedDict[AdviceRequest, Advice] = OrderedDict()
        self._replaced = store.replaced
        self._looking_up = asyncio.Lock()
        self._unseen: deque[_Cold] = deque()
        self._commit = GroupCalls(store.keep_many)
        self._queue = make_queue(evaluate, self._keep, settings.limits, self._window(1))
        metrics.show_pending(lambda: len(self._queue))

    @property
    def num_pending(self) -> int:
        """Return how many prompts wait for the model or are at it."""
        return len(self._queue)

    def set_replicas(self, num_live: int) -> None:
        """Send as much to the model as the replicas that live now keep busy with."""
        self._queue.set_window(self._window(num_live))

    def _window(self, num_live: int) -> int:
        """Return how many prompts may be at the model; a replica's worth where none lives, so that one is started."""
        return max(1, round(self._settings.in_flight_per_replica * max(1, num_live)))

    async def advise(
        self, requests: Sequence[AdviceRequest], within_s: float | None = None
    ) -> list[Advice | AdviceError]:
        """Return one answer per request, in order. A request that cannot be answered does not harm the others.

        What still queues for this caller alone is dropped when its time is over or it gives up. What is at the model
        then is finished and stored where its time is over, and may be ended where the caller is gone.

        Args:
            requests: What to answer.
            within_s: Seconds after which what has no answer yet is a miss; None: it waits for all.
        """
        started = time.perf_counter()
        ends = None if within_s is None else asyncio.get_running_loop().time() + within_s
        if len(requests) > MAX_LIST:
            return [AdviceError(f"list: {len(requests)} requests; at most {MAX_LIST} in one call")] * len(requests)
        answers: list[Advice | AdviceError | None] = [None] * len(requests)
        cold: dict[AdviceRequest, list[int]] = {}
        memory = self._known()
        for index, request in enumerate(requests):
            try:
                kept = memory.get(request)
                if kept is None:
                    cold.setdefault(request, []).append(index)
                else:
                    memory.move_to_end(request)
                    answers[index] = kept
            except TypeError:  # not hashable, so not made of text and a tuple
                answers[index] = AdviceError(problem(request) or "request: its fields must be text and a tuple of text")
        if cold:
            try:
                await self._answer_cold(cold, answers, started, ends)
            except asyncio.CancelledError:
                self._metrics.abandoned(sum(map(len, cold.values())))
                raise
        done = [answer for answer in answers if answer is not None]
        assert len(done) == len(requests)
        self._metrics.called(done, time.perf_counter() - started)
        return done

    def _known(self) -> OrderedDict[AdviceRequest, Advice]:
        """Return what is remembered: nothing of before the last time that other answers took some's place."""
        if self._replaced != self._store.replaced:
            self._replaced = self._store.replaced
            self._memory.clear()
        return self._memory

    async def explain(self, request: AdviceRequest) -> Explanation | AdviceError:
        """Answer one question and show how it was asked; an error where it cannot be asked at all."""
        (briefed,) = await self._briefed([request])
        if isinstance(briefed, AdviceError):
            return briefed
        (prompt,) = self._prompts([briefed])
        if isinstance(prompt, AdviceError):
            return prompt
        (answer,) = await self.advise([request])
        (kept,) = self._store.get_many([self._key(prompt)])
        thought = kept.thought if kept else ""
        return Explanation(self._builder.show(prompt), notes_in(briefed.rules), answer, thought)

    async def _briefed(self, requests: Sequence[AdviceRequest]) -> list[AdviceRequest | AdviceError]:
        """Return the requests with notes behind their rules, or why one cannot be asked."""
        rules: dict[str, str | AdviceError] = {}
        briefed: list[AdviceRequest | AdviceError] = []
        for request in requests:
            if trouble := problem(request):
                briefed.append(AdviceError(trouble))
                continue
            if request.rules not in rules:
                rules[request.rules] = await self._briefing.brief(request.rules)
            known = rules[request.rules]
            briefed.append(known if isinstance(known, AdviceError) else replace(request, rules=known))
        return briefed

    def _prompts(self, requests: Sequence[AdviceRequest]) -> list[Prompt | AdviceError]:
        """Return the prompts of valid requests, in order, or why there is none."""
        limit = self._settings.max_prompt_tokens
        prompts: list[Prompt | AdviceError] = []
        for request, built in zip(requests, self._builder.build_many(requests), strict=True):
            if isinstance(built, UserError):
                prompts.append(AdviceError(f"actions: {built}"))
            elif limit is not None and built.num_tokens > limit:
                parts = "rules, briefing and state" if notes_in(request.rules) else "rules and state"
                reason = f"{parts}: {built.num_tokens} tokens in the prompt; this tutor takes {limit}. "
                prompts.append(AdviceError(reason + "Shorten them or raise the tutor's engine.max_model_len."))
            else:
                prompts.append(built)
        return prompts

    def _key(self, prompt: Prompt) -> bytes:
        return advice_key(self._settings.identity, (*prompt.token_ids, *prompt.begun), prompt.label_token_ids)

    async def _answer_cold(
        self,
        cold: dict[AdviceRequest, list[int]],
        answers: list[Advice | AdviceError | None],
        started: float,
        ends: float | None,
    ) -> None:
        """Fill in what memory does not hold, and remember it."""
        replaced = self._store.replaced
        found = await self._find(list(cold), ends)
        latency_ms = (time.perf_counter() - started) * 1e3
        for (request, indices), answer in zip(cold.items(), found, strict=True):
            first, *others = indices
            if isinstance(answer, AdviceError):
                answers[first] = answer
                for index in others:
                    answers[index] = replace(answer, invalid=0, tokens=0)
                continue
            answers[first] = replace(answer, latency_ms=latency_ms, thought="")
            kept = known(answer)
            if replaced == self._store.replaced:
                self._memory[request] = kept
            for index in others:
                answers[index] = kept
        while len(self._memory) > MEMORY_ENTRIES:
            self._memory.popitem(last=False)

    async def _find(self, requests: Sequence[AdviceRequest], ends: float | None) -> list[Advice | AdviceError]:
        """Answer distinct requests from the store, from what is under way, or from the model."""
        caller = _Caller([None] * len(requests))
        try:
            async with asyncio.timeout_at(ends):
                self._enter(caller, await self._briefed(requests))
                while caller.unseen:
                    async with self._looking_up:  # in turn: a flood must not fill one turn of the event loop
                        if caller.unseen:
                            self._look_up()
                            await asyncio.sleep(0)
                if caller.waiting:
                    await asyncio.wait({joined.ticket.result for _, joined in caller.waiting})  # cancels none
        except TimeoutError:
            self._leave(caller, wanted=True)
        except BaseException:
            self._leave(caller)
            self._queue.pump()
            raise
        else:
            self._leave(caller)
        for place, (ticket, fresh) in caller.waiting:
            if ticket.result.done():
                caller.found[place] = _shared(ticket.result.result(), fresh)
        return [_LATE if item is None else item for item in caller.found]

    def _enter(self, caller: _Caller, briefed: Sequence[AdviceRequest | AdviceError]) -> None:
        """Have a caller's requests wait for their look-up, behind those of others."""
        for place, request in enumerate(briefed):
            if isinstance(request, AdviceError):
                caller.found[place] = request
            else:
                caller.unseen += 1
                self._unseen.append(_Cold(caller, place, request))

    def _leave(self, caller: _Caller, wanted: bool = False) -> None:
        """Count a caller out of all it waits for; see ``JoiningQueue.leave``."""
        caller.gone = True
        self._queue.leave((joined.ticket for _, joined in caller.waiting), wanted)

    def _look_up(self) -> None:
        """Look up the next requests of all callers.

        Without yielding: no evaluation may end between the look into the store and the joining.
        """
        slice_: list[_Cold] = []
        while self._unseen and len(slice_) < _SLICE:
            cold = self._unseen.popleft()
            cold.caller.unseen -= 1
            if not cold.caller.gone:
                slice_.append(cold)
        asked: list[tuple[_Cold, bytes, Prompt]] = []
        for cold, prompt in zip(slice_, self._prompts([cold.request for cold in slice_]), strict=True):
            if isinstance(prompt, AdviceError):
                cold.caller.found[cold.place] = prompt
            else:
                asked.append((cold, self._key(prompt), prompt))
        stored = self._store.get_many([key for _, key, _ in asked])
        for (cold, key, prompt), kept in zip(asked, stored, strict=True):
            if kept is not None:
                cold.caller.found[cold.place] = known(kept)
            elif (joined := self._queue.join(key, prompt, cold.request)) is not None:
                cold.caller.waiting.append((cold.place, joined))
            else:
                cold.caller.found[cold.place] = _OVERLOADED
        self._queue.pump()

    async def _keep(self, tickets: list[Ticket], answers: Answers) -> Answers:
        """Store what could be read, and return what counts: where another gateway was sooner, what it stored."""
        places, entries = [], []
        for place, (ticket, answer) in enumerate(zip(tickets, answers, strict=True)):
            self._metrics.evaluated(answer)
            if isinstance(answer, Advice):
                asked = ticket.request
                context = Context(self._settings.identity, asked.rules, asked.state, asked.actions)
                places.append(place)
                entries.append(Entry(ticket.key, answer, context))
        if not entries:
            return answers
        settled = list(answers)
        for place, entry, kept in zip(places, entries, await self._commit.run(entries), strict=True):
            if kept is not entry.advice:
                settled[place] = replace(
                    entry.advice,
                    probabilities=kept.probabilities,
                    legal_mass=kept.legal_mass,
                    thought=kept.thought,
                )
        return settled


def _shared(result: Advice | AdviceError, fresh: bool) -> Advice | AdviceError:
    """Return an evaluation to one of those who waited for it; what it cost is the first one's."""
    if fresh:
        return result
    return known(result) if isinstance(result, Advice) else replace(result, invalid=0, tokens=0)
