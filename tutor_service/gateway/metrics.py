"""Count what a gateway does, for Prometheus. Owns the names of the figures; knows nothing of how advice is made."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.registry import Collector

from tutor_service.schema import Advice, AdviceError

Series = TypeVar("Series", Counter, Gauge, Histogram)

_LATENCY_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
LATE = "the student's deadline passed first: raise advice.deadline_s, or set advice.wait"
_MAX_REASONS = 50
_OTHER_REASONS = "other reasons"
_MASS = (0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0)


class GatewayMetrics:
    """Hold the counters and histograms of one tutor, in a registry of their own.

    Args:
        tutor: Name of the tutor, the label of every series.
        gateway: Number of the gateway, another label, where there are several; None: it is the only one.
    """

    def __init__(self, tutor: str, gateway: int | None = None) -> None:
        self._of = {"tutor": tutor} if gateway is None else {"tutor": tutor, "gateway": str(gateway)}
        self.registry = CollectorRegistry()
        self.answered: Tally[str] = Tally()
        self.failed: Tally[str] = Tally()
        self.reasons: Tally[str] = Tally()
        self._advice = self._family(Counter, "tutor_advice", "Advice given, by source.", "source")
        self._errors = self._family(Counter, "tutor_errors", "Requests without advice, by kind.", "kind")
        self._invalid = self._series(Counter, "tutor_invalid_answers", "Answers that named no legal action.")
        self._tokens = self._series(Counter, "tutor_tokens", "Prompt and generated tokens that the model processed.")
        self._latency = self._series(
            Histogram, "tutor_call_latency_seconds", "Time per call, of any number of requests.", buckets=_LATENCY_S
        )
        self._mass = self._series(
            Histogram, "tutor_legal_mass", "Probability mass on legal labels, per model evaluation.", buckets=_MASS
        )
        self._pending = self._series(Gauge, "tutor_pending_prompts", "Prompts at or on their way to replicas.")
        self._store_failures = self._series(Counter, "tutor_store_failures", "Calls of the advice store that failed.")
        self._unsent = self._series(Gauge, "tutor_unsent_answers", "Answers that a shared store is still to learn of.")

    def _family(self, kind: Callable[..., Series], name: str, about: str, *labels: str, **options: Any) -> Series:
        """Register series that are told apart by more labels than this gateway's own."""
        return kind(name, about, [*self._of, *labels], registry=self.registry, **options)

    def _series(self, kind: Callable[..., Series], name: str, about: str, **options: Any) -> Series:
        """Register one series of this gateway."""
        return self._family(kind, name, about, **options).labels(**self._of)

    def called(self, answers: Iterable[Advice | AdviceError], latency_s: float) -> None:
        """Count one call's answers."""
        by_source: Tally[str] = Tally()
        by_kind: Tally[str] = Tally()
        for answer in answers:
            if isinstance(answer, AdviceError):
                by_kind[_kind(answer)] += 1
                self._count_reason(answer.reason)
            else:
                by_source[answer.source] += 1
        for source, count in by_source.items():
            self._advice.labels(**self._of, source=source).inc(count)
        for kind, count in by_kind.items():
            self._errors.labels(**self._of, kind=kind).inc(count)
        self.answered.update(by_source)
        self.failed.update(by_kind)
        self._latency.observe(latency_s)

    def abandoned(self, num_requests: int) -> None:
        """Count requests whose caller went away before they were answered."""
        self.failed["abandoned"] += num_requests
        self._errors.labels(**self._of, kind="abandoned").inc(num_requests)
        self._count_reason(LATE, num_requests)

    def _count_reason(self, reason: str, number: int = 1) -> None:
        """Count why there was no advice, reasons beyond the first few dozen as one."""
        known = reason in self.reasons or len(self.reasons) < _MAX_REASONS
        self.reasons[reason if known else _OTHER_REASONS] += number

    def evaluated(self, answer: Advice | AdviceError) -> None:
        """Count one evaluation of the model; one of which nothing could be read has no legal mass."""
        self._mass.observe(answer.legal_mass if isinstance(answer, Advice) else 0.0)
        self._invalid.inc(answer.invalid)
        self._tokens.inc(answer.tokens)

    def show_pending(self, prompts: Callable[[], int]) -> None:
        """Take a function that says how many prompts wait for the model; it is asked whenever somebody looks."""
        self._pending.set_function(prompts)

    def show_unsent(self, answers: Callable[[], int]) -> None:
        """Take a function that says how many answers a shared store is still to learn of."""
        self._unsent.set_function(answers)

    def store_failed(self) -> None:
        """Count one call of the store that failed."""
        self._store_failures.inc()

    def families(self) -> list[Metric]:
        """Return all series by family, as they are now; they may be sent to another process."""
        return list(self.registry.collect())


class _Families(Collector):
    """Show families of series that were collected elsewhere."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def exposition(gateways: Iterable[Iterable[Metric]]) -> bytes:
    """Return the series of gateways in Prometheus' text format, each family once.

    Args:
        gateways: What each one's ``GatewayMetrics.families`` says.
    """
    together: dict[str, Metric] = {}
    for family in (family for families in gateways for family in families):
        shown = together.setdefault(family.name, Metric(family.name, family.documentation, family.type, family.unit))
        shown.samples.extend(family.samples)
    registry = CollectorRegistry()
    registry.register(_Families(together.values()))
    return generate_latest(registry)


def _kind(error: AdviceError) -> str:
    if error.reason == LATE:
        return "late"
    if error.retry:
        return "unavailable"
    return "not_read" if error.invalid else "refused"
