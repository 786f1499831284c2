"""Ask a tutor once per state, and never wait longer than a deadline.

Owns the process-local map, the deadline, retries and the circuit breaker. It must not know how a tutor is reached, what
an environment is, or what the student does with the advice.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import random
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tutor_service.client.backend import Backend, BackendError, service_share_s
from tutor_service.client.bounded_calls import BoundedCalls, StillBusy
from tutor_service.client.breaker import BreakerState, CircuitBreaker
from tutor_service.config import TutorConfig
from tutor_service.errors import UserError
from tutor_service.schema import Advice, AdviceError, AdviceRequest

logger = logging.getLogger(__name__)

URL_VARIABLE = "LLM_TUTORS_URL"
TOKEN_VARIABLE = "LLM_TUTORS_TOKEN"

MAX_OPEN_S = 30.0
"""Longest pause between two probes: a tutor that is back is found again so much later at most."""

MAX_CALL_S = 600.0
"""Longest call: after it the same is asked again, and joins what is under way for it in the service."""

_MOST_DOUBLINGS = 16

_Question = tuple[str, str, tuple[str, ...]]


@dataclass(slots=True)
class ClientStats:
    """Count what a client did, in this process.

    Attributes:
        requests: Requests that it was given.
        local_hits: Of these, answered from the process-local map.
        missed: Of these, answered with None.
        refused: Of these, refused for good: asking again would bring the same.
        calls: Attempts that were made at the service.
        failed_calls: Of these, without an answer within the deadline.
        skipped_calls: Attempts that were left out while the circuit was not closed.
        invalid: Answers of the model that named no legal action, of requests that got no advice.
        tokens: Tokens that the model processed for requests that got no advice.
        last_error: Why the last request got nothing.
    """

    requests: int = 0
    local_hits: int = 0
    missed: int = 0
    refused: int = 0
    calls: int = 0
    failed_calls: int = 0
    skipped_calls: int = 0
    invalid: int = 0
    tokens: int = 0
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Say how long a client waits and what it keeps.

    Attributes:
        deadline_s: Most seconds that ``advise`` takes, retries and pauses included. Infinite: it waits as long as an
            answer may still come, whatever ``retries`` says, and the circuit breaker is off.
        retries: Most attempts after the first one.
        backoff_s: Mean pause before the first retry; it doubles, and is drawn from ±50 % so that many students do not
            come back at the same moment.
        breaker_failures: Failed attempts in a row after which the tutor is left alone for a while; one attempt that
            hung until the deadline is enough.
        breaker_open_s: Seconds of the first such pause, and seconds that the probe after it may take. Both double with
            every failed probe, up to half a minute. No caller waits for a probe.
        capacity: Most answers in the map; the oldest goes first.
        batch_size: Most requests in one call.

    Raises:
        ValueError: A number is out of range.
    """

    deadline_s: float = 30.0
    retries: int = 2
    backoff_s: float = 0.2
    breaker_failures: int = 3
    breaker_open_s: float = 5.0
    capacity: int = 1_000_000
    batch_size: int = 1024

    @property
    def waits(self) -> bool:
        """Tell whether a student waits for its tutor however long that takes."""
        return math.isinf(self.deadline_s)

    def __post_init__(self) -> None:
        positive = min(self.deadline_s, self.breaker_open_s) > 0
        counts = min(self.breaker_failures, self.capacity, self.batch_size) >= 1
        if not (positive and counts and min(self.retries, self.backoff_s) >= 0):
            raise ValueError(
                "a client needs deadline_s > 0, breaker_open_s > 0, breaker_failures >= 1, capacity >= 1, "
                f"batch_size >= 1, retries >= 0 and backoff_s >= 0, got {self}"
            )


