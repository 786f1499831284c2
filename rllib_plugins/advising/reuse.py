"""Define reuse rules: how often an advised action is used again.

The dictionary of stored actions belongs to one trial (``table.StoredActions``). Each entry holds the action and one
number, its *memory*, whose meaning is the rule's own: a budget, a probability, a Q-value.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from rllib_plugins.registries import NamedOptions


class Shipped(IntEnum):
    """Reuse rules by the number that ``kernels`` knows them by; OWN: a user's."""

    OFF = 0
    BUDGET = 1
    DECAY = 2
    Q_CHANGE = 3
    OWN = 4


class Numbers(NamedTuple):
    """A reuse rule as ``kernels`` takes it.

    Attributes:
        rule: Of ``Shipped``.
        option: λ of ``DECAY``, or the least change of ``Q_CHANGE``.
        fresh: Memory of a fresh entry.
    """

    rule: int
    option: float = math.nan
    fresh: float = math.nan


class ReuseRule(BaseModel):
    """Say when a stored action serves again. Subclass it; fields are the rule's options.

    Example:
        >>> class Times(ReuseRule):
        ...     '''Serve a number of times, as ``budget`` does.'''
        ...     times: int = 2
        ...
        ...     def stored(self, q):
        ...         return float(self.times)
        ...
        ...     def usable(self, memory, draw, q):
        ...         return memory > 0
        ...
        ...     def reused(self, memory, q):
        ...         return memory - 1
        >>> rule = Times(times=1)
        >>> memory = rule.stored(q=0.5)
        >>> rule.usable(memory, draw=0.3, q=0.5)
        True
        >>> rule.usable(rule.reused(memory, q=0.5), draw=0.3, q=0.5)
        False

    Name it in a preset by its import path, ``reuse: mypackage.rules:Times``, or by its name from ``register_reuse``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    needs_q: ClassVar[bool] = False
    """The rule looks at Q(s, stored action), so the student must be a value student."""

    def stored(self, q: float) -> float | None:
        """Return the memory of a fresh entry, None if it is not to be kept.

        Args:
            q: Q(s, a) of its action, NaN where unknown.
        """
        return 0.0

    def usable(self, memory: float, draw: float, q: float) -> bool:
        """Return whether the entry serves this visit, if the coin says heads. It is decided before the coin.

        Args:
            memory: The entry's memory.
            draw: A uniform number in [0, 1), the visit's own.
            q: Q(s, a) of the stored action now, NaN where there is none.
        """
        return False

    def reused(self, memory: float, q: float) -> float | None:
        """Return the memory after a reuse; None: the entry can never serve again and is forgotten."""
        return memory

    def numbers(self) -> Numbers:
        """Return the rule as machine code knows it; a user's own rule is called instead."""
        return Numbers(Shipped.OWN)


class ShippedRule(ReuseRule):
    """A reuse rule whose formulas are in ``kernels``; it cannot be extended: extend ``ReuseRule``."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse classes from elsewhere: their methods would never be called."""
        super().__init_subclass__(**kwargs)
        if cls.__module__ != __name__:
            raise TypeError(f"{cls.__name__} extends a reuse rule that is compiled: extend ReuseRule instead")


class Off(ShippedRule):
    """Draw afresh from the tutor's policy at every consultation."""

    def numbers(self) -> Numbers:  # noqa: D102
        return Numbers(Shipped.OFF)


class Budget(ShippedRule):
    """Let a stored action serve ``budget`` times more: SET_ACTION of arXiv 2509.08329 (after Zhu et al. 2020/2022).

    One answer thus serves up to 1 + budget consultations; the next consultation then draws afresh from π_T.
    """

    budget: int = Field(default=3, ge=0, description="Times that stored advice serves again; the paper's value is 3.")

    def numbers(self) -> Numbers:  # noqa: D102
        return Numbers(Shipped.BUDGET, fresh=float(self.budget))


class Decay(ShippedRule):
    """Reuse with probability ρ(s); ρ ← λρ after each reuse (Zhu et al. 2022, 10.1007/s10458-022-09595-1)."""

    initial: float = Field(default=1.0, ge=0, le=1, description="ρ of fresh advice.")
    decay: float = Field(default=0.9, ge=0, le=1, description="λ: what each reuse multiplies ρ by.")

    def numbers(self) -> Numbers:  # noqa: D102
        return Numbers(Shipped.DECAY, option=self.decay, fresh=self.initial)


class QChange(ShippedRule):
    """Reuse only while it raises Q(s, a) of the stored action (Q-change, Zhu et al. 2022; value students only).

    The value now is compared with the value at the last use. An unchanged value does not count against the action,
    since there may have been no update between two visits.
    """

    needs_q: ClassVar[bool] = True

    min_change: float = Field(
        default=0.0, description="Least Q(s, a) now − Q(s, a) at the last use, for the advice to serve."
    )

    def numbers(self) -> Numbers:  # noqa: D102
        return Numbers(Shipped.Q_CHANGE, option=self.min_change)


_REGISTRY: NamedOptions[ReuseRule] = NamedOptions("advice.reuse", ReuseRule)
_REGISTRY.register("off", Off)
_REGISTRY.register("budget", Budget)
_REGISTRY.register("decay", Decay)
_REGISTRY.register("q_change", QChange)

register_reuse = _REGISTRY.register
"""Make a reuse rule known by a name, so that a config can say it."""
reuse_names = _REGISTRY.names
make_reuse = _REGISTRY.make
