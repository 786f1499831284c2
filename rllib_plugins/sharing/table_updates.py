"""What is new in the tables of a runner, and what several runners' news make together.

A table is known by its ``get_state``: ``observations`` ``(n, obs_dim)``, oldest entry first, and columns with a row for
each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Entries: TypeAlias = dict[str, NDArray[Any]]


def news(before: Entries, after: Entries) -> Entries:
    """Return the entries of a table that are new or have changed; all of them where an old one has been dropped.

    Args:
        before: The table when it was last looked at.
        after: The table now.
    """
    known = len(before["observations"])
    if not known:
        return after
    if known > len(after["observations"]) or not np.array_equal(after["observations"][:known], before["observations"]):
        return after
    is_new = np.ones(len(after["observations"]), dtype=bool)
    is_new[:known] = False
    for name, column in before.items():
        same = (after[name][:known] == column) | ((after[name][:known] != after[name][:known]) & (column != column))
        is_new[:known] |= ~same.reshape(known, -1).all(axis=1)
    return {name: column[is_new] for name, column in after.items()}


def joined(parts: Sequence[Entries]) -> Entries:
    """Return the entries of several tables, one after the other; at least one table."""
    filled = [part for part in parts if len(part["observations"])] or parts[:1]
    return {name: np.concatenate([part[name] for part in filled]) for name in filled[0]}


def together(parts: Sequence[Entries]) -> Entries:
    """Return one entry per state of several runners' news of stored actions, in the order of the runners.

    Where several have an entry, the one that has been used up furthest stays: one that is gone, else that of the lowest
    memory. So what all runners serve from one answer is no more than between two syncs each serves by itself.

    Args:
        parts: ``observations``, ``actions`` and ``memories`` of each; at least one.
    """
    merged = joined(parts)
    if not len(merged["observations"]):
        return merged
    states = np.ascontiguousarray(merged["observations"]).view(np.uint32)
    _, state = np.unique(states, axis=0, return_inverse=True)
    used_up = np.nan_to_num(merged["memories"], nan=-np.inf)
    order = np.lexsort((used_up, state))
    _, first = np.unique(state[order], return_index=True)
    kept = np.sort(order[first])
    return {name: column[kept] for name, column in merged.items()}
