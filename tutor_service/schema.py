"""Define what a student asks of a tutor and what it is told.

Owns the advice request and the one type of answer, from the engine that read it to the student that follows it. Imports
the standard library alone, so that every process can use it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

TOLERANCE = 1e-3
"""Largest distance of a sum of probabilities from 1."""

_MAX_COUNT = 2**32 - 1


@dataclass(frozen=True, slots=True)
class AdviceRequest:
    """Ask a tutor about one state.

    Attributes:
        rules: The task's fixed text. It is the prefix that all requests of a task share, so a tutor caches it.
        state: What the student observes, in words.
        actions: The labels of the actions that are legal in this state, in the task's order; distinct.
        synonyms: Other words for each action, best first: a tutor whose tokenizer has one token for such a word and not
            for the label is asked for the word. Empty: there are none.
    """

    rules: str
    state: str
    actions: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Advice:
    """Hold a tutor's policy in one state.

    It is checked when it is made and nowhere else: whoever holds one holds a distribution that was read from an answer.

    Attributes:
        probabilities: One probability per label of ``AdviceRequest.actions``, in that order; they sum to 1. They are
            the model's own, before calibration and temperature.
        legal_mass: Probability mass in (0, 1] that the model put on those labels before renormalising. Near 1: the
            model means to answer; near 0: the distribution is the shape of noise.
        source: ``model`` where this call evaluated the LLM, ``store`` where an earlier evaluation was found.
        latency_ms: Milliseconds that the tutor service took for it; 0 where it was known already.
        invalid: Answers of the model that named no legal action before this one (text decoding only); 0 from the
            store.
        tokens: Prompt and generated tokens that the model processed for it; 0 from the store.
        thought: What the model thought before it answered (decoding reasoned), for people; students get none.

    Raises:
        ValueError: The numbers are no distribution, or were read from nothing (legal mass 0).
    """

    probabilities: tuple[float, ...]
    legal_mass: float
    source: Literal["model", "store"] = "model"
    latency_ms: float = 0.0
    invalid: int = 0
    tokens: int = 0
    thought: str = ""

    def __post_init__(self) -> None:
        given = self.probabilities
        if not given or not min(given) >= 0.0 or not abs(math.fsum(given) - 1.0) <= TOLERANCE:
            raise ValueError(f"probabilities {given} are no distribution")
        if not 0.0 < self.legal_mass <= 1.0 + TOLERANCE:
            raise ValueError(f"legal_mass {self.legal_mass} is not in (0, 1]: nothing was read from the answer")
        if not (0 <= self.invalid <= _MAX_COUNT and 0 <= self.tokens <= _MAX_COUNT):
            raise ValueError(f"invalid {self.invalid} or tokens {self.tokens} is negative or beyond 32 bits")


@dataclass(frozen=True, slots=True)
class AdviceError:
    """Say why one request of a list got no advice; the others of the list are answered.

    Attributes:
        reason: What is wrong, in words, naming the field where a field is at fault.
        retry: Whether the same request may succeed later (overload, tutor down). False: asking again brings the same.
        invalid: Answers of the model that named no legal action.
        tokens: Prompt and generated tokens that the model processed in vain.
        fatal: Whether a student is to end instead of going on by itself.
    """

    reason: str
    retry: bool = False
    invalid: int = 0
    tokens: int = 0
    fatal: bool = False


Ask: TypeAlias = Callable[[list[AdviceRequest]], Sequence[Advice | None]]
"""A tutor: one answer per request, None where there is none."""
