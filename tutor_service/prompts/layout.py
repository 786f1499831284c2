"""Lay out the words of a prompt: rules, an author's hint, strategy notes, the question. Must not know tokenizers.

A prompt is laid out for the prefix cache: everything that all requests of a task share comes first, and only the state,
the legal actions and the cue to answer follow.
"""

from __future__ import annotations

from tutor_service.prompts.labels import LabelMap
from tutor_service.prompts.prompt import Decoding
from tutor_service.schema import AdviceRequest

HINT, NOTES = "Hint: ", "Strategy notes: "
"""What a task's hint and a tutor's notes begin with."""

EMPTY_STATE = "(no observation)"
"""The state that shows a tutor's prior over the labels."""


def with_hint(rules: str, hint: str) -> str:
    """Return rules with their author's hint behind them."""
    return f"{rules}\n\n{HINT}{hint}"


def with_notes(rules: str, notes: str) -> str:
    """Return rules with strategy notes behind them."""
    return f"{rules.strip()}\n\n{NOTES}{notes}"


def notes_in(rules: str) -> str | None:
    """Return the notes behind rules; None where there are none."""
    _, title, notes = rules.partition(f"\n\n{NOTES}")
    return notes if title else None


def opening(rules: str) -> str:
    """Return what all questions of a task begin with."""
    return f"{rules.strip()}\n\n"


def question(request: AdviceRequest, labels: LabelMap, decoding: Decoding) -> str:
    """Return what follows the rules: the state, the legal actions and how to answer."""
    shown = ", ".join(labels.shown)
    lines = [request.state.strip(), ""]
    if labels.mapped:
        pairs = [(shown, action) for shown, action in zip(labels.shown, labels.actions, strict=True) if shown != action]
        lines.append("Actions: " + "; ".join(f"{shown} = {action}" for shown, action in pairs) + ".")
    if decoding == "text":
        lines.append(f"Choose one of: {shown}. Give it in tags: <action>your choice</action>")
    elif decoding == "reasoned":
        lines.append(f"Think it through, then answer with exactly one of: {shown}. Nothing else.")
    else:
        lines.append(f"Answer with exactly one of: {shown}.")
    return "\n".join(lines)
