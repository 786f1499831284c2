"""Declare what the service needs of whatever runs a tutor's model. Imports no engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tutor_service.prompts.prompt import Decoding, Prompt
from tutor_service.schema import Advice, AdviceError


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """Hold what the gateway has to know about an engine that is ready.

    Attributes:
        identity: Everything beside the prompt that can change an answer, as text: part of the store's key.
        decoding: How answers are read; may be simpler than configured where an endpoint gives no log-probabilities.
        max_prompt_tokens: Longest prompt that leaves room for the answer; None: not known here.
        notes: What was found out about it, in lines for a person.
    """

    identity: str
    decoding: Decoding
    max_prompt_tokens: int | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """Hold text that a model wrote.

    Attributes:
        text: The text.
        whole: Whether the model ended it itself.
    """

    text: str
    whole: bool


class Engine(Protocol):
    """Evaluate prompts. There is one engine per replica; what runs on our own hardware need not say what it spent."""

    async def start(self) -> EngineFacts:
        """Load the model and evaluate something once, so that the first caller does not wait for it.

        Raises:
            UserError: The model cannot be had or does not fit.
        """

    async def evaluate(self, prompts: Sequence[Prompt]) -> list[Advice | AdviceError]:
        """Return one answer per prompt, in order; all are worked on at once.

        Raises:
            Exception: The engine is gone; a later call to another replica may succeed.
        """

    async def write(self, prompt: Prompt, max_tokens: int) -> Written | AdviceError:
        """Write text greedily, at most ``max_tokens`` tokens of it.

        Raises:
            Exception: The engine is gone; a later call to another replica may succeed.
        """

    async def check_health(self) -> None:
        """Return when the engine works.

        Raises:
            Exception: It is dead or hangs.
        """

    def spent(self) -> str:
        """Say on one line what was spent so far where something is counted; empty elsewhere."""
        return ""

    def shutdown(self) -> None:
        """End every process of the engine."""
