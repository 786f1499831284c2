"""Reuse rules: how often an advised action serves again. Knows neither tutors nor the store of distributions.

The dictionary of stored actions belongs to one trial (``stored_actions``). Each entry holds the action and one number,
its *memory*, whose meaning is the rule's own (a budget, a probability, a Q-value). The rules here are compiled:
``kernels`` says the same in numbers.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from rllib_plugins.advising.registry import RuleRegistry


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
