"""Answers lists of requests from memory, from the store, from evaluations under way, and only then from the model.

Owns the promise that a distinct state is evaluated once, whoever asks and how often. It takes the model as a function
and knows neither Serve nor vLLM.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tutor_service import decode
from tutor_service.engines.base import Evaluation
from tutor_service.errors import UserError
from tutor_service.joining import Evaluate, JoiningQueue, Ticket
from tutor_service.metrics import GatewayMetrics
from tutor_service.prompt import EMPTY_STATE, Prompt, PromptBuilder
from tutor_service.schema import Advice, AdviceError, AdviceRequest, AdviceSource
from tutor_service.store import Context, StoredAdvice, advice_key
from tutor_service.validate import MAX_LIST, problem

MEMORY_ENTRIES = 200_000
_SLICE = 32
"""Cold requests looked up at a time, a few milliseconds' work; whoever needs less of the event loop waits no longer."""


class Store(Protocol):
    """What the gateway needs of a store; neither call raises."""

    def get_many(self, keys: Sequence[bytes]) -> list[StoredAdvice | None]: ...  # noqa: D102

    def put_many(self, items: Sequence[tuple[bytes, StoredAdvice]]) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """How a gateway answers.

    Attributes:
        identity: Of the tutor and everything that can change an answer beside the prompt; part of the store's key.
        temperature: Applied after renormalising; not part of the key, since what is stored comes before it.
        calibrate: Divide by the distribution for an empty state; likewise.
        max_prompt_tokens: Longest prompt that leaves room for the answer; None: no limit known.
        batch: Most prompts per call of a replica.
        max_in_flight: Most prompts at the replicas at a time.
        max_pending: Most prompts that wait for the model; what comes beyond is turned away.
    """

    identity: str
    temperature: float = 1.0
    calibrate: bool = False
    max_prompt_tokens: int | None = None
    batch: int = 32
    max_in_flight: int = 128
    max_pending: int = 4096


@dataclass(frozen=True, slots=True)
class _Kept:
    """A finished answer in memory."""

    probabilities: tuple[float, ...]
    legal_mass: float


@dataclass(frozen=True, slots=True)
class _Raw:
    """An answer before temperature and calibration; ``fresh`` where this call made the model evaluate it."""

    evaluation: Evaluation
    fresh: bool


