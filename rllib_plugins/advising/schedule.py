"""Define P(τ), the probability of asking, which falls as a trial goes on, and what else falls with it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LinearSchedule:
    """P(τ) = P_initial − (τ/θ)(P_initial − P_final) for τ ≤ θ, then P_final (arXiv 2509.08329).

    Attributes:
        initial: P_initial in [0, 1].
        final: P_final in [0, 1].
        theta: θ in env steps, above 0.

    Raises:
        ValueError: A field is out of its range.
    """

    initial: float
    final: float
    theta: float

    def __post_init__(self) -> None:
        for name in ("initial", "final"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"probability_{name} = {value!r} must be in [0, 1]")
        if not self.theta > 0:
            raise ValueError(f"theta = {self.theta!r} must be above 0 env steps")

    def __call__(self, step: int) -> float:
        """Return P at an env step."""
        if step >= self.theta:
            return self.final
        return self.initial - (step / self.theta) * (self.initial - self.final)
