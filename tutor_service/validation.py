"""Say which advice requests are answered at all. Pure; knows neither tutors nor transport."""

from __future__ import annotations

import unicodedata

from tutor_service.prompts.labels import MAX_ACTIONS
from tutor_service.schema import AdviceRequest

MAX_RULES_CHARS = 65_536
MAX_STATE_CHARS = 65_536
MAX_LABEL_CHARS = 64
MAX_LIST = 100_000
"""Most requests in one call."""


def problem(request: AdviceRequest) -> str | None:
    """Return why a request is invalid, naming the field; None for a valid one."""
    if not isinstance(request, AdviceRequest):
        return f"request: expected an AdviceRequest, got {type(request).__name__}"
    return (
        _text_problem("rules", request.rules, MAX_RULES_CHARS)
        or _text_problem("state", request.state, MAX_STATE_CHARS)
        or _actions_problem(request.actions)
        or _synonyms_problem(request)
    )


def _text_problem(field: str, text: object, limit: int) -> str | None:
    if not isinstance(text, str):
        return f"{field}: expected text, got {type(text).__name__}"
    if not text.strip():
        return f"{field}: is empty"
    if len(text) > limit:
        return f"{field}: {len(text)} characters; at most {limit}"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return f"{field}: is not valid Unicode (a lone surrogate)"
    return None


def _synonyms_problem(request: AdviceRequest) -> str | None:
    if request.synonyms == ():
        return None
    if not isinstance(request.synonyms, tuple) or len(request.synonyms) != len(request.actions):
        return f"synonyms: one tuple of words for each of the {len(request.actions)} actions is needed"
    for words in request.synonyms:
        if not isinstance(words, tuple):
            return f"synonyms: expected a tuple of words, got {type(words).__name__}"
        for word in words:
            if trouble := _label_problem("synonyms", word):
                return trouble
    return None


def _label_problem(field: str, label: object) -> str | None:
    if trouble := _text_problem(f"{field}: label {label!r:.80}", label, MAX_LABEL_CHARS):
        return trouble
    assert isinstance(label, str)
    if label != label.strip():
        return f"{field}: label {label!r} has white space around it"
    if any(unicodedata.category(character) in {"Cc", "Zl", "Zp"} for character in label):
        return f"{field}: label {label!r} holds a control character"
    return None


def _actions_problem(actions: object) -> str | None:
    if not isinstance(actions, tuple):
        return f"actions: expected a tuple of labels, got {type(actions).__name__}"
    if not 2 <= len(actions) <= MAX_ACTIONS:
        return f"actions: {len(actions)} labels; 2 to {MAX_ACTIONS} are needed"
    for label in actions:
        if trouble := _label_problem("actions", label):
            return trouble
    if len(set(actions)) < len(actions):
        return "actions: labels are not distinct"
    return None