class Gateway:
    """The one place that all requests to a tutor pass; runs on one event loop.

    Args:
        settings: How to answer.
        builder: Makes prompts.
        evaluate: The model: prompts to evaluations, in order; raises when it cannot be reached.
        store: Answers of the past.
        metrics: Counts what happens.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        builder: PromptBuilder,
        evaluate: Evaluate,
        store: Store,
        metrics: GatewayMetrics,
    ) -> None:
        self._settings = settings
        self._builder = builder
        self._store = store
        self._metrics = metrics
        self._memory: OrderedDict[AdviceRequest, _Kept] = OrderedDict()
        self._looking_up = asyncio.Lock()
        self._queue = JoiningQueue(
            evaluate,
            self._keep,
            batch=settings.batch,
            max_in_flight=settings.max_in_flight,
            max_pending=settings.max_pending,
        )
        metrics.show_pending(lambda: self.num_pending)

    @property
    def num_pending(self) -> int:
        """Prompts that wait for the model."""
        return len(self._queue)

    async def advise(self, requests: Sequence[AdviceRequest]) -> list[Advice | AdviceError]:
        """One answer per request, in order. A request that cannot be answered does not harm the others.

        What is at the model when the caller gives up is finished and stored; what still queues for it only is dropped.
        """
        started = time.perf_counter()
        if len(requests) > MAX_LIST:
            return [AdviceError(f"list: {len(requests)} requests; at most {MAX_LIST} in one call")] * len(requests)
        answers: list[Advice | AdviceError | None] = [None] * len(requests)
        cold: dict[AdviceRequest, list[int]] = {}
        warm: list[tuple[int, _Kept]] = []
        memory = self._memory
        for index, request in enumerate(requests):
            try:
                kept = memory.get(request)
                if kept is None:
                    cold.setdefault(request, []).append(index)
                else:
                    memory.move_to_end(request)
                    warm.append((index, kept))
            except TypeError:  # not hashable, so not made of text and a tuple
                answers[index] = AdviceError(problem(request) or "request: its fields must be text and a tuple of text")
        if cold:
            await self._answer_cold(cold, answers, started)
        latency_s = time.perf_counter() - started
        for index, known in warm:
            answers[index] = Advice(known.probabilities, known.legal_mass, "store", latency_s * 1e3)
        done = [answer for answer in answers if answer is not None]
        assert len(done) == len(requests)
        self._metrics.called(done, latency_s)
        return done

    def prompt(self, request: AdviceRequest) -> Prompt | AdviceError:
        """The prompt of a request, or why there is none."""
        if trouble := problem(request):
            return AdviceError(trouble)
        try:
            prompt = self._builder.build(request)
        except UserError as error:
            return AdviceError(f"actions: {error}")
        limit = self._settings.max_prompt_tokens
        if limit is not None and len(prompt.token_ids) > limit:
            return AdviceError(
                f"rules and state: {len(prompt.token_ids)} tokens in the prompt; this tutor takes {limit}. "
                "Shorten them or raise the tutor's engine.max_model_len."
            )
        return prompt

    async def _answer_cold(
        self,
        cold: dict[AdviceRequest, list[int]],
        answers: list[Advice | AdviceError | None],
        started: float,
    ) -> None:
        """Fills in what memory does not hold, and remembers it."""
        requests = list(cold)
        priors = list(dict.fromkeys(map(_prior_of, requests))) if self._settings.calibrate else []
        raws = await self._raw([*requests, *priors])
        prior_of = dict(zip(priors, raws[len(requests) :], strict=True))
        latency_ms = (time.perf_counter() - started) * 1e3
        for request, raw in zip(requests, raws, strict=False):
            kept: _Kept | AdviceError = self._finish(raw, prior_of.get(_prior_of(request)) if priors else None)
            if isinstance(kept, _Kept):
                self._memory[request] = kept
            for nth, index in enumerate(cold[request]):
                if isinstance(kept, AdviceError):
                    answers[index] = kept
                    continue
                assert isinstance(raw, _Raw)
                fresh = raw.fresh and nth == 0
                invalid, tokens = (raw.evaluation.invalid, raw.evaluation.tokens) if fresh else (0, 0)
                source: AdviceSource = "model" if fresh else "store"
                answers[index] = Advice(kept.probabilities, kept.legal_mass, source, latency_ms, invalid, tokens)
        while len(self._memory) > MEMORY_ENTRIES:
            self._memory.popitem(last=False)

    def _finish(self, raw: _Raw | AdviceError, prior: _Raw | AdviceError | None) -> _Kept | AdviceError:
        if isinstance(raw, AdviceError):
            return raw
        if isinstance(prior, AdviceError):
            return prior
        probabilities = decode.shape(
            raw.evaluation.probabilities,
            self._settings.temperature,
            prior.evaluation.probabilities if prior else None,
        )
        return _Kept(probabilities, raw.evaluation.legal_mass)

    async def _raw(self, requests: Sequence[AdviceRequest]) -> list[_Raw | AdviceError]:
        """Answers from the store, from what is under way, or from the model; ``requests`` are distinct."""
        found: list[_Raw | AdviceError | None] = [None] * len(requests)
        waiting: list[tuple[int, Ticket, bool]] = []
        try:
            for start in range(0, len(requests), _SLICE):
                async with self._looking_up:  # in turn: a flood of callers must not fill one turn of the event loop
                    self._look_up(requests[start : start + _SLICE], start, found, waiting)
                    await asyncio.sleep(0)
            if waiting:
                await asyncio.wait({ticket.result for _, ticket, _ in waiting})  # unlike await, never cancels them
        finally:
            self._queue.leave(ticket for _, ticket, _ in waiting)
        for index, ticket, fresh in waiting:
            result = ticket.result.result()
            found[index] = result if isinstance(result, AdviceError) else _Raw(result, fresh)
        return [item for item in found if item is not None]

    def _look_up(
        self,
        requests: Sequence[AdviceRequest],
        offset: int,
        found: list[_Raw | AdviceError | None],
        waiting: list[tuple[int, Ticket, bool]],
    ) -> None:
        """Does not yield to the event loop: no evaluation may end between the look into the store and the joining."""
        asked: list[tuple[int, bytes, Prompt]] = []
        for index, request in enumerate(requests):
            prompt = self.prompt(request)
            if isinstance(prompt, AdviceError):
                found[offset + index] = prompt
            else:
                key = advice_key(self._settings.identity, prompt.token_ids, prompt.label_token_ids)
                asked.append((index, key, prompt))
        stored = self._store.get_many([key for _, key, _ in asked])
        for (index, key, prompt), kept in zip(asked, stored, strict=True):
            if kept is not None and len(kept.probabilities) == len(requests[index].actions):
                evaluation = Evaluation(kept.probabilities, kept.legal_mass, kept.invalid, kept.tokens)
                found[offset + index] = _Raw(evaluation, fresh=False)
            elif (joined := self._queue.join(key, prompt, requests[index])) is not None:
                waiting.append((offset + index, *joined))
            else:
                found[offset + index] = AdviceError("tutor: overloaded, too many states wait for the model", retry=True)
        self._queue.pump()

    async def _keep(self, evaluated: list[tuple[Ticket, Evaluation]]) -> None:
        """Stores what the model said, on a thread: a commit waits for the disk."""
        rows = []
        for ticket, item in evaluated:
            self._metrics.evaluated(item.legal_mass, item.invalid, item.tokens)
            asked = ticket.request
            context = Context(self._settings.identity, asked.rules, asked.state, asked.actions)
            kept = StoredAdvice(item.probabilities, item.legal_mass, item.invalid, item.tokens, context)
            rows.append((ticket.key, kept))
        await asyncio.to_thread(self._store.put_many, rows)


def _prior_of(request: AdviceRequest) -> AdviceRequest:
    return AdviceRequest(request.rules, EMPTY_STATE, request.actions)
