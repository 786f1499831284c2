"""Answer lists of requests from memory, from the store, from evaluations under way, and only then from the model.

Owns the promise that a distinct state is evaluated once, whoever asks and how often. It takes the model as a function
and knows neither Serve nor vLLM.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from tutor_service.errors import UserError
from tutor_service.gateway.briefing import Briefing, notes_in
from tutor_service.gateway.metrics import GatewayMetrics
from tutor_service.gateway.queue import Evaluate, Joined, JoiningQueue, Ticket
from tutor_service.prompts.prompt import Prompt, PromptBuilder
from tutor_service.schema import Advice, AdviceError, AdviceRequest
from tutor_service.store import Context, Entry, advice_key
from tutor_service.validation import MAX_LIST, problem

MEMORY_ENTRIES = 200_000
_SLICE = 32
"""Cold requests looked up at a time, a few milliseconds' work; whoever needs less of the event loop waits no longer."""


class Store(Protocol):
    """Keep answers for a gateway; neither call raises."""

    def get_many(self, keys: Sequence[bytes]) -> list[Advice | None]: ...  # noqa: D102

    def put_many(self, entries: Sequence[Entry]) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Say how a gateway answers.

    Attributes:
        identity: Of the tutor and everything that can change an answer beside the prompt; part of the store's key.
        max_prompt_tokens: Longest prompt that leaves room for the answer; None: no limit known.
        batch: Most prompts per call of a replica.
        max_in_flight: Most prompts at the replicas at a time.
        max_pending: Most prompts that wait for the model; what comes beyond is turned away.
        evaluation_timeout_s: Seconds after which a call of a replica is given up; None: never, the engine sees to it.
    """

    identity: str
    max_prompt_tokens: int | None = None
    batch: int = 32
    max_in_flight: int = 128
    max_pending: int = 4096
    evaluation_timeout_s: float | None = 600.0


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


class _Asked(NamedTuple):
    """Name a request that has a prompt by its place in the list."""

    place: int
    key: bytes
    prompt: Prompt
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
    """

    def __init__(
        self,
        settings: GatewaySettings,
        builder: PromptBuilder,
        briefing: Briefing,
        evaluate: Evaluate,
        store: Store,
        metrics: GatewayMetrics,
    ) -> None:
        self._settings = settings
        self._builder = builder
        self._briefing = briefing
        self._store = store
        self._metrics = metrics
        self._memory: OrderedDict[AdviceRequest, Advice] = OrderedDict()
        self._looking_up = asyncio.Lock()
        self._queue = JoiningQueue(
            evaluate,
            self._keep,
            batch=settings.batch,
            max_in_flight=settings.max_in_flight,
            max_pending=settings.max_pending,
            timeout_s=settings.evaluation_timeout_s,
        )
        metrics.show_pending(lambda: self.num_pending)

    @property
    def num_pending(self) -> int:
        """Return how many prompts wait for the model."""
        return len(self._queue)

    async def advise(self, requests: Sequence[AdviceRequest]) -> list[Advice | AdviceError]:
        """Return one answer per request, in order. A request that cannot be answered does not harm the others.

        What is at the model when the caller gives up is finished and stored; what still queues for it only is dropped.
        """
        started = time.perf_counter()
        if len(requests) > MAX_LIST:
            return [AdviceError(f"list: {len(requests)} requests; at most {MAX_LIST} in one call")] * len(requests)
        answers: list[Advice | AdviceError | None] = [None] * len(requests)
        cold: dict[AdviceRequest, list[int]] = {}
        memory = self._memory
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
                await self._answer_cold(cold, answers, started)
            except asyncio.CancelledError:
                self._metrics.abandoned(sum(map(len, cold.values())))
                raise
        done = [answer for answer in answers if answer is not None]
        assert len(done) == len(requests)
        self._metrics.called(done, time.perf_counter() - started)
        return done

    async def explain(self, request: AdviceRequest) -> Explanation | AdviceError:
        """Answer one question and show how it was asked; an error where it cannot be asked at all."""
        (briefed,) = await self._briefed([request])
        if isinstance(briefed, AdviceError):
            return briefed
        prompt = self._prompt(briefed)
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

    def _prompt(self, request: AdviceRequest) -> Prompt | AdviceError:
        """Return the prompt of a valid request, or why there is none."""
        try:
            prompt = self._builder.build(request)
        except UserError as error:
            return AdviceError(f"actions: {error}")
        limit = self._settings.max_prompt_tokens
        if limit is not None and len(prompt.token_ids) > limit:
            parts = "rules, briefing and state" if notes_in(request.rules) else "rules and state"
            return AdviceError(
                f"{parts}: {len(prompt.token_ids)} tokens in the prompt; this tutor takes {limit}. "
                "Shorten them or raise the tutor's engine.max_model_len."
            )
        return prompt

    def _key(self, prompt: Prompt) -> bytes:
        return advice_key(self._settings.identity, (*prompt.token_ids, *prompt.begun), prompt.label_token_ids)

    async def _answer_cold(
        self,
        cold: dict[AdviceRequest, list[int]],
        answers: list[Advice | AdviceError | None],
        started: float,
    ) -> None:
        """Fill in what memory does not hold, and remember it."""
        found = await self._find(list(cold))
        latency_ms = (time.perf_counter() - started) * 1e3
        for (request, indices), answer in zip(cold.items(), found, strict=True):
            first, *others = indices
            if isinstance(answer, AdviceError):
                answers[first] = answer
                for index in others:
                    answers[index] = replace(answer, invalid=0, tokens=0)
                continue
            answers[first] = replace(answer, latency_ms=latency_ms, thought="")
            kept = self._memory[request] = _known(answer)
            for index in others:
                answers[index] = kept
        while len(self._memory) > MEMORY_ENTRIES:
            self._memory.popitem(last=False)

    async def _find(self, requests: Sequence[AdviceRequest]) -> list[Advice | AdviceError]:
        """Answer distinct requests from the store, from what is under way, or from the model."""
        briefed = await self._briefed(requests)
        found: list[Advice | AdviceError | None] = [None] * len(requests)
        waiting: list[tuple[int, Joined]] = []
        try:
            for start in range(0, len(requests), _SLICE):
                async with self._looking_up:  # in turn: a flood of callers must not fill one turn of the event loop
                    self._look_up(briefed[start : start + _SLICE], start, found, waiting)
                    await asyncio.sleep(0)
            if waiting:
                await asyncio.wait({joined.ticket.result for _, joined in waiting})  # unlike await, never cancels them
        finally:
            self._queue.leave(joined.ticket for _, joined in waiting)
        for index, (ticket, fresh) in waiting:
            result = ticket.result.result()
            if fresh:
                found[index] = result
            elif isinstance(result, Advice):
                found[index] = _known(result)
            else:
                found[index] = replace(result, invalid=0, tokens=0)
        return [item for item in found if item is not None]

    def _look_up(
        self,
        requests: Sequence[AdviceRequest | AdviceError],
        offset: int,
        found: list[Advice | AdviceError | None],
        waiting: list[tuple[int, Joined]],
    ) -> None:
        """Look up without yielding: no evaluation may end between the look into the store and the joining."""
        asked: list[_Asked] = []
        for index, request in enumerate(requests):
            if isinstance(request, AdviceError):
                found[offset + index] = request
                continue
            prompt = self._prompt(request)
            if isinstance(prompt, AdviceError):
                found[offset + index] = prompt
                continue
            asked.append(_Asked(offset + index, self._key(prompt), prompt, request))
        stored = self._store.get_many([item.key for item in asked])
        for item, kept in zip(asked, stored, strict=True):
            if kept is not None:
                found[item.place] = _known(kept)
            elif (joined := self._queue.join(item.key, item.prompt, item.request)) is not None:
                waiting.append((item.place, joined))
            else:
                found[item.place] = AdviceError("tutor: overloaded, too many states wait for the model", retry=True)
        self._queue.pump()

    async def _keep(self, evaluated: list[tuple[Ticket, Advice | AdviceError]]) -> None:
        """Store what could be read, on a thread: a commit waits for the disk."""
        entries = []
        for ticket, answer in evaluated:
            self._metrics.evaluated(answer)
            if isinstance(answer, Advice):
                asked = ticket.request
                context = Context(self._settings.identity, asked.rules, asked.state, asked.actions)
                entries.append(Entry(ticket.key, answer, context))
        if entries:
            await asyncio.to_thread(self._store.put_many, entries)


def _known(advice: Advice) -> Advice:
    """Return an answer in the form in which it is given out again."""
    return replace(advice, source="store", latency_ms=0.0, invalid=0, tokens=0, thought="")
