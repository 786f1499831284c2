"""Reuse rules: how often an advised action serves again. Knows neither tutors nor the store of distributions.

The dictionary of stored actions belongs to one trial. Each entry holds the action and one number, its *memory*, whose
meaning is the rule's own (a budget, a probability, a Q-value).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from rllib_plugins.advising.registry import RuleRegistry
from rllib_plugins.advising.table import keys_of

NOTHING = -1
"""In place of an action: nothing stored serves."""
_RAW_KEY_BYTES = 512
_DIGEST_BYTES = 16


class ReuseRule(BaseModel):
    """When a stored action serves again. Subclass it; fields are the rule's options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stores: ClassVar[bool] = True
    """False: nothing is kept, every consultation draws afresh."""
    needs_q: ClassVar[bool] = False
    """The rule looks at Q(s, stored action), so the student must be a value student."""

    def stored(self, q: float) -> float | None:
        """Memory of a fresh entry, None if it is not to be kept; ``q`` is Q(s, a) of its action, NaN where unknown."""
        return 0.0

    def usable(self, memory: float, draw: float, q: float) -> bool:
        """Whether the entry serves this visit, if the coin says heads. Decided before the coin.

        Args:
            memory: The entry's memory.
            draw: A uniform number in [0, 1), the visit's own.
            q: Q(s, a) of the stored action now, NaN where there is none.
        """
        return False

    def reused(self, memory: float, q: float) -> float | None:
        """Memory after a reuse; None: the entry can never serve again and is forgotten."""
        return memory


class Off(ReuseRule):
    """Every consultation draws afresh from the tutor's policy."""

    stores: ClassVar[bool] = False


class Budget(ReuseRule):
    """SET_ACTION of arXiv 2509.08329 (after Zhu et al. 2020/2022): a stored action serves ``budget`` times more.

    One answer so serves up to 1 + budget consultations; after that the next consultation draws afresh from π_T.
    """

    budget: int = Field(default=3, ge=0, description="Times that stored advice serves again; the paper's value is 3.")

    def stored(self, q: float) -> float | None:
        """A full budget."""
        return self.budget or None

    def usable(self, memory: float, draw: float, q: float) -> bool:
        """While budget is left."""
        return memory > 0

    def reused(self, memory: float, q: float) -> float | None:
        """One taken off."""
        return memory - 1 if memory > 1 else None


class Decay(ReuseRule):
    """Reuse with probability ρ(s); ρ ← λρ after each reuse (Zhu et al. 2022, 10.1007/s10458-022-09595-1)."""

    initial: float = Field(default=1.0, ge=0, le=1, description="ρ of fresh advice.")
    decay: float = Field(default=0.9, ge=0, le=1, description="λ: what each reuse multiplies ρ by.")

    def stored(self, q: float) -> float | None:
        """The first ρ."""
        return self.initial

    def usable(self, memory: float, draw: float, q: float) -> bool:
        """With probability ρ."""
        return draw < memory

    def reused(self, memory: float, q: float) -> float | None:
        """ρ ← λρ."""
        return self.decay * memory


class QChange(ReuseRule):
    """Reuse only while it raises Q(s, a) of the stored action (Q-change, Zhu et al. 2022; value students only).

    The value now is compared with the value at the last use. Unchanged counts as not yet judged and serves: between
    two visits there may have been no update.
    """

    needs_q: ClassVar[bool] = True

    min_change: float = Field(
        default=0.0, description="Least Q(s, a) now − Q(s, a) at the last use, for the advice to serve."
    )

    def stored(self, q: float) -> float | None:
        """Q(s, a) when the advice was given."""
        return q

    def usable(self, memory: float, draw: float, q: float) -> bool:
        """Where Q(s, a) has not fallen; True where there is no value to compare."""
        return math.isnan(memory) or math.isnan(q) or q - memory >= self.min_change

    def reused(self, memory: float, q: float) -> float | None:
        """Q(s, a) at this use."""
        return q