class TutorClient:
    """Ask one tutor for advice.

    >>> from tutor_service.client import ClientSettings, TutorClient
    >>> from tutor_service.schema import Advice, AdviceRequest
    >>> class Cautious:  # stands for a backend: ServeHandleBackend, HttpBackend or one of yours
    ...     def advise(self, requests, timeout_s):
    ...         return [Advice((0.9, 0.1), legal_mass=0.8) for _ in requests]
    >>> client = TutorClient(Cautious(), ClientSettings(deadline_s=5.0))
    >>> question = AdviceRequest("Play Blackjack.", "You hold 19.", ("stick", "hit"))
    >>> [advice.source for advice in client.advise([question, question])]
    ['model', 'store']
    >>> client.stats.calls
    1

    Answers are kept in a map of this process for as long as it lives, so a trial sees the same tutor throughout. Where
    the tutor does not answer in time, the result is None and the student acts by itself. Several threads may share a
    client; it pickles without its map and its connections. For a deployed tutor use ``connect``.

    Args:
        backend: How the tutor is reached.
        settings: How long to wait, and what to keep.
    """

    def __init__(self, backend: Backend, settings: ClientSettings | None = None) -> None:
        self.backend = backend
        self.settings = settings or ClientSettings()
        open_s = self.settings.breaker_open_s
        self._breaker = CircuitBreaker(self.settings.breaker_failures, open_s, max(MAX_OPEN_S, open_s))
        self._calls = BoundedCalls()
        self._known: dict[_Question, Advice] = {}
        self._lock = threading.Lock()
        self._random = random.Random()
        self._stats = ClientStats()

    def advise(self, requests: Sequence[AdviceRequest]) -> list[Advice | None]:
        """Return advice for each request, in order; None where there is none within the deadline.

        Answers from the map have source ``store`` and latency 0. Equal requests are asked once.

        Raises:
            UserError: The tutor says that its students are to end, e.g. since its budget is used up.
        """
        get = self._known.get
        answers = [get((request.rules, request.state, request.actions)) for request in requests]
        if all(answers):
            with self._lock:
                self._stats.requests += len(answers)
                self._stats.local_hits += len(answers)
            return answers
        return self._complete(requests, answers)

    @property
    def stats(self) -> ClientStats:
        """Return what this client did so far, as a copy."""
        with self._lock:
            return replace(self._stats)

    @property
    def breaker_state(self) -> BreakerState:
        """Return whether the tutor is being called at the moment."""
        return self._breaker.state

    def _complete(self, requests: Sequence[AdviceRequest], answers: list[Advice | None]) -> list[Advice | None]:
        rows: dict[_Question, list[int]] = {}
        for row, request in enumerate(requests):
            if answers[row] is None:
                rows.setdefault((request.rules, request.state, request.actions), []).append(row)
        hits = len(answers) - sum(map(len, rows.values()))
        fresh = self._ask({question: requests[where[0]] for question, where in rows.items()})
        for question, advice in fresh.items():
            kept = self._keep(question, advice)
            first, *others = rows[question]
            answers[first] = advice
            for row in others:
                answers[row] = kept
        with self._lock:
            self._stats.requests += len(answers)
            self._stats.local_hits += hits + sum(len(rows[question]) - 1 for question in fresh)
            self._stats.missed += answers.count(None)
        return answers

    def _ask(self, open_questions: dict[_Question, AdviceRequest]) -> dict[_Question, Advice]:
        """Ask until all is answered, the attempts are used up or the time is."""
        deadline = time.monotonic() + self.settings.deadline_s
        found: dict[_Question, Advice] = {}
        attempts = itertools.count() if self.settings.waits else range(self.settings.retries + 1)
        for attempt in attempts:
            if attempt and not self._pause(attempt, deadline):
                break
            if not self._attempt(open_questions, found, deadline) or not open_questions:
                break
        return found

    def _attempt(
        self, open_questions: dict[_Question, AdviceRequest], found: dict[_Question, Advice], deadline: float
    ) -> bool:
        """Make one attempt at all open questions, move what is answered, and return whether another may help."""
        questions = list(open_questions)
        for start in range(0, len(questions), self.settings.batch_size):
            batch = {
                question: open_questions[question] for question in questions[start : start + self.settings.batch_size]
            }
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                self._note_error(f"no answer within {self.settings.deadline_s} s")
                return False
            if not self.settings.waits and not self._breaker.allow():
                with self._lock:
                    self._stats.skipped_calls += 1
                if self._breaker.allow_probe():
                    threading.Thread(target=self._probe, args=(batch,), name="tutor-probe", daemon=True).start()
                return False
            timeout_s = min(remaining_s, MAX_CALL_S)
            settled, retry = self._try(batch, timeout_s)
            for question, advice in settled.items():
                del open_questions[question]
                if advice is not None:
                    found[question] = advice
            if not retry or deadline - time.monotonic() <= timeout_s - service_share_s(timeout_s):
                return False
        return True

    def _probe(self, questions: dict[_Question, AdviceRequest]) -> None:
        """Ask beside the caller, who goes on without advice and finds it in the map at the next visit."""
        try:
            settled, _ = self._try(questions, min(self.settings.deadline_s, self._breaker.patience_s))
        except UserError:  # the next caller meets it himself
            return
        for question, advice in settled.items():
            if advice is not None:
                self._keep(question, advice)

    def _try(
        self, questions: dict[_Question, AdviceRequest], timeout_s: float
    ) -> tuple[dict[_Question, Advice | None], bool]:
        """Make one call. Return the questions that it settled, None for a bad one, and whether another may help."""
        started = time.monotonic()
        try:
            answers = self._call(list(questions.values()), timeout_s)
        except BackendError as error:
            self._failed(error.reason, hung=time.monotonic() - started >= timeout_s)
            return {}, error.retry
        except BaseException:
            self._breaker.failed()
            raise
        try:
            settled = self._settled(questions, answers)
        except UserError:
            self._breaker.succeeded()
            raise
        if settled:
            self._breaker.succeeded()
        else:
            self._failed(self._stats.last_error)
        return settled, True

    def _call(self, requests: list[AdviceRequest], timeout_s: float) -> list[Advice | AdviceError]:
        with self._lock:
            self._stats.calls += 1
        try:
            answers = self._calls.run(lambda: self.backend.advise(requests, timeout_s), timeout_s)
        except TimeoutError:
            raise BackendError(f"{self.backend!r} did not answer within {timeout_s:.1f} s", retry=True) from None
        except StillBusy:
            raise BackendError(f"earlier calls of {self.backend!r} still hang", retry=self.settings.waits) from None
        if len(answers) != len(requests):
            raise BackendError(f"{self.backend!r} gave {len(answers)} answers to {len(requests)} requests", retry=False)
        return answers

    def _settled(
        self, questions: Iterable[_Question], answers: Sequence[Advice | AdviceError]
    ) -> dict[_Question, Advice | None]:
        """Return all but the questions that were refused for the moment only."""
        settled: dict[_Question, Advice | None] = {}
        for question, answer in zip(questions, answers, strict=True):
            if isinstance(answer, Advice) and len(answer.probabilities) == len(question[2]):
                settled[question] = answer
                continue
            if isinstance(answer, Advice):
                answer = AdviceError(f"{len(answer.probabilities)} probabilities for {len(question[2])} actions")
            with self._lock:
                self._stats.last_error = answer.reason
                self._stats.invalid += answer.invalid
                self._stats.tokens += answer.tokens
            if answer.fatal:
                raise UserError(f"the tutor ends its students: {answer.reason}")
            if not answer.retry:
                settled[question] = None
                with self._lock:
                    self._stats.refused += 1
        return settled

    def _pause(self, attempt: int, deadline: float) -> bool:
        """Wait before a retry; return False where that would take all the time that is left."""
        pause_s = min(MAX_OPEN_S, self.settings.backoff_s * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS))
        pause_s *= self._random.uniform(0.5, 1.5)
        if time.monotonic() + pause_s >= deadline:
            return False
        time.sleep(pause_s)
        return True

    def _keep(self, question: _Question, advice: Advice) -> Advice:
        """Put an answer into the map, in the form in which it is given out from then on."""
        kept = replace(advice, source="store", latency_ms=0.0, invalid=0, tokens=0)
        with self._lock:
            while len(self._known) >= self.settings.capacity:
                del self._known[next(iter(self._known))]
            self._known[question] = kept
        return kept

    def _failed(self, reason: str, hung: bool = False) -> None:
        before = self._breaker.state
        self._breaker.failed(hung)
        self._note_error(reason)
        with self._lock:
            self._stats.failed_calls += 1
        if before is BreakerState.CLOSED and self._breaker.state is not BreakerState.CLOSED:
            until = "waited for" if self.settings.waits else "left alone for a while, students act by themselves"
            logger.warning("The tutor is %s: %s", until, reason)

    def _note_error(self, reason: str) -> None:
        with self._lock:
            self._stats.last_error = reason

    def __getstate__(self) -> dict[str, Any]:
        return {"backend": self.backend, "settings": self.settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        TutorClient.__init__(self, state["backend"], state["settings"])


def app_name(tutor_name: str) -> str:
    """Name of the Serve application of a tutor."""
    return f"tutor-{tutor_name}"


def service_url() -> str | None:
    """Return a remote service's base address, ``$LLM_TUTORS_URL``; None: tutors are on this process's Ray cluster."""
    return os.environ.get(URL_VARIABLE, "").strip() or None


def connect(
    tutor: TutorConfig, *, deadline_s: float = 30.0, url: str | None = None, token: str | None = None
) -> TutorClient:
    """Return a client of a tutor. Nothing is contacted before the first request.

    Args:
        tutor: Which tutor.
        deadline_s: Most seconds that one list of requests takes; infinite: as long as an answer may still come.
        url: Base address of a remote service, under which each tutor has its name; default: ``$LLM_TUTORS_URL``,
            else the tutor's application on the Ray cluster that the process belongs to.
        token: Bearer token of a remote service; default: ``$LLM_TUTORS_TOKEN``.

    Raises:
        UserError: The tutor is a scripted reference, which no service answers for, or the address is none.
    """
    if tutor.backend == "reference":
        raise UserError(f"tutor '{tutor.name}' is a scripted reference: it runs in the student, not as a service.")
    settings = ClientSettings(deadline_s=deadline_s)
    if tutor.file is not None:
        from tutor_service.client.recorded import RecordedBackend

        return TutorClient(RecordedBackend(tutor.file, tutor.identity), settings)
    url = url or service_url()
    if not url:
        from tutor_service.client.serve_handle import ServeHandleBackend

        return TutorClient(ServeHandleBackend(app_name(tutor.name)), settings)
    if not url.startswith(("http://", "https://")):
        raise UserError(f"the tutor service's address '{url}' must begin with http:// or https:// ({URL_VARIABLE}).")
    from tutor_service.client.http import HttpBackend

    token = token or os.environ.get(TOKEN_VARIABLE, "").strip() or None
    return TutorClient(HttpBackend(f"{url.rstrip('/')}/{tutor.name}", token), settings)
