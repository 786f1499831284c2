"""Answers from an exported file, in this process: no LLM, no service, no GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tutor_service.recorded import open_recorded
from tutor_service.schema import Advice, AdviceError, AdviceRequest


class RecordedBackend:
    """A tutor's exported answers. What was never asked is a miss.

    Args:
        path: The exported file.
        identity: Part of the identity or rules of the answers that count; see ``RecordedAnswers``.
    """

    def __init__(self, path: Path, identity: str | None = None) -> None:
        self.path = path
        self.identity = identity

    def advise(self, requests: Sequence[AdviceRequest], timeout_s: float) -> list[Advice | AdviceError]:
        """Look the questions up: see ``Backend``."""
        answers = open_recorded(self.path, self.identity)
        found = (answers.find(request.rules, (request.state, request.actions)) for request in requests)
        never = AdviceError("the recorded tutor was never asked this")
        return [never if one is None else replace(one, invalid=0, tokens=0, thought="") for one in found]

    def __repr__(self) -> str:
        return f"RecordedBackend('{self.path}')"