class AdviceDictionary:
    """The trial's stored actions, by state.

    Args:
        rule: When a stored action serves again.
    """

    def __init__(self, rule: ReuseRule):
        self._rule = rule
        self._entries: dict[bytes, tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def serve(
        self,
        keys: Sequence[bytes],
        is_open: Sequence[bool],
        is_heads: Sequence[bool],
        draws: Sequence[float],
        q_rows: Sequence[Sequence[float]] | None,
    ) -> list[int]:
        """The stored action that serves each visit, or ``NOTHING``; it is used up on heads only.

        Visits are taken in order. What one finds follows from those before it, never from its own coin.

        Args:
            keys: The states' keys, n.
            is_open: Whether the tutor may act in the state, n.
            is_heads: The coins, n.
            draws: Uniform numbers in [0, 1), n: the visits' own.
            q_rows: Q-values ``(n, num_actions)`` where the rule needs them.
        """
        entries, usable = self._entries, self._rule.usable
        served = []
        for row, key in enumerate(keys):
            entry = entries.get(key)
            if entry is None or not is_open[row]:
                served.append(NOTHING)
                continue
            action, memory = entry
            q = math.nan if q_rows is None else q_rows[row][action]
            if not usable(memory, draws[row], q):
                served.append(NOTHING)
                continue
            served.append(action)
            if is_heads[row]:
                self._keep(key, action, self._rule.reused(memory, q))
        return served

    def store(self, key: bytes, action: int, q_row: Sequence[float] | None) -> None:
        """Keeps a freshly advised action, in place of what was stored."""
        if self._rule.stores:
            self._keep(key, action, self._rule.stored(math.nan if q_row is None else q_row[action]))

    def _keep(self, key: bytes, action: int, memory: float | None) -> None:
        if memory is None:
            self._entries.pop(key, None)
        else:
            self._entries[key] = (action, memory)

    def get_state(self) -> dict[str, Any]:
        """Plain copy: keys, actions ``(num_entries,)`` and memories ``(num_entries,)``."""
        values = self._entries.values()
        return {
            "keys": list(self._entries),
            "actions": np.array([action for action, _ in values], dtype=np.int64),
            "memories": np.array([memory for _, memory in values], dtype=np.float64),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes over a ``get_state``."""
        pairs = zip(state["actions"].tolist(), state["memories"].tolist(), strict=True)
        self._entries = dict(zip(state["keys"], pairs, strict=True))


def state_keys(observations: NDArray[np.float32]) -> list[bytes]:
    """One key per row of ``(n, obs_dim)``: the row's bytes, or their BLAKE2b digest where they are many."""
    rows = keys_of(observations)
    if observations.shape[1] * observations.itemsize <= _RAW_KEY_BYTES:
        return rows
    return [hashlib.blake2b(row, digest_size=_DIGEST_BYTES).digest() for row in rows]


_REGISTRY: RuleRegistry[ReuseRule] = RuleRegistry("advice.reuse", ReuseRule)
_REGISTRY.register("off", Off)
_REGISTRY.register("budget", Budget)
_REGISTRY.register("decay", Decay)
_REGISTRY.register("q_change", QChange)


def register_reuse(name: str, cls: type[ReuseRule]) -> type[ReuseRule]:
    """Makes a reuse rule known by a name, so that a config can say it.

    Raises:
        ValueError: The name is taken, or ``cls`` does not extend ``ReuseRule``.
    """
    return _REGISTRY.register(name, cls)


def reuse_names() -> tuple[str, ...]:
    """Names of the registered reuse rules."""
    return _REGISTRY.names


def make_reuse(name: str, options: dict[str, Any]) -> ReuseRule:
    """Builds a reuse rule from a config's name (or ``module:Class``) and options.

    Raises:
        UserError: Unknown rule or option, with the nearest spelling, or a value out of range.
    """
    return _REGISTRY.make(name, options)
