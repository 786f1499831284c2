"""Errors that a person can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """A mistake in what the user asked for. The message names the field, the value and the remedy."""


_MOST_NAMES = 40
_NEAREST = 10


def unknown_name(kind: str, name: str, known: Iterable[str], where: str = "") -> UserError:
    """An error for a name that is not in a list: it shows the nearest spelling and the list, of a long one the nearest.

    Args:
        kind: What the name should be, e.g. ``tutor``.
        name: What was given.
        known: The valid names.
        where: Where it was looked for, e.g. ``in MLflow``.
    """
    names = sorted(set(known))
    hint = did_you_mean(name, names)
    unknown = f"unknown {kind} '{name}'" + (f" {where}" if where else "")
    if len(names) > _MOST_NAMES:
        some = difflib.get_close_matches(name, names, n=_NEAREST, cutoff=0.0)
        return UserError(f"{unknown}.{hint} The nearest of {len(names)}: {', '.join(some)}.")
    return UserError(f"{unknown}.{hint} Valid: {', '.join(names)}.")


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """A sentence with the nearest spelling, after a space; empty where none is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean '{near[0]}'?" if near else ""
