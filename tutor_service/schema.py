"""The words in which a student asks and a tutor answers.

Owns the advice request and the advice. It knows text and labels, and neither environments nor vLLM: it imports
nothing beyond the standard library, so that every process can.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

AdviceSource: TypeAlias = Literal["model", "store"]


@dataclass(frozen=True, slots=True)
class AdviceRequest:
    """One question to a tutor.

    Attributes:
        rules: The task's fixed text. It is the prefix that all requests of a task share, so a tutor caches it.
        state: What the student observes, in words.
        actions: The labels of the actions that are legal in this state, in the task's order; distinct.
    """

    rules: str
    state: str
    actions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Advice:
    """A tutor's policy in one state.

    Attributes:
        probabilities: One probability per label of ``AdviceRequest.actions``, in that order; they sum to 1.
        legal_mass: Probability mass in [0, 1] that the model put on those labels before renormalising. Near 1: the
            model means to answer; near 0: the distribution is the shape of noise. 0 under text decoding when no
            answer could be parsed.
        source: ``model`` where this call evaluated the LLM, ``store`` where an earlier evaluation was found.
        latency_ms: Milliseconds that the tutor service took for it.
        invalid: Answers of the model that named no legal action before this advice was had (text decoding only); 0
            from the store.
        tokens: Prompt and generated tokens that the model processed for it; 0 from the store.
    """

    probabilities: tuple[float, ...]
    legal_mass: float
    source: AdviceSource
    latency_ms: float
    invalid: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class AdviceError:
    """Why one request of a list got no advice; the others of the list are answered.

    Attributes:
        reason: What is wrong, in words, naming the field where a field is at fault.
        retry: Whether the same request may succeed later (overload, tutor down). False: the request is invalid.
    """

    reason: str
    retry: bool = False
