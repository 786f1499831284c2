"""Say what an endpoint takes, and make requests that ask for no more. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tutor_service.config import TutorConfig

TOP_LOGPROBS = 20
"""Most that OpenAI's API gives."""

FEWER_TOP_LOGPROBS = (10, 8, 5, 4, 3, 2)
"""Tried in turn where the most is refused and 1 is not."""

LENGTH_FIELDS = ("max_tokens", "max_completion_tokens")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Hold what an endpoint takes.

    Attributes:
        top_logprobs: Likeliest tokens that it shows with log-probabilities; 0: none, answers are read as text.
        temperature: Whether a temperature may be set.
        seed: Whether a seed may be set.
        length_field: Field that bounds an answer's tokens; empty: none is taken.
        least_tokens: Least number that may stand in it.
        thinks: Whether the model thinks before it answers.
    """

    top_logprobs: int = TOP_LOGPROBS
    temperature: bool = True
    seed: bool = True
    length_field: str = "max_tokens"
    least_tokens: int = 1
    thinks: bool = False

    def body(self, tokens: int, *, temperature: float, seed: int | None, scored: bool) -> dict[str, Any]:
        """Return the optional fields of a request, of those that are taken.

        Args:
            tokens: Most tokens of the answer.
            temperature: 0: the likeliest answer.
            seed: Of a sampled answer.
            scored: Ask for log-probabilities.
        """
        fields: dict[str, Any] = {}
        if self.length_field:
            fields[self.length_field] = max(tokens, self.least_tokens)
        if self.temperature:
            fields["temperature"] = temperature
        if self.seed and seed is not None:
            fields["seed"] = seed
        if scored and self.top_logprobs:
            fields |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        return fields

    def words(self) -> str:
        """Say it on one line, for a person."""
        taken = [
            f"log-probabilities of the {self.top_logprobs} likeliest tokens" if self.top_logprobs else "read as text",
            "temperature" if self.temperature else "no temperature",
            "seed" if self.seed else "no seed",
            self.length_field or "no limit of tokens",
        ]
        if self.least_tokens > 1:
            taken[-1] += f" of at least {self.least_tokens}"
        if self.thinks:
            taken.append("thinks first")
        return ", ".join(taken)


def starting_point(config: TutorConfig) -> Capabilities:
    """Return what is tried first: everything, except what the tutor's file sets."""
    by_hand = config.capabilities
    top = by_hand.top_logprobs
    if top is None:
        top = int(config.engine.get("top_logprobs", TOP_LOGPROBS))
    length_field = by_hand.length_field or LENGTH_FIELDS[0]
    return Capabilities(
        top_logprobs=top if config.decoding == "scored" else 0,
        temperature=by_hand.temperature is not False,
        seed=by_hand.seed is not False,
        length_field="" if length_field == "none" else length_field,
        least_tokens=by_hand.least_tokens or 1,
        thinks=bool(by_hand.thinking),
    )
